"""GSPO, arXiv 2507.18071: s = e^(S/L), min(s A, clip(s, 1 - low, 1 + high) A), mean over responses."""

from __future__ import annotations

import math
from typing import Any

from methods import Response, Row, State, clip_term, log, log_ratio_mean, of_sequence
from methods.advantages import standardised_credit

DIVISOR = "responses"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """One number from the mean log ratio of the response."""
    low, high = log(1 - hyper.clip_low), math.log1p(hyper.clip_high)
    return of_sequence(row, clip_term(log_ratio_mean(row), low, high, None, row.advantages[0]))
