"""CTPO, arXiv 2605.07331: (1/L) sum over tokens of the pessimistic clip of e^w_t, mean over responses.

w_t = sg[x_1 + ... + x_t] + x_t - sg[x_t], its band [-c_low sqrt t, c_high sqrt t], for A < 0 never below
e^(c_dual sqrt t) A. t counts the counted tokens from 1.
"""

from __future__ import annotations

import math
from typing import Any

from methods import Response, Row, State, clip_term, counted, log_ratio, of_tokens, per_token
from methods.advantages import standardised_credit

DIVISOR = "responses"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State, frozen: Row | None = None) -> Response:
    """The mean over the response's tokens; prefix sums and sg[x_t] are the frozen row's."""
    held = row if frozen is None else frozen
    places = counted(row.mask)
    terms = {}
    for k, t in enumerate(places, start=1):
        prefix = math.fsum(log_ratio(held, s) for s in places[:k])
        weight = prefix + (log_ratio(row, t) - log_ratio(held, t))
        root = math.sqrt(k)
        dual = None if hyper.c_dual is None else hyper.c_dual * root
        terms[t] = clip_term(weight, -hyper.c_low * root, hyper.c_high * root, dual, row.advantages[0])
    return per_token(row, of_tokens(row, terms))
