"""Properties of a batch: shapes, padding, order, purity, and what happens at the extremes."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import torch

from suite.methods.conformance.violation import Violation, same, trials
from suite.methods.trial_batches import (
    batch_for,
    batch_from_log_ratios,
    gradient,
    judged,
    replace,
    widened,
    with_padding,
)
from suite.types import Clip, Divisor, Level, Method, PolicyBatch, Surrogate

GARBAGE = (math.nan, math.inf, -math.inf, 1e300, -1e300)
EXTREMES = (-800.0, -300.0, -50.0, 50.0, 300.0, 800.0)
COLUMNS = ("objective", "unclipped", "log_weight", "outside_band", "clipped")


def shapes(method: Method) -> None:
    """objective and unclipped [N]; log_weight and flags [N, T] or [N, 1] by level; flags bool; a known divisor."""
    for batch in trials(method):
        found, (rows, tokens) = judged(method, batch), batch.response_mask.shape
        weights = (rows, tokens if method.level == Level.TOKEN else 1)
        wanted = {"objective": (rows,), "unclipped": (rows,), **dict.fromkeys(COLUMNS[2:], weights)}
        for name, shape in wanted.items():
            if tuple(getattr(found, name).shape) != shape:
                raise Violation(f"{name} has shape {tuple(getattr(found, name).shape)}, expected {shape}", batch)
        if found.outside_band.dtype != torch.bool or found.clipped.dtype != torch.bool:
            raise Violation("outside_band and clipped must be bool", batch)
        if found.divisor not in set(Divisor):
            raise Violation(f"divisor {found.divisor!r} is none of {', '.join(Divisor)}", batch)


def flags(method: Method) -> None:
    """Clipped implies outside, padding is neither, A = 0 is never clipped, and without clipped weights J is J's own
    unclipped value."""
    for batch in trials(method):
        found = judged(method, batch)
        per_token = found.clipped.shape == batch.response_mask.shape and method.level == Level.TOKEN
        inside = found.clipped & ~found.outside_band
        if method.clip in (Clip.MIN, Clip.CAP) and inside.any() and not _has_dual(method):
            raise Violation("a weight is clipped but not outside the band", batch)
        if per_token and ((found.outside_band | found.clipped) & ~batch.response_mask).any():
            raise Violation("a flag is up at a position that does not count", batch)
        still = (batch.advantages == 0).expand(found.clipped.shape) if batch.advantages.shape[1] == 1 else None
        if still is not None and (found.clipped & still).any():
            raise Violation("a response with advantage 0 is clipped: it has no gradient to cut", batch)
        free = ~(found.clipped | found.outside_band).any(dim=1)
        if method.clip != Clip.GATE and not same(found.objective[free], found.unclipped[free]):
            raise Violation("nothing is outside the band, yet objective and unclipped differ", batch)


def _has_dual(method: Method) -> bool:
    return any("dual" in f.name and getattr(method.hyper, f.name) is not None for f in fields(method.hyper))


def dirty_padding(method: Method) -> None:
    """Nothing in the padding (NaN, infinities, huge numbers) changes a number, a flag or a gradient."""
    for batch in trials(method):
        if batch.response_mask.all():
            continue
        clean, clean_slope = judged(method, batch), gradient(method, batch)
        for garbage in GARBAGE:
            dirty = with_padding(batch, garbage)
            _same_surrogate(clean, judged(method, dirty), batch, f"{garbage} in the padding")
            slope = gradient(method, dirty)
            if not same(slope, clean_slope) or slope[~batch.response_mask].any():
                raise Violation(f"{garbage} in the padding changes the gradient: is the mask applied?", dirty)


def _same_surrogate(a: Surrogate, b: Surrogate, batch: PolicyBatch, what: str) -> None:
    for name in COLUMNS:
        x, y = getattr(a, name), getattr(b, name)
        if x.shape == batch.response_mask.shape and x.shape[1] > 1:
            x, y = x[batch.response_mask], y[batch.response_mask]
        if not same(x, y):
            raise Violation(f"{what} changes {name}: is the mask applied?", batch)


def amount_of_padding(method: Method) -> None:
    """Wider padding on either side changes nothing: lengths come from the mask, not from the width."""
    for batch in trials(method):
        for side in ("right", "left"):
            wide = widened(batch, 5, side)
            a, b = judged(method, batch), judged(method, wide)
            for name in ("objective", "unclipped"):
                if not same(getattr(a, name), getattr(b, name)):
                    raise Violation(f"5 more columns of padding on the {side} change {name}", batch)
            if not torch.equal(a.clipped.sum(1), b.clipped.sum(1)):
                raise Violation(f"5 more columns of padding on the {side} change what is clipped", batch)
            counted = gradient(method, wide)[wide.response_mask], gradient(method, batch)[batch.response_mask]
            if not same(*counted):
                raise Violation(f"5 more columns of padding on the {side} change the gradient", batch)


def rows_alone(method: Method) -> None:
    """A response's numbers depend on that response alone: shuffled, or judged one at a time, nothing changes."""
    for batch in trials(method):
        whole, slope, count = judged(method, batch), gradient(method, batch), len(batch.lengths)
        order = list(reversed(range(count)))
        for rows in (order, *([i] for i in range(count))):
            part = judged(method, batch.rows(rows))
            for name in COLUMNS:
                if not same(getattr(part, name), getattr(whole, name)[rows]):
                    raise Violation(f"{name} of a response depends on the other responses or their order", batch)
            if part.divisor != whole.divisor:
                raise Violation("the divisor depends on the batch", batch)
            if not same(gradient(method, batch.rows(rows)), slope[rows]):
                raise Violation(
                    "the gradient of a response depends on the other responses: divide in the trainer", batch
                )


