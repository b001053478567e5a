"""Dr. GRPO, arXiv 2503.20783: sum over tokens of min(r_t A, clip(r_t, 1 - low, 1 + high) A), A = R - group mean.

Divided by a constant, responses x the limit of new tokens: neither a response's length nor its group's spread enters.
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, of_tokens
from methods.advantages import centred_credit
from methods.ppo import token_terms

DIVISOR = "constant"
credit = centred_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """The sum over the response's tokens."""
    return of_tokens(row, token_terms(row, hyper))
