"""DAPO, arXiv 2503.14476: sum over tokens of min(r_t A, clip(r_t, 1 - low, 1 + high) A), divided by all tokens.

The upper clip is wider than the lower one; for A < 0 never below dual_clip A.
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, of_tokens
from methods.advantages import standardised_credit
from methods.ppo import token_terms

DIVISOR = "tokens"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """The sum over the response's tokens."""
    return of_tokens(row, token_terms(row, hyper))
