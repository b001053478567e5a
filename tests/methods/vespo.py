"""VESPO, arXiv 2602.10693: sg[phi(W)] A sum over tokens of log pi(y_t), W = e^S, mean over responses.

phi(W) = W^k e^(lambda (1 - W)), with k and lambda of the advantage's sign. Soft: nothing is clipped.
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, Term, exp, log_prob_sum, log_ratio_sum, of_sequence, times
from methods.advantages import standardised_credit

DIVISOR = "responses"
credit = standardised_credit


def log_phi(total: float, hyper: Any, advantage: float) -> float:
    """ln phi(e^S) = k S + lambda (1 - e^S)."""
    if advantage > 0:
        return hyper.k_pos * total + hyper.lambda_pos * (1 - exp(total))
    return hyper.k_neg * total + hyper.lambda_neg * (1 - exp(total))


def response(row: Row, hyper: Any, state: State, frozen: Row | None = None) -> Response:
    """One number from the whole response; W is the frozen row's. 0 for an empty response, which has no log pi."""
    total, advantage = log_ratio_sum(row if frozen is None else frozen), row.advantages[0]
    score = advantage * log_prob_sum(row)
    return of_sequence(
        row,
        Term(
            log_weight=total,
            objective=times(exp(log_phi(total, hyper, advantage)), score),
            unclipped=times(exp(total), score),
        ),
    )
