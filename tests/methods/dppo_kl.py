"""DPPO with a binary KL divergence, arXiv 2602.04879: sum over tokens of M_t sg[min(r_t, max_weight)] A log pi(y_t).

D_t = q log(q / p) + (1 - q) log((1 - q) / (1 - p)); M_t = 0 where D_t > delta and p_t has moved to the side to which A
pushes it, else 1. Divided by a constant.
"""

from __future__ import annotations

import math
from typing import Any

from methods import Response, Row, State, dppo, exp, log
from methods.facts import NAN, NO_CREDIT_VARIANTS, Mutant, slope_of_sum, without_state
from peers.pairings import CONSTANT, Departure, clip_ratios, verl

DIVISOR = dppo.DIVISOR
credit = dppo.credit


def binary_kl(log_q: float, log_p: float) -> float:
    """D of a token's probability against all the rest, 0 log 0 = 0. A log-probability above 0 counts as 0."""
    log_q, log_p = min(log_q, 0.0), min(log_p, 0.0)
    other_q, other_p = -math.expm1(log_q), -math.expm1(log_p)
    token = exp(log_q) * (log_q - log_p) if log_q > -math.inf else 0.0
    others = other_q * (log(other_q) - log(other_p)) if other_q > 0 else 0.0
    return token + others


def response(row: Row, hyper: Any, state: State, frozen: Row | None = None) -> Response:
    """Too far is a divergence of more than delta."""

    def side(log_p: float, log_q: float) -> int:
        if binary_kl(log_q, log_p) <= hyper.delta:
            return 0
        return 1 if log_p > log_q else -1

    return dppo.masked_sum(row, hyper, side, frozen)


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"delta": 0.05, "max_weight": 20.0}
MISTAKES = [{"delta": 0.0}, {"delta": NAN}, {"max_weight": 1.0}]
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = without_state({}, {"delta": 0.002}, {"delta": 0.0003, "max_weight": 1.1})
CREDIT_VARIANTS = NO_CREDIT_VARIANTS
PAIRINGS = [
    verl("dppo_kl", "dppo_kl", {**CONSTANT, **clip_ratios(0.05, 0.05), "clip_ratio_c": 20.0}),
    verl(
        "dppo_kl",
        "dppo_kl",
        {**CONSTANT, **clip_ratios(0.05, 0.05)},
        variant="default",
        departure=Departure("as dppo_tv: the weight is cut at 3 unless clip_ratio_c is set", hyper={"max_weight": 3.0}),
    ),
    verl(
        "dppo_kl",
        "dppo_kl",
        {**CONSTANT, **clip_ratios(0.05, 0.05), "clip_ratio_c": 20.0},
        variant="certain",
        batches=("certain",),
        departure=Departure(
            "1e-8 is added to 1 - q and 1 - p inside the binary KL, so a token that becomes certain can stay "
            "unmasked (here ours follows with a delta that lets this token pass)",
            hyper={"delta": 0.1},
        ),
    ),
]
MUTANTS = [
    Mutant(
        "the other direction of the divergence",
        "baselines/dppo.py",
        "return old.exp() * (old - new) +",
        "return new.exp() * (new - old) +",
    ),
    Mutant(
        "NaN for a certain token", "baselines/dppo.py", "torch.where(old == 0, torch.zeros_like(old), others)", "others"
    ),
]
