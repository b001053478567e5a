"""GSPO, arXiv 2507.18071: s = e^(S/L), min(s A, clip(s, 1 - low, 1 + high) A), mean over responses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from oracles import (
    Floats,
    Response,
    Row,
    State,
    counted,
    distance_to_kink,
    exp,
    flags,
    log,
    log_ratio_sum,
    pessimistic,
    times,
)
from oracles.advantages import group_standardised

DIVISOR = "responses"


def response(row: Row, hyper: Any, state: State) -> Response:
    """One number from the mean log ratio of the response."""
    mean, advantage = log_ratio_sum(row) / len(counted(row.mask)), row.advantages[0]
    low, high = log(1 - hyper.clip_low), math.log1p(hyper.clip_high)
    outside, clipped = flags(mean, low, high, None, advantage)
    return Response(
        objective=pessimistic(mean, low, high, None, advantage),
        unclipped=times(exp(mean), advantage),
        log_weight=[mean],
        outside=[outside],
        clipped=[clipped],
        margin=distance_to_kink(mean, low, high, None),
    )


def credit(
    rewards: Floats, groups: Sequence[int], masks: Sequence[Sequence[bool]], values: None, hyper: Any
) -> tuple[list[list[float]], None]:
    """A = (R - mean) / (std + eps) in the group, one number a response."""
    return [[a] for a in group_standardised(rewards, groups, hyper.std_ddof, hyper.std_eps)], None
