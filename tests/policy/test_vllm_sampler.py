"""vLLM itself, on a CPU: it answers like the in-process sampler, swapped weights like a fresh engine.

Every engine start takes from 20 seconds to a minute, so the tests share three of them, and run in one process.
"""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.planned import PlannedSampler
from conftest import REPORTED
from small_world import ODD, small_config, tiny
from strategies import METHODS
from suite.experiments.names import EMBEDDED_MODEL, EMBEDDED_TASKS, tasks_named
from suite.policy import vllm_sampler
from suite.policy.hand_over import handed_over
from suite.policy.loading import LoadedModel, load_model
from suite.policy.prompting import encode
from suite.policy.revisions import weights_name
from suite.policy.sampling import SampleRequest, SamplingSettings, TransformersSampler, awake
from suite.policy.scoring import pack, score
from suite.policy.vllm_engine import require_vllm
from suite.policy.vllm_sampler import VllmSampler, stop_engine
from suite.records.packed import read_result
from suite.records.rollout_set import RolloutSet
from suite.seeds import derive
from suite.training.rollout_source import RolloutSource
from suite.training.trainer import Trainer
from suite.types import FinishReason, Rollout, UserError
from vllm_here import TOLERANCE, vllm_is_installed

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.xdist_group("vllm"),
    pytest.mark.skipif(not vllm_is_installed(), reason="vLLM is not installed: make test-vllm brings it"),
]


@pytest.fixture(scope="module")
def base() -> LoadedModel:
    return load_model("embedded", dtype=torch.float32, device="cpu", embedded_folder=EMBEDDED_MODEL)


@pytest.fixture(scope="module")
def sampler(base: LoadedModel) -> Iterator[VllmSampler]:
    made = VllmSampler(base.model, base.tokenizer)
    yield made
    stop_engine()


@pytest.fixture(scope="module")
def asked(base: LoadedModel) -> list[SampleRequest]:
    """32 prompts of the embedded evaluation sets."""
    count = 32 // len(EMBEDDED_TASKS)
    return [
        SampleRequest(p.id, 0, derive(0, "vllm", p.id), encode(base.tokenizer, task, p))
        for task in tasks_named(EMBEDDED_TASKS)
        for p in task.load("eval", None)[:count]
    ]


def ids(rollouts: Sequence[Rollout]) -> list[tuple[int, ...]]:
    return [r.response_ids for r in rollouts]


def moved(model: Any, size: float) -> Any:
    """A copy with every weight shifted at random, relative to its tensor's spread."""
    other = copy.deepcopy(model)
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(torch.randn(p.shape, generator=noise) * size * p.std())
    return other


@torch.no_grad()
def gaps(model: Any, rollouts: Sequence[Rollout]) -> torch.Tensor:
    """|sampler's log-prob - trainer's log-prob| of every response token."""
    batch = pack(rollouts, range(len(rollouts)), "cpu")
    trained = score(model, batch)[batch.response_mask]
    return (trained - torch.tensor([x for r in rollouts for x in r.sampler_log_probs])).abs()


def test_greedy_answers_are_those_of_transformers_on_32_prompts(
    base: LoadedModel, sampler: VllmSampler, asked: list[SampleRequest], record_property: Any
) -> None:
    start = time.perf_counter()
    sampler.sample(asked[:1], SamplingSettings(1))
    record_property(REPORTED, f"{sampler.engine}: {time.perf_counter() - start:.1f} s from nothing to the first token")
    settings = SamplingSettings(32, temperature=0)
    theirs = sampler.sample(asked, settings)
    ours = TransformersSampler(base.model, base.tokenizer).sample(asked, settings)
    assert len(theirs) == 32
    for a, b in zip(theirs, ours, strict=True):
        assert dataclasses.replace(a, sampler_log_probs=()) == dataclasses.replace(b, sampler_log_probs=())
        assert a.sampler_log_probs == pytest.approx(b.sampler_log_probs, abs=TOLERANCE)
    assert {r.finish_reason for r in theirs} == {FinishReason.STOP, FinishReason.LENGTH}


def test_log_probs_of_drawn_tokens_are_the_trainers(
    base: LoadedModel, sampler: VllmSampler, asked: list[SampleRequest], record_property: Any
) -> None:
    found = gaps(base.model, sampler.sample(asked, SamplingSettings(96)))
    gap = f"mean {found.mean():.1e}, largest {found.max():.1e}"
    record_property(
        REPORTED, f"{sampler.engine} against the trainer, |log-prob difference| of {len(found)} sampled tokens: {gap}"
    )
    assert found.max() < TOLERANCE


