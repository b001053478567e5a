"""A control: e^S A, mean over responses. RLOO with a sequence ratio (arXiv 2402.14740) that nothing clips."""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, Term, exp, log_ratio_sum, of_sequence, times
from methods.advantages import leave_one_out_credit

DIVISOR = "responses"
credit = leave_one_out_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """One number from the whole response."""
    total = log_ratio_sum(row)
    weighed = times(exp(total), row.advantages[0])
    return of_sequence(row, Term(log_weight=total, objective=weighed, unclipped=weighed))
