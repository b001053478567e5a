"""A control of ours, GSPO (arXiv 2507.18071) with a band that shrinks with the length, mean over responses:

min(e^(S/L) A, e^clip(S/L, -c_low / sqrt L, c_high / sqrt L) A).
"""

from __future__ import annotations

import math
from typing import Any

from methods import Response, Row, State, clip_term, counted, log_ratio_mean, of_sequence
from methods.advantages import standardised_credit

DIVISOR = "responses"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """One number from the mean log ratio; the band of an empty response is that of one token (S/L = 0 is inside)."""
    root = math.sqrt(max(len(counted(row.mask)), 1))
    low, high = -hyper.c_low / root, hyper.c_high / root
    return of_sequence(row, clip_term(log_ratio_mean(row), low, high, None, row.advantages[0]))