def test_planned_lengths_are_kept_and_change_nothing_before_the_first_end(
    base: LoadedModel, sampler: VllmSampler, asked: list[SampleRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Benchmarks plan the lengths of both sides' responses."""
    settings, lengths = SamplingSettings(24), [1, 24, 7, 3]
    free = sampler.sample(asked[:4], settings)
    monkeypatch.setattr(vllm_sampler, "parameters", vllm_sampler.parameters)  # taken back when this test ends
    planned = PlannedSampler(sampler, lengths).sample(asked[:4], settings)
    assert [len(r.response_ids) for r in planned] == lengths
    for mine, other in zip(planned, free, strict=True):
        common = min(len(mine.response_ids), len(other.response_ids) - 1)
        assert mine.response_ids[:common] == other.response_ids[:common]


def test_log_probs_at_another_temperature_are_those_drawn_from(
    base: LoadedModel, sampler: VllmSampler, asked: list[SampleRequest]
) -> None:
    r = max(sampler.sample(asked, SamplingSettings(48, temperature=0.7)), key=lambda r: len(r.response_ids))
    with torch.no_grad():
        logits = base.model(torch.tensor([r.prompt_ids + r.response_ids])).logits[0, len(r.prompt_ids) - 1 : -1]
    wanted = torch.log_softmax(logits / 0.7, dim=-1).gather(1, torch.tensor(r.response_ids)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(r.sampler_log_probs), wanted, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("limit", [1, 7, 40])
def test_stop_texts_and_limits_end_a_response_as_in_process(
    base: LoadedModel, sampler: VllmSampler, asked: list[SampleRequest], limit: int
) -> None:
    settings = SamplingSettings(limit, temperature=0, stop=("=", "11"))
    theirs = sampler.sample(asked, settings)
    ours = TransformersSampler(base.model, base.tokenizer).sample(asked, settings)
    assert [(r.response_ids, r.finish_reason) for r in theirs] == [(r.response_ids, r.finish_reason) for r in ours]
    if limit == 40:
        assert any(base.tokenizer.decode(list(r.response_ids)).endswith(("=", "11")) for r in theirs)


def test_a_seed_decides_a_text_whatever_else_is_drawn(sampler: VllmSampler, asked: list[SampleRequest]) -> None:
    settings = SamplingSettings(48)
    together = ids(sampler.sample(asked, settings))
    assert ids(sampler.sample(asked, settings)) == together
    assert ids(sampler.sample(asked[::-1], settings))[::-1] == together
    assert [ids(sampler.sample([r], settings))[0] for r in asked[:6]] == together[:6]
    other = [dataclasses.replace(r, seed=r.seed ^ 1) for r in asked]
    assert ids(sampler.sample(other, settings)) != together


def test_minus_one_is_a_seed_too(sampler: VllmSampler, asked: list[SampleRequest]) -> None:
    """vLLM's own parameter takes -1 for "draw anything"."""
    same = [dataclasses.replace(asked[0], seed=-1, sample_index=i) for i in range(4)]
    assert len(set(ids(sampler.sample(same, SamplingSettings(48))))) == 1


def test_policies_that_nearly_agree_draw_nearly_the_same(
    base: LoadedModel, sampler: VllmSampler, asked: list[SampleRequest]
) -> None:
    """Common random numbers between policies. Other seeds show how many agree by chance."""
    settings = SamplingSettings(48)
    before = ids(sampler.sample(asked, settings))
    after = ids(VllmSampler(moved(base.model, 1e-5), base.tokenizer).sample(asked, settings))
    other = ids(sampler.sample([dataclasses.replace(r, seed=r.seed ^ 1) for r in asked], settings))
    agreed = [sum(a == b for a, b in zip(before, those, strict=True)) for those in (after, other)]
    assert agreed[0] >= 30
    assert agreed[1] <= 16


def test_progress_counts_every_response(sampler: VllmSampler, asked: list[SampleRequest]) -> None:
    told: list[int] = []
    sampler.sample(asked, SamplingSettings(4), told.append)
    assert sum(told) == len(asked)


def test_what_vllm_cannot_do_is_refused(base: LoadedModel, sampler: VllmSampler, asked: list[SampleRequest]) -> None:
    with pytest.raises(UserError, match=r"exceeds the model's context of 512"):
        sampler.sample(asked, SamplingSettings(600))
    assert sampler.sample([], SamplingSettings(4)) == []


def long_prompts(asked: list[SampleRequest]) -> list[SampleRequest]:
    """The same problems behind a start that is longer than any cache block."""
    start = tuple(t for r in asked * 4 for t in r.prompt_ids)[:300]
    assert len(start) == 300
    return [dataclasses.replace(r, prompt_ids=start + r.prompt_ids) for r in asked[:8]]


def test_a_prefix_cache_of_older_weights_would_be_noticed(
    base: LoadedModel, sampler: VllmSampler, asked: list[SampleRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: without the reset, keys and values of the old weights answer for the new ones."""
    other, settings = VllmSampler(moved(base.model, 0.05), base.tokenizer), SamplingSettings(16)
    sampler.sample(long_prompts(asked), settings)
    assert gaps(other.model, other.sample(long_prompts(asked), settings)).max() < TOLERANCE
    sampler.sample(long_prompts(asked), settings)
    assert vllm_sampler._running is not None
    monkeypatch.setattr(vllm_sampler._running.llm, "reset_prefix_cache", lambda: True)
    assert gaps(other.model, other.sample(long_prompts(asked), settings)).max() > TOLERANCE
    monkeypatch.undo()
    assert vllm_sampler._running.llm.reset_prefix_cache()


def test_swapped_weights_answer_like_a_fresh_engine(
    base: LoadedModel, sampler: VllmSampler, asked: list[SampleRequest]
) -> None:
    """The fresh engine is the one after an interrupted call, and reads a generation config that must not matter."""
    greedy, drawn = SamplingSettings(48, temperature=0), SamplingSettings(48)
    before = sampler.sample(asked, greedy), sampler.sample(asked, drawn)
    engine = vllm_sampler._running
    model = moved(base.model, 0.05)
    model.generation_config.update(do_sample=True, top_k=1, temperature=0.1, repetition_penalty=3.0)
    other = VllmSampler(model, base.tokenizer)
    swapped = other.sample(asked, greedy), other.sample(asked, drawn)
    assert ids(swapped[0]) != ids(before[0])
    assert gaps(model, swapped[1]).max() < TOLERANCE
    assert (sampler.sample(asked, greedy), sampler.sample(asked, drawn)) == before
    assert vllm_sampler._running is engine

    def interrupt(new: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        other.sample(asked, drawn, interrupt)
    assert vllm_sampler._running is None
    fresh = other.sample(asked, greedy), other.sample(asked, drawn)
    assert fresh == swapped
    assert vllm_sampler._running is not engine


def test_weights_under_an_old_name_would_be_noticed(
    base: LoadedModel, sampler: VllmSampler, asked: list[SampleRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The planted fault: somebody changes weights, and their name stays."""
    model, settings = moved(base.model, 0.05), SamplingSettings(16)
    sampler.sample(asked, settings)
    old = weights_name(base.model)
    monkeypatch.setattr(vllm_sampler, "weights_name", lambda model: old)
    other = VllmSampler(model, base.tokenizer)
    assert gaps(model, other.sample(asked, settings)).max() > TOLERANCE
    monkeypatch.undo()
    assert gaps(model, other.sample(asked, settings)).max() < TOLERANCE


def test_weights_are_handed_over_once_for_a_block_and_again_when_they_change_in_it(
    base: LoadedModel, sampler: VllmSampler, asked: list[SampleRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    handed: list[Any] = []

    def counted(*arguments: Any) -> Any:
        handed.append(arguments[0])
        return handed_over(*arguments)

    monkeypatch.setattr(vllm_sampler, "handed_over", counted)
    model, settings = moved(base.model, 0.04), SamplingSettings(16)
    other = VllmSampler(model, base.tokenizer)
    with awake(other):
        for _ in range(3):
            other.sample(asked[:4], settings)
        assert len(handed) == 1
        with torch.no_grad():
            model.model.norm.weight.mul_(1.2)
        assert gaps(model, other.sample(asked, settings)).max() < TOLERANCE
        assert len(handed) == 2
    other.sample(asked[:4], settings)
    assert len(handed) == 3, "a digest is another name than a count of changes, once"
    other.sample(asked[:4], settings)
    assert len(handed) == 3


def test_training_draws_from_todays_weights(tmp_path: Path) -> None:
    """Two steps: the second set's log-probs are those of the policy that the first step made, and of no older one."""
    model, tokenizer = tiny()
    start, config = copy.deepcopy(model), small_config(steps=2, sampler="vllm")
    found: list[tuple[RolloutSet, torch.Tensor, float]] = []

    def keep(step: int, recorded: RolloutSet) -> None:
        assert vllm_sampler._running is not None
        assert vllm_sampler._running.weights == weights_name(model)
        from_start = float(gaps(start, recorded.rollouts).max())
        found.append((recorded, gaps(model, recorded.rollouts).max(), from_start))

    sampler = VllmSampler(model, tokenizer)
    source = RolloutSource.of(model, tokenizer, sampler, [ODD], config, 0, {})
    log = Trainer(config, METHODS["fspo"], 0, source, tmp_path, on_rollouts=keep).run()
    assert len(log) == len(found) == 2
    assert all(gap < TOLERANCE for _, gap, _ in found)
    assert found[1][2] > 100 * TOLERANCE
    assert found[0][0].header["sampling"]["engine"] == sampler.engine


def test_evaluate_runs_vllm_and_leaves_no_process_behind(tmp_path: Path) -> None:
    stop_engine()
    command = [
        sys.executable,
        "-m",
        "suite.commands.main",
        "evaluate",
        "--engine",
        "vllm",
        "--limit",
        "2",
        "--samples",
        "2",
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    output, _ = process.communicate()
    assert process.returncode == 0, output
    result = read_result(tmp_path / "out")
    assert result.config["engine"] == "vllm"
    assert result.environment["sampler"] == f"{require_vllm()} float32"
    assert left_behind(process.pid) == []


def left_behind(session: int) -> list[str]:
    """The session's processes that do not end by themselves: Python's resource tracker outlives its parent a little."""
    living = members(session)
    for _ in range(300):
        if living:
            time.sleep(0.1)
            living = members(session)
    return living


def members(session: int) -> list[str]:
    """The living processes of a session, which began with the process of that id."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = stat.read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            rest = ""
        fields = rest.split()
        if fields and fields[0] != "Z" and int(fields[3]) == session:
            found.append(name)
    return found
