"""REINFORCE: A sum over tokens of log pi(y_t), mean over responses.

No ratio, so the weight is 1 and nothing is clipped. Baseline: the mean reward of the others in the group (2402.14740).
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, Term, log_prob_sum, of_sequence
from methods.advantages import leave_one_out_credit

DIVISOR = "responses"
credit = leave_one_out_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """One number from the whole response."""
    score = row.advantages[0] * log_prob_sum(row)
    return of_sequence(row, Term(log_weight=0.0, objective=score, unclipped=score))
