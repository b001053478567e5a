"""Benchmarks of the log-prob op, of scaling and of the GPU, and the table of ratios: their work is right. No times."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import clock, gpu, gpu_text, log_probs, scaling, summary
from benchmarks.decoding import GROWING, STATIC
from benchmarks.ratios import Ratio, write
from benchmarks.stopwatch import DECODING, WORK, Stopwatch, overhead, watched
from small_world import small_config, small_source
from suite.model_shapes import model_shape
from suite.packed_attention import _by_sequence
from suite.recipes import EMBEDDED_MODEL, METHODS
from suite.scoring import pack, score
from suite.types import UserError

SMALL = log_probs.Case(50, "float32", 256, 16)


# --- the table ------------------------------------------------------------------------------------


def test_the_table_reads_every_file_and_names_what_is_missing_or_broken(tmp_path: Path) -> None:
    rows = [
        Ratio("p1", "ours / trl, heavy tail", 2.5, 2.0, "higher", 0.61),
        Ratio("p1", "memory", 1.5, 1.0, "lower"),
        Ratio("p1", "told", 3.0, None, "lower"),
    ]
    write(tmp_path / "training_step.json", "training_step", False, rows)
    write(tmp_path / "else.json", "else", True, rows[:1], did_not_run={"liger": "no GPU"})
    (tmp_path / "arena.json").write_text('{"measurements": []}')
    (tmp_path / "grading.json").write_text('{"ratios": [')
    text = summary.summarise(tmp_path)
    assert (tmp_path / "table.md").read_text() == text
    lines = text.splitlines()
    assert lines[2] == "| training_step | p1: ours / trl, heavy tail | 2.50 | at least 2.00 | yes | 61 % |"
    assert lines[3] == "| training_step | p1: memory | 1.50 | at most 1.00 | no |  |"
    assert lines[4] == "| training_step | p1: told | 3.00 |  |  |  |"
    assert lines[5].startswith("| else | ")
    for note in ("arena: no ratios", "grading: grading.json is broken", "cycles: not run", "liger did not run: no GPU"):
        assert note in text
    assert "else: --quick" in text


def test_an_empty_folder_has_no_table(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no ratios to show"):
        summary.summarise(tmp_path)


@pytest.mark.parametrize(("better", "met"), [("higher", (True, True, False)), ("lower", (False, True, True))])
def test_a_goal_is_met_on_its_good_side(better: str, met: tuple[bool, ...]) -> None:
    assert tuple(Ratio("a", "b", ratio, 1.0, better).met for ratio in (1.1, 1.0, 0.9)) == met  # type: ignore[arg-type]


# --- the log-prob op ------------------------------------------------------------------------------


def test_all_sides_that_run_here_agree_and_the_others_say_why() -> None:
    sides, reasons = log_probs.runnable("cpu")
    assert {"ours", "plain"} <= sides.keys()
    assert sides.keys() | reasons.keys() == log_probs.SIDES.keys()
    assert all(reasons.values())
    x = log_probs.inputs(SMALL)
    log_p, entropy = log_probs.forward(log_probs.plain, x)
    gradients = {}
    for name, side in sides.items():
        found = log_probs.forward(side, x)
        torch.testing.assert_close(found[0], log_p)
        assert found[1] is None or torch.allclose(found[1], entropy, atol=1e-5)  # type: ignore[arg-type]
        log_probs.both(side, x)
        gradients[name] = (x.hidden.grad, x.weight.grad)
    for found in gradients.values():
        torch.testing.assert_close(found, gradients["plain"], atol=1e-4, rtol=1e-4)


def test_a_side_that_is_wrong_has_an_error_of_that_size() -> None:
    def wrong(x: log_probs.Inputs, entropy: bool) -> log_probs.Found:
        return log_probs.plain(x, entropy)[0] + 1e-3, None

    found = log_probs.errors(SMALL, {"ours": log_probs.ours, "wrong": wrong})
    assert found["ours"]["token_max"] < 1e-5
    assert found["wrong"]["token_mean"] == pytest.approx(1e-3, rel=1e-2)
    assert found["wrong"]["sequence_rms"] == pytest.approx(0.128, rel=1e-2)


def test_memory_counts_what_a_pass_takes() -> None:
    case = log_probs.Case(160_000, "float32", 256, 16)
    logits = case.vocabulary * case.tokens * 4 / log_probs.MIB  # 156; ours are some tiles of 4, however large it is
    found = log_probs.memory_apart(case, ["plain", "ours"])["forward"]
    assert found["plain"]["extra_mib"] > logits
    assert found["ours"]["extra_mib"] < logits / 2


# --- scaling --------------------------------------------------------------------------------------


def test_seconds_inside_decoding_are_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    readings = iter([0.0, 1.0, 3.0, 10.0, 20.0, 24.0])
    monkeypatch.setattr("benchmarks.stopwatch.time.perf_counter", lambda: next(readings))
    watch = Stopwatch()
    with watch.section(DECODING), watch.section("forward"):
        pass
    with watch.section("forward"):
        pass
    assert dict(watch.seconds) == {"decoding: forward": 2.0, DECODING: 10.0, "forward": 4.0}
    assert overhead(watch, 20.0) == pytest.approx(0.3)


def test_a_watched_step_sees_all_its_work_and_leaves_no_watch_behind(tmp_path: Path) -> None:
    source = small_source(small_config())
    model, watch = source.model, Stopwatch()
    forward, backward = model.base_model.forward, torch.Tensor.backward
    first = source.record(0)
    with watched(watch, model):
        scaling.FirstStep(source.config, METHODS["fspo"], 0, source, tmp_path, first).once()
    assert set(watch.seconds) == set(WORK) - {DECODING}
    assert model.base_model.forward == forward
    assert torch.Tensor.backward is backward
    before = dict(watch.seconds)
    score(model, pack(first.rollouts, [0], "cpu"))
    assert dict(watch.seconds) == before


def test_shared_scores_change_no_cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five cells end with the same weights whether they share rollouts and scores or not."""
    config = small_config()
    source = small_source(config)
    ends: list[torch.Tensor] = []
    once = scaling.FirstStep.once

    def kept(self: scaling.FirstStep) -> None:
        once(self)
        ends.append(torch.cat([p.detach().flatten() for p in self.source.model.parameters()]))

    monkeypatch.setattr(scaling.FirstStep, "once", kept)
    cells = scaling.FiveCells(config, source, tmp_path)
    cells.separate()
    cells.all_shared()
    assert len(ends) == 10
    for apart, shared in zip(ends[:5], ends[5:], strict=True):
        assert torch.equal(apart, shared)
    assert not torch.equal(ends[0], ends[4])


