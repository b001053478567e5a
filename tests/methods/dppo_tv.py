"""DPPO with total variation, arXiv 2602.04879: sum over tokens of M_t sg[min(r_t, max_weight)] A log pi(y_t).

M_t = 0 where A > 0 and p_t - q_t > delta, or A < 0 and p_t - q_t < -delta, else 1. Divided by a constant.
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, dppo, exp
from methods.facts import NAN, NO_CREDIT_VARIANTS, Mutant, slope_of_sum, without_state
from peers.pairings import CONSTANT, Departure, clip_ratios, verl

DIVISOR = dppo.DIVISOR
credit = dppo.credit


def response(row: Row, hyper: Any, state: State, frozen: Row | None = None) -> Response:
    """Too far is a difference of probabilities of more than delta."""

    def side(log_p: float, log_q: float) -> int:
        difference = exp(log_p) - exp(log_q)
        return int(difference > hyper.delta) - int(difference < -hyper.delta)

    return dppo.masked_sum(row, hyper, side, frozen)


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"delta": 0.15, "max_weight": 20.0}
MISTAKES = [{"delta": 0.0}, {"delta": NAN}, {"max_weight": 1.0}]
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = without_state({}, {"delta": 0.01}, {"delta": 0.003, "max_weight": 1.1})
CREDIT_VARIANTS = NO_CREDIT_VARIANTS
PAIRINGS = [
    verl("dppo_tv", "dppo_tv", {**CONSTANT, **clip_ratios(0.15, 0.15), "clip_ratio_c": 20.0}),
    verl(
        "dppo_tv",
        "dppo_tv",
        {**CONSTANT, **clip_ratios(0.15, 0.15)},
        variant="default",
        departure=Departure(
            "ActorConfig always hands over clip_ratio_c, by default 3, so the weight is cut at 3 where the function's "
            "own default would be 20",
            hyper={"max_weight": 3.0},
        ),
    ),
]
MUTANTS = [
    Mutant(
        "difference of ratios for difference of probabilities",
        "baselines/dppo.py",
        "return (new.exp() - old.exp()).abs()",
        "return torch.expm1(new - old).abs()",
    ),
    Mutant(
        "masked on the way back, too",
        "baselines/dppo.py",
        "objective=masked(free.objective, ~dropped)",
        "objective=masked(free.objective, ~far)",
    ),
]
