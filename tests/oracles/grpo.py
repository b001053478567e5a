"""GRPO, arXiv 2402.03300: (1/L) sum over tokens of min(r_t A, clip(r_t, 1 - low, 1 + high) A), mean over responses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from oracles import Floats, Response, Row, State
from oracles.advantages import group_standardised
from oracles.ppo import token_terms

DIVISOR = "responses"


def response(row: Row, hyper: Any, state: State) -> Response:
    """The mean over the response's tokens."""
    terms = token_terms(row, hyper)
    width = len(row.mask)
    weight, outside, clipped = [0.0] * width, [False] * width, [False] * width
    for t, x, _, _, left, cut, _ in terms:
        weight[t], outside[t], clipped[t] = x, left, cut
    return Response(
        objective=math.fsum(term[2] for term in terms) / len(terms),
        unclipped=math.fsum(term[3] for term in terms) / len(terms),
        log_weight=weight,
        outside=outside,
        clipped=clipped,
        margin=min(term[6] for term in terms),
    )


def credit(
    rewards: Floats, groups: Sequence[int], masks: Sequence[Sequence[bool]], values: None, hyper: Any
) -> tuple[list[list[float]], None]:
    """A = (R - mean) / (std + eps) in the group, one number a response."""
    return [[a] for a in group_standardised(rewards, groups, hyper.std_ddof, hyper.std_eps)], None