def test_a_slope_is_the_exponent() -> None:
    sizes = [10, 20, 40, 80]
    assert scaling.slope(sizes, [0.1 * n**1.5 for n in sizes]) == pytest.approx(1.5)


# --- the GPU's script -----------------------------------------------------------------------------


def test_operations_are_counted_by_the_formula() -> None:
    shape = model_shape("embedded", EMBEDDED_MODEL)
    rollouts = small_source(small_config()).record(0).rollouts[:3]
    sizes = [len(r.prompt_ids) + len(r.response_ids) for r in rollouts]
    attention = sum(4 * shape.layers * shape.queries * size * size / 2 for size in sizes)
    whole = gpu_text.operations(shape, rollouts, True)
    assert whole == pytest.approx(2 * shape.parameters * sum(sizes) + attention)
    prompts = sum(len(r.prompt_ids) for r in rollouts)
    extra = shape.parameters - shape.linear
    head = shape.vocabulary * shape.hidden
    done = gpu_text.operations(shape, rollouts, False)
    assert whole - done == pytest.approx(2 * extra * sum(sizes) + 2 * head * prompts)


def test_the_gpu_script_runs_on_a_cpu_with_the_embedded_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--quick", "--out", str(tmp_path)])
    gpu.main()
    found = json.loads((tmp_path / "gpu.json").read_text())
    (embedded,) = found["models"]
    phases = {row["phase"]: row for row in embedded["phases"]}
    assert {"sample, transformers", "first scoring", "update", "evaluate"} <= phases.keys()
    assert all(row["tokens_per_second"] > 0 and row["peak_gib"] > 0 for row in phases.values())
    assert phases["update"]["mfu"] is None
    decoded = [phases[name] for name in (GROWING, STATIC)]
    assert all(row["tokens"] == 4 * 8 and row["tokens_agreed"] == 1 for row in decoded)
    assert phases["update"]["flops_mfu"] > phases["update"]["flops_mfu_done"] > 0
    assert {row["precision"] for row in embedded["null_update"]} == set(gpu.PRECISIONS)
    assert found["kernel"] == {"ran": False, "reason": "the kernel needs a CUDA device"}
    text = (tmp_path / "gpu.md").read_text()
    assert "6 N tokens" in text
    assert "| embedded | update |" in text


def test_without_a_gpu_the_script_says_so(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(UserError, match="no CUDA device here"):
        gpu.run(tmp_path, ["embedded"], "cuda", False)


@pytest.mark.gpu
def test_the_kernel_equals_one_call_a_sequence() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    found = gpu.kernel_check("cuda")
    assert found["equal"], found


def test_the_check_of_the_kernel_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU with stand-ins: the same path twice is equal, a path that forgets a sequence's start is not."""

    def blind(q, k, v, sizes, scaling):
        return _by_sequence(q, k, v, (sum(sizes),), scaling)

    for path, equal in ((_by_sequence, True), (blind, False)):
        monkeypatch.setattr("suite.packed_attention._by_kernel", path)
        assert gpu.compared("cpu")["equal"] is equal


def test_programs_of_any_number_run_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    programs = {name: lambda name=name: ran.append(name) for name in "abc"}
    seconds = clock.interleaved(programs, 2)
    assert "".join(ran) == "abc" * 3
    assert {name: len(found) for name, found in seconds.items()} == {"a": 2, "b": 2, "c": 2}


def test_random_weights_get_ragged_lengths() -> None:
    rollouts = small_source(small_config()).record(0).rollouts
    cut = gpu.ragged(rollouts)
    assert [len(r.response_ids) for r in cut] == [
        max(1, len(r.response_ids) * (i % 8 + 1) // 8) for i, r in enumerate(rollouts)
    ]
    assert all(len(r.response_ids) == len(r.sampler_log_probs) for r in cut)
