"""GRPO, arXiv 2402.03300: (1/L) sum over tokens of min(r_t A, clip(r_t, 1 - low, 1 + high) A), mean over responses."""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, of_tokens, per_token
from methods.advantages import standardised_credit
from methods.ppo import token_terms

DIVISOR = "responses"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """The mean over the response's tokens."""
    return per_token(row, of_tokens(row, token_terms(row, hyper)))
