"""The benchmark's script: its programs do the same work, its clock runs them in turn, its file is whole. No times."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import arena, clock
from small_world import ODD, small_config, small_source
from strategies import METHODS
from suite.config import plain_data
from suite.experiments.recipe_book import FIVE
from suite.experiments.recipes import recipe
from suite.experiments.start import load, source_of
from suite.records.bank import Bank, PendingFile
from suite.types import UserError

NAMED = {name: METHODS[name] for name in arena.REPLAYED}
FIVE_METHODS = {name: METHODS[name] for name in FIVE}


@pytest.fixture(scope="module")
def material() -> arena.Material:
    """A tiny model, sixteen responses, several micro-batches."""
    config = small_config(tokens_per_micro_batch=120)
    source = small_source(config)
    recorded = source.record(0)
    return arena.prepared(source.model, recorded.rollouts, config, ODD.max_new_tokens, recorded.digest)


def test_seventeen_different_methods_are_replayed() -> None:
    assert len(set(arena.REPLAYED)) == len(arena.REPLAYED) == 17
    assert len(set(FIVE)) == 5
    assert arena.gradient_limit(5) == pytest.approx(11 / 15 * 1.1)


def test_the_policy_has_moved_and_both_ways_to_the_gradients_agree(material: arena.Material) -> None:
    assert len(material.parts) > 1
    found = arena.checked(material, NAMED, FIVE_METHODS)
    assert 0 < found["largest_log_ratio"] < 0.1
    assert found["backwards_skipped"] == 0
    # Float32 sums over sixteen responses in another order: the difference is some steps of 1.2e-7.
    assert found["gradient_difference"] < 1e-5
    surrogates = arena.forward_and_methods(material, NAMED)
    assert list(surrogates) == list(arena.REPLAYED)
    assert all(len(surrogate.objective) == 16 for surrogate in surrogates.values())


def test_a_micro_batch_that_is_clipped_whole_is_counted(material: arena.Material) -> None:
    first, *rest = material.parts
    far = {"old_log_probs": first.batch.old_log_probs - 3, "advantages": torch.ones_like(first.batch.advantages)}
    clipped = replace(first, batch=replace(first.batch, **far))
    found = arena.checked(replace(material, parts=[clipped, *rest]), NAMED, FIVE_METHODS)
    assert found["backwards_skipped"] == pytest.approx(1 / len(material.parts))


def test_a_program_that_does_other_work_is_refused(material: arena.Material, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = arena.shared_gradients
    monkeypatch.setattr(arena, "shared_gradients", lambda *given: 1.001 * shared(*given))
    with pytest.raises(UserError, match=r"the two programs differ by 1\.0e-03"):
        arena.checked(material, NAMED, FIVE_METHODS)


def test_rollouts_without_gradient_are_refused() -> None:
    config = small_config()
    source = small_source(config)
    recorded = source.record(0)
    wrong = [type(r)(**{**r.__dict__, "reward": 0.0}) for r in recorded.rollouts]
    still = arena.prepared(source.model, wrong, config, ODD.max_new_tokens, recorded.digest)
    with pytest.raises(UserError, match="gradients: ppo, rloo, grpo, gspo, fspo: none on these rollouts"):
        arena.checked(still, NAMED, FIVE_METHODS)


def test_programs_run_in_turn_and_every_time_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    slow, fast = (("slow", lambda: ran.append("slow")), ("fast", lambda: ran.append("fast")))
    # What the clock says before and after each program: 3, 1, 5, 1, 4, 2 seconds.
    readings = itertools.chain.from_iterable((0.0, seconds) for seconds in (3.0, 1.0, 5.0, 1.0, 4.0, 2.0))
    monkeypatch.setattr(clock.time, "perf_counter", lambda: next(readings))
    found = clock.timed(clock.Measurement("m", "slow / fast", 3.5, slow, fast), 3)
    assert ran == ["slow", "fast"] * 4
    assert found["seconds"] == {"slow": [3.0, 5.0, 4.0], "fast": [1.0, 1.0, 2.0]}
    assert (found["ratio_of_medians"], found["ratio_of_minima"]) == (4.0, 3.0)
    shown = clock.table([found, {**found, "limit": 4.0}])
    assert shown["medians within"].tolist() == ["no", "yes"]


def check_file(path: Path, responses: int) -> dict[str, Any]:
    content = json.loads(path.read_text())
    assert content["schema"] == arena.SCHEMA
    assert content["quick"] is True
    assert content["methods"] == {"replay": list(arena.REPLAYED), "gradients": list(FIVE)}
    assert {"commit", "torch", "threads"} <= content["environment"].keys()
    assert len(content["load_average"]["before"]) == len(content["load_average"]["after"]) == 3
    assert content["material"]["responses"] == responses
    assert content["checks"]["gradient_difference"] <= arena.AGREEMENT
    assert content["checks"]["backwards_skipped"] == 0
    assert content["checks"]["largest_log_ratio"] > 0
    for one, limit in zip(content["measurements"], (1.3, arena.gradient_limit(5)), strict=True):
        assert one["limit"] == limit
        over, under = one["seconds"][one["numerator"]], one["seconds"][one["denominator"]]
        assert len(over) == len(under) == content["rounds"] == 2
        assert all(math.isfinite(seconds) and seconds > 0 for seconds in over + under)
        assert one["ratio_of_medians"] == pytest.approx(sum(over) / sum(under))
        assert one["ratio_of_minima"] == min(over) / min(under)
    return content


@pytest.mark.slow
def test_quick_writes_a_whole_file_from_the_demo_and_from_a_bank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arena.run(tmp_path / "demo.json", quick=True)
    content = check_file(tmp_path / "demo.json", 16)
    shown = capsys.readouterr().out
    assert all(f"{one['ratio_of_medians']:.3f}" in shown for one in content["measurements"])

    config = small_config(
        tasks=("recurrence", "equation"), max_new_tokens=48, tokens_per_micro_batch=1024, learning_rate=1e-4
    )
    loaded, sampler = load(config)
    rollouts = source_of(replace(recipe("demo"), train=config), loaded, sampler, 1).record(0)
    facts = {"train": plain_data(config), "seed": 1, "digests": {"model": loaded.digest}}
    first = PendingFile("rollouts", rollouts.to_bytes(), 1, 0, len(rollouts.rollouts), loaded.digest)
    bank = Bank.open_or_new(tmp_path / "bank").append("none-seed1", facts, [first])
    arena.run(tmp_path / "bank.json", bank=bank.folder, quick=True)
    assert check_file(tmp_path / "bank.json", 16)["material"]["rollouts"] == rollouts.digest


def test_bad_input_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--rounds 6: at least 7"):
        arena.run(tmp_path / "out.json", rounds=6)
    with pytest.raises(UserError, match="no bank to read"):
        arena.run(tmp_path / "out.json", bank=tmp_path / "nowhere")
    assert not (tmp_path / "out.json").exists()
