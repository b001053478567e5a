"""The null update: what must be 0 is 0, what is noise is measured as the definition says, and a fault is seen."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from small_world import small_config, small_source
from strategies import METHODS
from suite.records.update_log import UpdateLog
from suite.replay import null_update as noise
from suite.replay.null_update import PRECISIONS, noise_by_change, noise_clips, null_outside, null_update, representative
from suite.types import Rollout


@pytest.fixture(scope="module")
def world() -> tuple[torch.nn.Module, tuple[Rollout, ...]]:
    config = small_config(problems_per_step=8)
    source = small_source(config)
    return source.model, source.record(0).rollouts


@pytest.fixture(scope="module")
def log(world: tuple[torch.nn.Module, tuple[Rollout, ...]]) -> UpdateLog:
    return null_update(*world, small_config(tokens_per_micro_batch=200), 0, PRECISIONS)


def test_the_same_pass_twice_has_no_noise_and_float32_has_little(log: UpdateLog) -> None:
    table = noise_by_change(log).set_index(["precision", "change"])
    for precision in PRECISIONS:
        assert table.loc[(precision, "again"), "token_max"] == 0
    plain = table.loc["float32"]
    assert plain["token_max"].max() < 1e-4
    assert set(plain.index) == {"again", "one by one", "all at once", "than the sampler"}
    for precision in PRECISIONS[1:]:
        cast = table.loc[(precision, "than float32"), "token_rms"]
        assert 10 * plain["token_rms"].max() < cast < 0.1


def test_weights_are_what_they_were(world: tuple[torch.nn.Module, tuple[Rollout, ...]]) -> None:
    """bfloat16 works on a copy: the float32 weights keep every bit."""
    model, rollouts = world
    before = {name: x.clone() for name, x in model.state_dict().items()}
    null_update(model, rollouts, small_config(), 0, PRECISIONS)
    for name, x in model.state_dict().items():
        assert x.dtype == torch.float32
        assert torch.equal(x, before[name])


def test_the_table_is_the_definition(log: UpdateLog) -> None:
    row = noise_by_change(log).iloc[-1]
    part = log.rows(log.cells == f"{row['precision']}: {row['change']}")
    ratios = [part.log_ratios[a : a + n].astype(float) for a, n in zip(part.starts, part.lengths, strict=True)]
    tokens = [x for response in ratios for x in response]
    sums = [math.fsum(response) for response in ratios]
    assert row["tokens"] == len(tokens)
    assert row["token_mean"] == pytest.approx(math.fsum(map(abs, tokens)) / len(tokens))
    assert row["sequence_max"] == pytest.approx(max(map(abs, sums)))
    scaled = [s * s / n for s, n in zip(sums, part.lengths, strict=True)]
    assert row["per_root_token"] == pytest.approx(math.sqrt(math.fsum(scaled) / len(sums)))


def test_clips_by_noise_are_a_count(log: UpdateLog) -> None:
    """A band narrower than bfloat16's noise: the share outside is that of |S / L| above it, counted by hand."""
    narrow = METHODS["gspo"].scaled(0.1)
    found = noise_clips({"gspo": narrow}, log).set_index(["precision", "change"])
    part = log.rows(log.cells == "bfloat16: than float32")
    mean = part.sums() / part.lengths
    low, high = math.log1p(-narrow.hyper.clip_low), math.log1p(narrow.hyper.clip_high)
    assert found.loc[("bfloat16", "than float32"), "outside_band"] == pytest.approx(
        np.mean((mean < low) | (mean > high))
    )
    assert found.loc[("float32", "again"), "outside_band"] == 0


def test_a_comparison_shows_the_worst_layout_alone(log: UpdateLog) -> None:
    """`null update` is about layouts: a sampler of another precision is not in it, planted noise of a layout is."""
    planted = log.log_probs.copy()
    chosen = np.repeat(log.cells == "float32: all at once", log.lengths)
    planted[chosen] += 1.0
    changed = UpdateLog(
        **{
            name: getattr(log, name)
            for name in (
                "problem_ids",
                "seed",
                "step",
                "update",
                "reward",
                "advantage",
                "truncated",
                "lengths",
                "old_log_probs",
                "cells",
            )
        },
        log_probs=planted,
    )
    own = log.rows(np.char.startswith(log.cells, "float32"))
    assert null_outside({"rloo": METHODS["rloo"]}, own) == {"rloo": 0.0}
    cast = log.rows(np.isin(log.cells, ["float32: again", "bfloat16: than float32"]))
    narrow = {"gspo": METHODS["gspo"].scaled(0.1)}
    assert noise_clips(narrow, cast)["outside_band"].max() > 0
    assert null_outside(narrow, cast) == {"gspo": 0.0}
    assert null_outside({"rloo": METHODS["rloo"]}, changed) == {"rloo": 1.0}


def test_a_layout_that_changes_scores_is_seen(
    world: tuple[torch.nn.Module, tuple[Rollout, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: a layout that shifts which hidden state predicts a token."""
    together = noise._together

    def shifted(rollouts: Sequence[Rollout], model: Any) -> noise.MicroBatch:
        made = together(rollouts, model)
        made.source[made.places % made.response_mask.shape[1] > 0] -= 1
        return made

    monkeypatch.setattr(noise, "_together", shifted)
    table = noise_by_change(null_update(*world, small_config(), 0, ["float32"])).set_index("change")
    assert table.loc["all at once", "token_max"] > 0.01
    assert table.loc["one by one", "token_max"] < 1e-4


def test_few_enough_tokens_and_all_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    rollouts = small_source(small_config(problems_per_step=10)).record(0).rollouts
    assert representative(rollouts) == list(rollouts)
    monkeypatch.setattr(noise, "MOST_TOKENS", 300)
    kept = representative(rollouts)
    sizes = [len(r.prompt_ids) + len(r.response_ids) for r in kept]
    assert sum(sizes) <= 300 < sum(len(r.prompt_ids) + len(r.response_ids) for r in rollouts)
    lengths = sorted(len(r.response_ids) for r in rollouts)
    assert min(len(r.response_ids) for r in kept) <= lengths[len(lengths) // 4]
    assert max(len(r.response_ids) for r in kept) >= lengths[3 * len(lengths) // 4]
    monkeypatch.setattr(noise, "MOST_TOKENS", 1)
    assert len(representative(rollouts)) == 1
