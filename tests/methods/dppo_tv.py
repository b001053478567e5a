"""DPPO with total variation, arXiv 2602.04879: sum over tokens of M_t sg[min(r_t, max_weight)] A log pi(y_t).

M_t = 0 where A > 0 and p_t - q_t > delta, or A < 0 and p_t - q_t < -delta, else 1. Divided by a constant.
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, exp
from methods.dppo import DIVISOR, credit, masked_sum

__all__ = ["DIVISOR", "credit", "response"]


def response(row: Row, hyper: Any, state: State, frozen: Row | None = None) -> Response:
    """Too far is a difference of probabilities of more than delta."""

    def side(log_p: float, log_q: float) -> int:
        difference = exp(log_p) - exp(log_q)
        return int(difference > hyper.delta) - int(difference < -hyper.delta)

    return masked_sum(row, hyper, side, frozen)
