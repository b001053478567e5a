"""PPO, arXiv 1707.06347: sum over tokens of min(r_t A_t, clip(r_t, 1 - low, 1 + high) A_t), divided by all tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from methods import Floats, Response, Row, State, Term, clip_term, counted, log, log_ratio, of_tokens
from methods.advantages import gae, whiten

DIVISOR = "tokens"


def token_terms(row: Row, hyper: Any) -> dict[int, Term]:
    """What PPO's clip says of every counted token, with one advantage a token or one for all of them."""
    low, high = log(1 - hyper.clip_low), math.log(1 + hyper.clip_high)
    dual = None if hyper.dual_clip is None else math.log(hyper.dual_clip)
    terms = {}
    for t in counted(row.mask):
        advantage = row.advantages[0] if len(row.advantages) == 1 else row.advantages[t]
        terms[t] = clip_term(log_ratio(row, t), low, high, dual, advantage)
    return terms


def response(row: Row, hyper: Any, state: State) -> Response:
    """The sum over the response's tokens."""
    return of_tokens(row, token_terms(row, hyper))


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
