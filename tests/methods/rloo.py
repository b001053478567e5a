"""RLOO with a sequence ratio, arXiv 2402.14740: min(e^S A, clip(e^S, 1 - low, 1 + high) A), mean over responses."""

from __future__ import annotations

import math
from typing import Any

from methods import Response, Row, State, clip_term, log, log_ratio_sum, of_sequence
from methods.advantages import leave_one_out_credit

DIVISOR = "responses"
credit = leave_one_out_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """One number from the whole response."""
    low, high = log(1 - hyper.clip_low), math.log(1 + hyper.clip_high)
    return of_sequence(row, clip_term(log_ratio_sum(row), low, high, None, row.advantages[0]))
