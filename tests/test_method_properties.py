"""What every method owes, whatever its equation: properties over random batches, each parametrised over METHODS."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from strategies import (
    METHODS,
    SEQUENCE_LEVEL,
    batch_for,
    draw_batch,
    gradient,
    judged,
    replace,
    with_padding,
)
from suite.types import PolicyBatch

EVERY_METHOD = pytest.mark.parametrize("name", METHODS)
SEEDS = pytest.mark.parametrize("seed", range(4))
COLUMNS = ("objective", "unclipped", "log_weight", "outside_band", "clipped")
EXACT: dict[str, Any] = {"rtol": 0, "atol": 0}
ROUNDING: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-14}


# --- order and size ---------------------------------------------------------------------------------


@EVERY_METHOD
@given(data=st.data())
def test_pessimistic(name: str, data: st.DataObject) -> None:
    """Clipping never makes a response look better than it is (without a dual clip)."""
    found = judged(METHODS[name], draw_batch(data, METHODS[name]))
    slack = 1e-13 * (1 + found.unclipped.abs())
    assert (found.objective <= found.unclipped + slack).all()


@EVERY_METHOD
@given(data=st.data(), factor=st.sampled_from([0.25, 2.0, 1024.0]))
def test_scaling_the_advantage_scales_the_objective(name: str, data: st.DataObject, factor: float) -> None:
    """Powers of two, so equal to the last bit; the flags do not move."""
    method, batch = METHODS[name], draw_batch(data, METHODS[name])
    once, scaled = judged(method, batch), judged(method, replace(batch, advantages=factor * batch.advantages))
    torch.testing.assert_close(scaled.objective, factor * once.objective, **EXACT)
    torch.testing.assert_close(scaled.unclipped, factor * once.unclipped, **EXACT)
    assert torch.equal(scaled.outside_band, once.outside_band)
    assert torch.equal(scaled.clipped, once.clipped)


@EVERY_METHOD
@given(data=st.data())
def test_flags_agree_with_each_other_and_with_the_objective(name: str, data: st.DataObject) -> None:
    """Clipped implies outside; padding is neither; a response with nothing clipped keeps its unclipped objective."""
    method, batch = METHODS[name], draw_batch(data, METHODS[name])
    found = judged(method, batch)
    assert found.clipped.dtype == found.outside_band.dtype == torch.bool
    assert not (found.clipped & ~found.outside_band).any()
    if found.clipped.shape == batch.response_mask.shape and name not in SEQUENCE_LEVEL:
        assert not (found.outside_band & ~batch.response_mask).any()
    free = ~found.clipped.any(dim=1)
    torch.testing.assert_close(found.objective[free], found.unclipped[free], **ROUNDING)


@EVERY_METHOD
@SEEDS
def test_a_clipped_weight_has_no_gradient_and_a_free_one_has(name: str, seed: int) -> None:
    method, batch = METHODS[name], batch_for(METHODS[name], seed)
    found, slope = judged(method, batch), gradient(METHODS[name], batch, {})
    counts = batch.response_mask & (batch.advantages != 0)
    cut = found.clipped.expand(batch.response_mask.shape)
    assert torch.equal(slope != 0, counts & ~cut)


# --- padding, rows, micro-batches -------------------------------------------------------------------


@EVERY_METHOD
@SEEDS
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e300, -1e300])
def test_dirty_padding(name: str, seed: int, garbage: float) -> None:
    """Nothing in the padding changes a number, a flag or a gradient; padding gets no gradient."""
    method, batch = METHODS[name], batch_for(METHODS[name], seed)
    dirty = with_padding(batch, garbage)
    clean, soiled = judged(method, batch), judged(method, dirty)
    for column in COLUMNS:
        a, b = getattr(clean, column), getattr(soiled, column)
        if a.shape == batch.response_mask.shape:
            a, b = a[batch.response_mask], b[batch.response_mask]
        torch.testing.assert_close(b, a, **EXACT)
    for column in ("objective", "unclipped"):
        slope = gradient(method, dirty, {}, column)
        torch.testing.assert_close(slope, gradient(method, batch, {}, column), **EXACT)
        assert (slope[~batch.response_mask] == 0).all()
    if method.value_loss is not None:
        torch.testing.assert_close(method.value_loss(dirty, method.hyper), method.value_loss(batch, method.hyper))


@EVERY_METHOD
@SEEDS
@pytest.mark.parametrize("extra", [1, 9])
@pytest.mark.parametrize("side", ["right", "left"])
def test_amount_of_padding(name: str, seed: int, extra: int, side: str) -> None:
    """Wider padding on either side changes nothing."""
    method, batch = METHODS[name], batch_for(METHODS[name], seed)

    def widen(column: Tensor, fill: float | bool) -> Tensor:
        pad = torch.full((len(column), extra), fill, dtype=column.dtype)
        return torch.cat([column, pad] if side == "right" else [pad, column], dim=1)

    columns = {"response_mask": widen(batch.response_mask, False)}
    for field in dataclasses.fields(batch):
        column = getattr(batch, field.name)
        if column is not None and column.shape == batch.response_mask.shape and column.dtype != torch.bool:
            columns[field.name] = widen(column, 5.0)
    wide = replace(batch, **columns)
    a, b = judged(method, batch), judged(method, wide)
    torch.testing.assert_close(b.objective, a.objective, **ROUNDING)
    torch.testing.assert_close(b.unclipped, a.unclipped, **ROUNDING)
    assert torch.equal(b.clipped.sum(1), a.clipped.sum(1))
    torch.testing.assert_close(
        gradient(method, wide, {})[wide.response_mask], gradient(method, batch, {})[batch.response_mask], **ROUNDING
    )


@EVERY_METHOD
@SEEDS
def test_row_order_and_micro_batches(name: str, seed: int) -> None:
    """A response's number depends on that response alone: shuffled or judged in pieces, nothing changes."""
    method, batch = METHODS[name], batch_for(METHODS[name], seed)
    whole, slope = judged(method, batch), gradient(method, batch, {})
    order = torch.randperm(6, generator=torch.Generator().manual_seed(seed))
    pieces: list[list[int]] = [order[:1].tolist(), order[1:4].tolist(), order[4:].tolist()]
    for rows in (order.tolist(), *pieces):
        part = judged(method, batch.rows(rows))
        assert part.divisor == whole.divisor
        for column in COLUMNS:
            torch.testing.assert_close(getattr(part, column), getattr(whole, column)[rows], **ROUNDING)
        torch.testing.assert_close(gradient(method, batch.rows(rows), {}), slope[rows], **ROUNDING)
    in_parts = torch.stack([judged(method, batch.rows(rows)).objective.sum() for rows in pieces]).sum()
    torch.testing.assert_close(in_parts, whole.objective.sum(), **ROUNDING)


