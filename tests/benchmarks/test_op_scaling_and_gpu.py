"""Benchmarks of the log-prob op, and of scaling, and the table of ratios: their work is right. No times."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks import clock, log_probs, scaling, summary
from benchmarks.ratios import Ratio, write
from benchmarks.stopwatch import DECODING, WORK, Stopwatch, overhead, watched
from small_world import small_config, small_source
from suite.experiments.names import METHODS
from suite.policy.scoring import pack, score
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


def test_programs_of_any_number_run_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    programs = {name: lambda name=name: ran.append(name) for name in "abc"}
    seconds = clock.interleaved(programs, 2)
    assert "".join(ran) == "abc" * 3
    assert {name: len(found) for name, found in seconds.items()} == {"a": 2, "b": 2, "c": 2}
