"""GMPO, arXiv 2507.20673: A e^((1/L) sum over tokens of c_t), the clipped ratios' geometric mean, mean over responses.

c_t = min(x_t, log_high) for A > 0 and max(x_t, -log_low) for A < 0.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from methods import Response, Row, State, clip_term, counted, exp, log_ratio, log_ratio_mean, of_tokens, times
from methods.advantages import standardised_credit

DIVISOR = "responses"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """The flags and kinks are those of the tokens, the number is one of the whole response (A when it is empty)."""
    advantage, places = row.advantages[0], counted(row.mask)
    low, high = -hyper.log_low, hyper.log_high
    held = []
    for t in places:
        x = log_ratio(row, t)
        held.append(min(x, high) if advantage > 0 else max(x, low))
    mean = math.fsum(held) / len(places) if places else 0.0
    found = of_tokens(row, {t: clip_term(log_ratio(row, t), low, high, None, advantage) for t in places})
    return replace(found, objective=times(exp(mean), advantage), unclipped=times(exp(log_ratio_mean(row)), advantage))
