"""DPPO with a binary KL divergence, arXiv 2602.04879: sum over tokens of M_t sg[min(r_t, max_weight)] A log pi(y_t).

D_t = q log(q / p) + (1 - q) log((1 - q) / (1 - p)); M_t = 0 where D_t > delta and p_t has moved to the side to which A
pushes it, else 1. Divided by a constant.
"""

from __future__ import annotations

import math
from typing import Any

from methods import Response, Row, State, exp, log
from methods.dppo import DIVISOR, credit, masked_sum

__all__ = ["DIVISOR", "credit", "response"]


def binary_kl(log_q: float, log_p: float) -> float:
    """D of a token's probability against all the rest, 0 log 0 = 0. A log-probability above 0 counts as 0."""
    log_q, log_p = min(log_q, 0.0), min(log_p, 0.0)
    other_q, other_p = -math.expm1(log_q), -math.expm1(log_p)
    token = exp(log_q) * (log_q - log_p) if log_q > -math.inf else 0.0
    others = other_q * (log(other_q) - log(other_p)) if other_q > 0 else 0.0
    return token + others


def response(row: Row, hyper: Any, state: State, frozen: Row | None = None) -> Response:
    """Too far is a divergence of more than delta."""

    def side(log_p: float, log_q: float) -> int:
        if binary_kl(log_q, log_p) <= hyper.delta:
            return 0
        return 1 if log_p > log_q else -1

    return masked_sum(row, hyper, side, frozen)
