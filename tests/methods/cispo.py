"""CISPO, arXiv 2506.13585: sum over tokens of sg[min(r_t, max_weight)] A log pi(y_t), divided by all tokens.

A capped token keeps its gradient, with the cap as its weight.
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, Term, counted, exp, log, log_ratio, of_tokens, times
from methods.advantages import standardised_credit

DIVISOR = "tokens"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State, frozen: Row | None = None) -> Response:
    """The sum over the response's tokens; the weights are the frozen row's."""
    held = row if frozen is None else frozen
    advantage, cap = row.advantages[0], log(hyper.max_weight)
    terms = {}
    for t in counted(row.mask):
        x = log_ratio(held, t)
        terms[t] = Term(
            log_weight=x,
            objective=times(exp(min(x, cap)), advantage * row.log_probs[t]),
            unclipped=times(exp(x), advantage * row.log_probs[t]),
            outside=x > cap,
            clipped=x > cap and advantage != 0,
            margin=abs(x - cap),
        )
    return of_tokens(row, terms)
