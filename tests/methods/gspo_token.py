"""GSPO-token, arXiv 2507.18071: (1/L) sum over tokens of min(s_t A, clip(s_t, 1 - low, 1 + high) A).

log s_t = sg[S/L] + x_t - sg[x_t]: every token has the response's weight, and a gradient of its own.
Mean over responses.
"""

from __future__ import annotations

import math
from typing import Any

from methods import Response, Row, State, clip_term, counted, log, log_ratio, log_ratio_mean, of_tokens, per_token
from methods.advantages import standardised_credit

DIVISOR = "responses"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State, frozen: Row | None = None) -> Response:
    """The mean over the response's tokens; S/L and sg[x_t] are the frozen row's."""
    held = row if frozen is None else frozen
    low, high = log(1 - hyper.clip_low), math.log1p(hyper.clip_high)
    terms = {}
    for t in counted(row.mask):
        weight = log_ratio_mean(held) + (log_ratio(row, t) - log_ratio(held, t))
        terms[t] = clip_term(weight, low, high, None, row.advantages[0])
    return per_token(row, of_tokens(row, terms))
