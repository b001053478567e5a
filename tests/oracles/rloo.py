"""RLOO with a sequence ratio, arXiv 2402.14740: min(e^S A, clip(e^S, 1 - low, 1 + high) A), mean over responses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from oracles import Floats, Response, Row, State, distance_to_kink, exp, flags, log, log_ratio_sum, pessimistic, times
from oracles.advantages import leave_one_out

DIVISOR = "responses"


def response(row: Row, hyper: Any, state: State) -> Response:
    """One number from the whole response."""
    total, advantage = log_ratio_sum(row), row.advantages[0]
    low, high = log(1 - hyper.clip_low), math.log(1 + hyper.clip_high)
    outside, clipped = flags(total, low, high, None, advantage)
    return Response(
        objective=pessimistic(total, low, high, None, advantage),
        unclipped=times(exp(total), advantage),
        log_weight=[total],
        outside=[outside],
        clipped=[clipped],
        margin=distance_to_kink(total, low, high, None),
    )


def credit(
    rewards: Floats, groups: Sequence[int], masks: Sequence[Sequence[bool]], values: None, hyper: Any
) -> tuple[list[list[float]], None]:
    """A = R - mean of the others in the group, one number a response."""
    return [[a] for a in leave_one_out(rewards, groups)], None