def pure(method: Method) -> None:
    """Judging twice gives the same, and no column of the batch is written to."""
    for batch in trials(method):
        columns = {f.name: getattr(batch, f.name) for f in fields(batch)}
        before: dict[str, Any] = {name: x.clone() for name, x in columns.items() if x is not None}
        first, second = judged(method, batch), judged(method, batch)
        if any(not same(getattr(first, name), getattr(second, name), rtol=0, atol=0) for name in COLUMNS):
            raise Violation("the same batch judged twice gives two results", batch)
        changed = [name for name, x in before.items() if not torch.equal(columns[name], x)]
        if changed:
            raise Violation(f"the surrogate writes into the batch: {', '.join(changed)}", batch)


def advantage_scale(method: Method) -> None:
    """Twice the advantage is twice the objective, to the last bit, with the same flags."""
    for batch in trials(method):
        once, twice = judged(method, batch), judged(method, replace(batch, advantages=2 * batch.advantages))
        for name in ("objective", "unclipped"):
            if not same(getattr(twice, name), 2 * getattr(once, name), rtol=0, atol=0):
                raise Violation(f"twice the advantage does not double {name}", batch)
        if not (torch.equal(once.clipped, twice.clipped) and torch.equal(once.outside_band, twice.outside_band)):
            raise Violation("twice the advantage moves the flags", batch)


def extreme_ratios(method: Method) -> None:
    """Log ratios of up to +-800: no NaN in objective or gradient; finite where A > 0 and a min bounds the weight."""
    for tokens in (1, 4):
        for x in EXTREMES:
            for sign in (1.0, -1.0):
                ratios = torch.full((1, tokens), x / tokens, dtype=torch.float64)
                advantages = torch.full((1, tokens if "values" in method.needs else 1), sign, dtype=torch.float64)
                batch = batch_from_log_ratios(ratios, advantages, old=-abs(x) - 1)
                found, slope = judged(method, batch), gradient(method, batch)
                if found.objective.isnan().any() or slope.isnan().any():
                    raise Violation(f"NaN at a log ratio of {x:g}", batch)
                if (
                    method.clip == Clip.MIN
                    and sign > 0
                    and not (found.objective.isfinite().all() and slope.isfinite().all())
                ):
                    raise Violation(f"infinite at a log ratio of {x:g} with A > 0: take the min in log space", batch)


def empty_response(method: Method) -> None:
    """A response without counted tokens: no NaN, no gradient, no flag, and the others do not notice it."""
    for seed in range(3):
        batch = batch_for(method, seed, rows=3, tokens=4)
        mask = batch.response_mask.clone()
        mask[1] = False
        emptied = replace(batch, response_mask=mask, lengths=mask.sum(1).to(batch.lengths.dtype))
        found, slope = judged(method, emptied), gradient(method, emptied)
        if not all(x.isfinite().all() for x in (found.objective, found.unclipped, slope)):
            raise Violation("NaN or infinity for a response without counted tokens: a division by its length?", emptied)
        if slope[1].any() or found.clipped[1].any() or found.outside_band[1].any():
            raise Violation("a response without counted tokens has a gradient or a flag", emptied)
        others = [0, 2]
        if not same(found.objective[others], judged(method, batch.rows(others)).objective):
            raise Violation("a response without counted tokens changes the others", emptied)


def one_token(method: Method) -> None:
    """With one token every ratio is the same: the token's own."""
    if method.clip == Clip.NONE:
        return
    for batch in trials(method):
        if batch.response_mask.shape[1] == 1:
            expected = batch.log_probs - batch.old_log_probs
            if not same(judged(method, batch).log_weight, expected, rtol=1e-9, atol=1e-12):
                raise Violation("log_weight of a one-token response is not its token's log ratio", batch)


CHECKS = {
    "shapes, types and divisor": shapes,
    "flags agree with each other and the objective": flags,
    "garbage in the padding": dirty_padding,
    "amount of padding": amount_of_padding,
    "order of responses and micro-batches": rows_alone,
    "pure function": pure,
    "scale of the advantage": advantage_scale,
    "extreme ratios": extreme_ratios,
    "empty response": empty_response,
    "one-token response": one_token,
}
