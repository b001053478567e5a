"""SAPO, arXiv 2511.20347: (1/L) sum over tokens of (4 / tau) sigmoid(tau (r_t - 1)) A, mean over responses.

tau = tau_pos for A > 0, else tau_neg. A soft gate: nothing is clipped and nothing has a kink.
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, Term, counted, exp, log_ratio, of_tokens, per_token, times
from methods.advantages import standardised_credit

DIVISOR = "responses"
credit = standardised_credit


def sigmoid(z: float) -> float:
    """1 / (1 + e^-z)."""
    return 1 / (1 + exp(-z))


def response(row: Row, hyper: Any, state: State) -> Response:
    """The mean over the response's tokens."""
    advantage = row.advantages[0]
    tau = hyper.tau_pos if advantage > 0 else hyper.tau_neg
    terms = {}
    for t in counted(row.mask):
        x = log_ratio(row, t)
        gate = 4 / tau * sigmoid(tau * (exp(x) - 1))
        terms[t] = Term(log_weight=x, objective=gate * advantage, unclipped=times(exp(x), advantage))
    return per_token(row, of_tokens(row, terms))