@EVERY_METHOD
def test_a_surrogate_is_pure(name: str) -> None:
    """Judging twice gives the same, and no column of the batch is written to."""
    method, batch = METHODS[name], batch_for(METHODS[name], 1)
    names = [f.name for f in dataclasses.fields(batch) if getattr(batch, f.name) is not None]
    before = {key: getattr(batch, key).clone() for key in names}
    first, second = judged(method, batch), judged(method, batch)
    assert torch.equal(first.objective, second.objective)
    assert all(torch.equal(getattr(batch, key), before[key]) for key in names)


# --- gradients --------------------------------------------------------------------------------------

ON_POLICY_SLOPE: dict[str, Callable[[PolicyBatch], Tensor]] = {
    "ppo": lambda b: b.advantages.expand(b.response_mask.shape),
    "rloo": lambda b: b.advantages.expand(b.response_mask.shape),
    "fspo": lambda b: b.advantages.expand(b.response_mask.shape),
    "grpo": lambda b: b.advantages / b.lengths[:, None],
    "gspo": lambda b: b.advantages / b.lengths[:, None],
}
"""d objective / d log-probability of a counted token at ratio one, from the equation."""


@EVERY_METHOD
@SEEDS
def test_on_policy_no_clip_acts(name: str, seed: int) -> None:
    """At ratio one: value and gradient are the unclipped ones, no flag is up, and the slope is the textbook's."""
    method, batch = METHODS[name], batch_for(METHODS[name], seed)
    batch = replace(batch, old_log_probs=batch.log_probs.clone())
    found = judged(method, batch)
    assert not found.outside_band.any()
    assert not found.clipped.any()
    torch.testing.assert_close(found.objective, found.unclipped, **EXACT)
    slope = gradient(method, batch, {})
    torch.testing.assert_close(slope, gradient(method, batch, {}, "unclipped"), **EXACT)
    expected = (ON_POLICY_SLOPE[name](batch) * batch.response_mask).expand(slope.shape)
    torch.testing.assert_close(slope, expected, **ROUNDING)


@EVERY_METHOD
def test_first_step_with_one_shared_tensor(name: str) -> None:
    """Old log-probabilities that are the new ones, not detached: the gradient must not cancel to zero."""
    method, batch = METHODS[name], batch_for(METHODS[name], 1)
    log_probs = batch.log_probs.clone().requires_grad_(True)
    shared = judged(method, replace(batch, log_probs=log_probs, old_log_probs=log_probs))
    (slope,) = torch.autograd.grad(shared.objective.sum(), log_probs)
    apart = gradient(method, replace(batch, old_log_probs=batch.log_probs.clone()), {})
    torch.testing.assert_close(slope, apart, **EXACT)


@EVERY_METHOD
def test_gradient_reaches_the_new_log_probs_only(name: str) -> None:
    """Advantages and old log-probabilities are data, whatever graph they hang on."""
    method, batch = METHODS[name], batch_for(METHODS[name], 2)
    data = {key: getattr(batch, key).clone().requires_grad_(True) for key in ("advantages", "old_log_probs")}
    log_probs = batch.log_probs.clone().requires_grad_(True)
    judged(method, replace(batch, log_probs=log_probs, **data)).objective.sum().backward()
    assert log_probs.grad is not None
    torch.testing.assert_close(log_probs.grad, gradient(method, batch, {}), **EXACT)
    for key, column in data.items():
        assert column.grad is None or not column.grad.any(), f"a gradient flows into {key}"


def test_value_loss_trains_the_values_only() -> None:
    method, batch = METHODS["ppo"], batch_for(METHODS["ppo"], 2)
    assert method.value_loss is not None
    names = ("values", "old_values", "returns")
    data = {key: getattr(batch, key).clone().requires_grad_(True) for key in names}
    method.value_loss(replace(batch, **data), method.hyper).sum().backward()
    assert data["values"].grad is not None
    assert data["values"].grad.any()
    assert not data["values"].grad[~batch.response_mask].any()
    assert all(data[key].grad is None or not data[key].grad.any() for key in ("old_values", "returns"))
