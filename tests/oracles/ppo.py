"""PPO, arXiv 1707.06347: sum over tokens of min(r_t A_t, clip(r_t, 1 - low, 1 + high) A_t), divided by all tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from oracles import Floats, Response, Row, State, counted, distance_to_kink, exp, flags, log, pessimistic, times
from oracles.advantages import gae, whiten

DIVISOR = "tokens"


def token_terms(row: Row, hyper: Any) -> list[tuple[int, float, float, float, bool, bool, float]]:
    """(t, log ratio, objective, unclipped, outside, clipped, margin) of every counted token. GRPO uses it too."""
    low, high = log(1 - hyper.clip_low), math.log(1 + hyper.clip_high)
    dual = None if hyper.dual_clip is None else math.log(hyper.dual_clip)
    terms = []
    for t in counted(row.mask):
        x = row.log_probs[t] - row.old_log_probs[t]
        advantage = row.advantages[0] if len(row.advantages) == 1 else row.advantages[t]
        value = pessimistic(x, low, high, dual, advantage)
        outside, clipped = flags(x, low, high, dual, advantage)
        margin = distance_to_kink(x, low, high, dual)
        terms.append((t, x, value, times(exp(x), advantage), outside, clipped, margin))
    return terms


def response(row: Row, hyper: Any, state: State) -> Response:
    """The sum over the response's tokens."""
    width = len(row.mask)
    weight, outside, clipped = [0.0] * width, [False] * width, [False] * width
    objective, unclipped, margin = [], [], math.inf
    for t, x, value, free, left, cut, near in token_terms(row, hyper):
        weight[t], outside[t], clipped[t] = x, left, cut
        objective.append(value)
        unclipped.append(free)
        margin = min(margin, near)
    return Response(math.fsum(objective), math.fsum(unclipped), weight, outside, clipped, margin)


def value_loss(row: Row, hyper: Any) -> float:
    """sum_t 0.5 max((v - R)^2, (clip(v, v_old - c, v_old + c) - R)^2) over counted tokens."""
    assert row.values is not None
    assert row.old_values is not None
    assert row.returns is not None
    total = 0.0
    for t in counted(row.mask):
        held = min(max(row.values[t], row.old_values[t] - hyper.value_clip), row.old_values[t] + hyper.value_clip)
        total += 0.5 * max((row.values[t] - row.returns[t]) ** 2, (held - row.returns[t]) ** 2)
    return total


def credit(
    rewards: Floats, groups: Sequence[int], masks: Sequence[Sequence[bool]], values: Sequence[Floats], hyper: Any
) -> tuple[list[list[float]], list[list[float]]]:
    """(advantages, returns): GAE, returns = raw advantages + values, advantages whitened over the step."""
    raw = [gae(r, v, m, hyper.gamma, hyper.gae_lambda) for r, v, m in zip(rewards, values, masks, strict=True)]
    returns = [
        [a + b if keep else 0.0 for a, b, keep in zip(row, v, m, strict=True)]
        for row, v, m in zip(raw, values, masks, strict=True)
    ]
    return (whiten(raw, masks, ddof=0, eps=1e-8) if hyper.whiten else raw), returns
