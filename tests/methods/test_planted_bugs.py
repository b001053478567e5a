"""Bugs that other implementations had, planted one by one: the oracle check must kill each of them.

The healthy copies pass the check, so a mutant (one part exchanged) dies of its bug and of nothing else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from methods.checks import check_against_oracle
from methods.healthy_copies import (
    HEALTHY,
    Edges,
    assembled,
    averaged,
    both,
    cut,
    ratio_band,
    root_band,
    summed,
    token_log_ratio,
    token_sum,
)
from suite.types import Divisor, PolicyBatch


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_copies_pass(name: str) -> None:
    assert check_against_oracle(assembled(name, HEALTHY[name])) is None


def leaking(b: PolicyBatch) -> Tensor:
    return b.log_probs - b.old_log_probs


def exp_summed_then_log(b: PolicyBatch) -> Tensor:
    """sum of exps where the exp of the sum belongs, as the log weight that has this ratio."""
    ratios = token_log_ratio(b).exp() * b.response_mask
    return ratios.sum(1, keepdim=True).log()


def exp_averaged_then_log(b: PolicyBatch) -> Tensor:
    ratios = token_log_ratio(b).exp() * b.response_mask
    return (ratios.sum(1, keepdim=True) / b.lengths[:, None]).log()


def swapped(band: Callable[..., Edges]) -> Callable[..., Edges]:
    def edges(b: PolicyBatch, hyper: Any, state: Mapping[str, float]) -> Edges:
        low, high, dual = band(b, hyper, state)
        return -high, -low, dual

    return edges


def log_space_band(b: PolicyBatch, hyper: Any, state: Mapping[str, float]) -> Edges:
    low, high = torch.tensor([-hyper.clip_low, hyper.clip_high], dtype=torch.float64)
    return low, high, ratio_band(b, hyper, state)[2]


def clip_only(x: Tensor, low: Tensor, high: Tensor, a: Tensor) -> Tensor:
    return x.clamp(low, high).exp() * a


def optimistic(x: Tensor, low: Tensor, high: Tensor, a: Tensor) -> Tensor:
    return torch.maximum(x.exp() * a, x.clamp(low, high).exp() * a)


def min_of_ratios(x: Tensor, low: Tensor, high: Tensor, a: Tensor) -> Tensor:
    """min over the ratios, then times A: wrong for A < 0."""
    return torch.minimum(x.exp(), x.clamp(low, high).exp()) * a


def detached(x: Tensor, low: Tensor, high: Tensor, a: Tensor) -> Tensor:
    """The right value; the gradient is that of A log pi without the ratio."""
    return both(x, low, high, a).detach() * (x - x.detach()).exp()


def straight_through(x: Tensor, low: Tensor, high: Tensor, a: Tensor) -> Tensor:
    """The right value; the gradient runs through the clip."""
    free = x.exp() * a
    return free + (both(x, low, high, a) - free).detach()


def scaled_gradient(x: Tensor, low: Tensor, high: Tensor, a: Tensor) -> Tensor:
    """The right value; twice the gradient."""
    value = both(x, low, high, a)
    return 2 * value - value.detach()


def clamped_weight(b: PolicyBatch) -> Tensor:
    """A hidden guard: token log ratios beyond +-0.5 are cut before they are summed."""
    return token_log_ratio(b).clamp(-0.5, 0.5).sum(1, keepdim=True)


def either_side(x: Tensor, low: Tensor, high: Tensor, dual: Tensor | None, a: Tensor) -> Tensor:
    return (x < low) | (x > high)


def zero_counts_as_clipped(x: Tensor, low: Tensor, high: Tensor, dual: Tensor | None, a: Tensor) -> Tensor:
    return cut(x, low, high, dual, a) | ((a == 0) & (x > high))


def dual_not_reported(x: Tensor, low: Tensor, high: Tensor, dual: Tensor | None, a: Tensor) -> Tensor:
    return cut(x, low, high, None, a)


def dual_for_all(value: Tensor, bound: Tensor, a: Tensor) -> Tensor:
    return torch.maximum(value, bound.exp() * a)


def dual_without_advantage(value: Tensor, bound: Tensor, a: Tensor) -> Tensor:
    return torch.where(a < 0, torch.maximum(value, -bound.exp()), value)


def no_dual(value: Tensor, bound: Tensor, a: Tensor) -> Tensor:
    return value


def grown(grow: Callable[[Tensor], Tensor]) -> Callable[..., Edges]:
    return lambda b, hyper, state: root_band(b, hyper, state, grow=grow)


def centred(centre: Callable[[Tensor, float], Tensor]) -> Callable[..., Edges]:
    return lambda b, hyper, state: root_band(b, hyper, state, centre=centre)


def padded_width_band(b: PolicyBatch, hyper: Any, state: Mapping[str, float]) -> Edges:
    wide = dataclasses.replace(b, lengths=torch.full_like(b.lengths, b.response_mask.shape[1]))
    return root_band(wide, hyper, state)


def times_tokens(value: Tensor, b: PolicyBatch) -> Tensor:
    """A (B, 1) loss broadcast under a token sum: multiplied by the length."""
    return (value.expand(b.response_mask.shape) * b.response_mask).sum(1)


def unmasked_sum(value: Tensor, b: PolicyBatch) -> Tensor:
    return value.sum(1)


EVERYWHERE: dict[str, dict[str, Any]] = {
    "clip without min": {"combine": clip_only},
    "max for min": {"combine": optimistic},
    "min before the advantage": {"combine": min_of_ratios},
    "ratio detached": {"combine": detached},
    "gradient through the clip": {"combine": straight_through},
    "twice the gradient": {"combine": scaled_gradient},
    "either side counts as clipped": {"cut": either_side},
    "advantage zero counts as clipped": {"cut": zero_counts_as_clipped},
    "advantage of the wrong sign": {"advantage": lambda b: -b.advantages},
    "advantage of the next row": {"advantage": lambda b: b.advantages.roll(1, 0)},
    "divided by the micro-batch": {"reduce": "micro-batch"},
    "unclipped without advantage": {"unclipped": lambda x, a: x.exp() + 0 * a},
}
DUAL_BUGS: dict[str, dict[str, Any]] = {
    "dual clip for good responses": {"dual": dual_for_all},
    "dual clip without the advantage": {"dual": dual_without_advantage},
    "dual clip forgotten": {"dual": no_dual},
    "dual clip not reported": {"cut": dual_not_reported},
}
RATIO_BUGS: dict[str, dict[str, Any]] = {
    "low and high exchanged": {"band": swapped(ratio_band)},
    "widths taken in log space": {"band": log_space_band},
}


def sequence_bugs(mean: bool) -> dict[str, dict[str, Any]]:
    """Bugs of a weight that is the sum over a response, or its mean."""

    def per_response(weight: Callable[[PolicyBatch], Tensor]) -> Callable[[PolicyBatch], Tensor]:
        return (lambda b: weight(b) / b.lengths[:, None]) if mean else weight

    return {
        "padding leaks": {"weight": per_response(lambda b: leaking(b).sum(1, keepdim=True))},
        "sum of exps": {"weight": per_response(exp_summed_then_log)},
        "old minus new": {"weight": per_response(lambda b: -summed(b))},
        "hidden clamp": {"weight": per_response(clamped_weight)},
        "times the length": {"reduce": times_tokens},
        "token mean": {"divisor": Divisor.TOKENS},
    }


TOKEN_BUGS: dict[str, dict[str, Any]] = {
    "padding leaks": {"weight": leaking, "reduce": unmasked_sum},
    "one weight a response": {"weight": lambda b: summed(b).expand(b.response_mask.shape)},
    "old minus new": {"weight": lambda b: -token_log_ratio(b)},
    "hidden clamp": {"weight": lambda b: token_log_ratio(b).clamp(-0.5, 0.5)},
}
BUGS: dict[str, dict[str, dict[str, Any]]] = {
    "ppo": {
        **EVERYWHERE, **RATIO_BUGS, **TOKEN_BUGS, **DUAL_BUGS,
        "response mean for token mean": {"divisor": Divisor.RESPONSES},
        "mean in the response": {"reduce": lambda value, b: token_sum(value, b) / b.lengths},
        "first token's advantage for all": {"advantage": lambda b: b.advantages[:, :1]},
    },
    "grpo": {
        **EVERYWHERE, **RATIO_BUGS, **TOKEN_BUGS, **DUAL_BUGS,
        "padding leaks": {"weight": leaking, "reduce": lambda value, b: value.sum(1) / b.lengths},
        "token mean for response mean": {"reduce": token_sum, "divisor": Divisor.TOKENS},
        "sum in the response": {"reduce": token_sum},
        "divided by the padded width": {"reduce": lambda value, b: token_sum(value, b) / b.response_mask.shape[1]},
    },
    "rloo": {**EVERYWHERE, **RATIO_BUGS, **sequence_bugs(mean=False), "length-normalised ratio": {"weight": averaged}},
    "gspo": {
        **EVERYWHERE, **sequence_bugs(mean=True), "widths taken in log space": {"band": log_space_band},
        "low and high exchanged": {"band": swapped(ratio_band)},
        "ratio not length-normalised": {"weight": summed},
        "mean of exps": {"weight": exp_averaged_then_log},
        "divided by the padded width": {"weight": lambda b: summed(b) / b.response_mask.shape[1]},
    },
    "fspo": {
        **EVERYWHERE, **sequence_bugs(mean=False), **DUAL_BUGS,
        "length-normalised ratio": {"weight": averaged},
        "low and high exchanged": {"band": swapped(root_band)},
        "L for sqrt L": {"band": grown(lambda length: length)},
        "constant for sqrt L": {"band": grown(torch.ones_like)},
        "padded width for L": {"band": padded_width_band},
        "drift of the wrong sign": {"band": centred(lambda length, mu: -length * mu)},
        "drift not times L": {"band": centred(lambda length, mu: 0 * length + mu)},
        "drift times sqrt L": {"band": centred(lambda length, mu: length.sqrt() * mu)},
        "drift ignored": {"band": centred(lambda length, mu: 0 * length)},
    },
}  # fmt: skip


@pytest.mark.parametrize(("name", "bug"), [(name, bug) for name in BUGS for bug in BUGS[name]])
def test_planted_bug_dies(name: str, bug: str) -> None:
    changes, reduce = dict(BUGS[name][bug]), HEALTHY[name].reduce
    if changes.get("reduce") == "micro-batch":
        changes["reduce"] = lambda value, b: reduce(value, b) / len(b.lengths)
    failure = check_against_oracle(assembled(name, dataclasses.replace(HEALTHY[name], **changes)))
    assert failure is not None, f"{name} survives: {bug}"
