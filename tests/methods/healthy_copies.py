"""A second copy of every surrogate, written from the equation as a few exchangeable parts, for planting bugs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from strategies import METHODS
from suite.types import Divisor, Method, PolicyBatch, Surrogate

Edges = tuple[Tensor, Tensor, Tensor | None]


def token_log_ratio(b: PolicyBatch) -> Tensor:
    return (b.log_probs - b.old_log_probs).masked_fill(~b.response_mask, 0.0)


def summed(b: PolicyBatch) -> Tensor:
    return token_log_ratio(b).sum(1, keepdim=True)


def averaged(b: PolicyBatch) -> Tensor:
    return summed(b) / b.lengths[:, None]


def ratio_band(b: PolicyBatch, hyper: Any, state: Mapping[str, float]) -> Edges:
    dual = getattr(hyper, "dual_clip", None)
    low, high = math.log(1 - hyper.clip_low), math.log(1 + hyper.clip_high)
    log = torch.tensor([low, high, math.log(dual or 1.0)], dtype=b.log_probs.dtype)
    return log[0], log[1], None if dual is None else log[2]


def fspo_scale(hyper: Any, state: Mapping[str, float]) -> tuple[float, float, float]:
    """(mu, c_low, c_high)."""
    mu = {"zero": 0.0, "batch": state.get("drift", 0.0), "ema": state.get("drift", 0.0)}.get(hyper.drift)
    mu = float(hyper.drift) if mu is None else mu
    if hyper.target_clip_rate is None or "sigma" not in state:
        return mu, hyper.c_low, hyper.c_high
    normal = torch.distributions.Normal(0.0, torch.ones((), dtype=torch.float64))
    c = state["sigma"] * float(normal.icdf(torch.tensor(1 - hyper.target_clip_rate / 2, dtype=torch.float64)))
    return mu, c, c


def root_band(
    b: PolicyBatch,
    hyper: Any,
    state: Mapping[str, float],
    grow: Callable[[Tensor], Tensor] = torch.sqrt,
    centre: Callable[[Tensor, float], Tensor] = lambda length, mu: length * mu,
) -> Edges:
    mu, c_low, c_high = fspo_scale(hyper, state)
    length = b.lengths[:, None]
    middle, root = centre(length, mu), grow(length)
    return middle - c_low * root, middle + c_high * root, hyper.c_dual and middle + hyper.c_dual * root


def both(x: Tensor, low: Tensor, high: Tensor, a: Tensor) -> Tensor:
    return torch.minimum(x.exp() * a, x.clamp(low, high).exp() * a)


def dual_bound(value: Tensor, bound: Tensor, a: Tensor) -> Tensor:
    return torch.where(a < 0, torch.maximum(value, bound.exp() * a), value)


def cut(x: Tensor, low: Tensor, high: Tensor, dual: Tensor | None, a: Tensor) -> Tensor:
    found = ((a > 0) & (x > high)) | ((a < 0) & (x < low))
    return found if dual is None else found | ((a < 0) & (x > dual))


def token_sum(value: Tensor, b: PolicyBatch) -> Tensor:
    return (value * b.response_mask).sum(1)


@dataclass(frozen=True)
class Parts:
    """Everything that a bug below can sit in."""

    weight: Callable[[PolicyBatch], Tensor]
    band: Callable[[PolicyBatch, Any, Mapping[str, float]], Edges]
    reduce: Callable[[Tensor, PolicyBatch], Tensor]
    divisor: Divisor = Divisor.RESPONSES
    combine: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = both
    dual: Callable[[Tensor, Tensor, Tensor], Tensor] = dual_bound
    cut: Callable[..., Tensor] = cut
    advantage: Callable[[PolicyBatch], Tensor] = lambda b: b.advantages
    unclipped: Callable[[Tensor, Tensor], Tensor] = lambda x, a: x.exp() * a


def only(value: Tensor, b: PolicyBatch) -> Tensor:
    return value[:, 0]


HEALTHY: dict[str, Parts] = {
    "ppo": Parts(token_log_ratio, ratio_band, token_sum, Divisor.TOKENS),
    "grpo": Parts(token_log_ratio, ratio_band, lambda value, b: token_sum(value, b) / b.lengths),
    "rloo": Parts(summed, ratio_band, only),
    "gspo": Parts(averaged, ratio_band, only),
    "fspo": Parts(summed, root_band, only),
}


def assembled(name: str, parts: Parts) -> Method:
    """The method with its surrogate put together from these parts."""

    def surrogate(b: PolicyBatch, hyper: Any, state: Mapping[str, float]) -> Surrogate:
        x, a = parts.weight(b), parts.advantage(b)
        low, high, dual = parts.band(b, hyper, state)
        value = parts.combine(x, low, high, a)
        if dual is not None:
            value = parts.dual(value, dual, a)
        keep = b.response_mask if x.shape == b.response_mask.shape and name in ("ppo", "grpo") else True
        return Surrogate(
            objective=parts.reduce(value, b),
            unclipped=parts.reduce(parts.unclipped(x, a), b),
            log_weight=x,
            outside_band=((x < low) | (x > high)) & keep,
            clipped=parts.cut(x, low, high, dual, a) & keep,
            divisor=parts.divisor,
        )

    return dataclasses.replace(METHODS[name], surrogate=surrogate)
