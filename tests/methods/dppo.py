"""DPPO, arXiv 2602.04879: sum over tokens of M_t sg[min(r_t, max_weight)] A log pi(y_t), divided by a constant.

M_t = 0 where the probability has left the trust region on the side to which A pushes it further, else 1. How far is too
far is the rule of `dppo_tv` and `dppo_kl`; this is what they share, and no method.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from methods import Response, Row, Term, counted, exp, log, log_ratio, of_tokens, times
from methods.advantages import centred_credit

DIVISOR = "constant"
credit = centred_credit

Side = Callable[[float, float], int]
"""(log p, log q) -> 1: p is too far above q, -1: too far below, 0: inside the trust region."""


def distance_to_flip(side: Side, log_p: float, log_q: float) -> float:
    """A lower bound, in powers of ten up to 1, of how far log p is from where its side changes."""
    here, safe = side(log_p, log_q), 0.0
    for exponent in range(-9, 1):
        nudge = 10.0**exponent
        if side(log_p + nudge, log_q) != here or side(log_p - nudge, log_q) != here:
            break
        safe = nudge
    return safe


def masked_sum(row: Row, hyper: Any, side: Side, frozen: Row | None) -> Response:
    """The sum over the response's tokens; masks and weights are the frozen row's."""
    held = row if frozen is None else frozen
    advantage, cap = row.advantages[0], log(hyper.max_weight)
    terms = {}
    for t in counted(row.mask):
        x, log_p, log_q = log_ratio(held, t), held.log_probs[t], held.old_log_probs[t]
        left = side(log_p, log_q)
        masked = (advantage > 0 and left == 1) or (advantage < 0 and left == -1)
        score = advantage * row.log_probs[t]
        terms[t] = Term(
            log_weight=x,
            objective=0.0 if masked else times(exp(min(x, cap)), score),
            unclipped=times(exp(x), score),
            outside=left != 0 or x > cap,
            clipped=masked,
            margin=min(abs(x - cap), distance_to_flip(side, log_p, log_q)),
        )
    return of_tokens(row, terms)
