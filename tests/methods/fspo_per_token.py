"""A control of ours: FSPO's number (arXiv 2509.09177, `methods.fspo`) divided by the length, mean over responses.

(1/L) min(e^S A, e^clip(S, L mu - c_low sqrt L, L mu + c_high sqrt L) A), 0 for an empty response.
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, fspo, per_token
from methods.fspo import DIVISOR, credit, observe

__all__ = ["DIVISOR", "credit", "observe", "response"]


def response(row: Row, hyper: Any, state: State) -> Response:
    """FSPO's number and flags, the number over L."""
    return per_token(row, fspo.response(row, hyper, state))
