"""DAPO, arXiv 2503.14476: sum over tokens of min(r_t A, clip(r_t, 1 - low, 1 + high) A), divided by all tokens.

The upper clip is wider than the lower one; for A < 0 never below dual_clip A.
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, of_tokens
from methods.advantages import standardised_credit
from methods.facts import (
    DUAL_MISTAKES,
    DUAL_VARIANTS,
    RATIO_MISTAKES,
    RATIO_VARIANTS,
    STD_MISTAKES,
    STD_VARIANTS,
    Mutant,
    slope_of_sum,
)
from methods.ppo import token_terms
from peers.pairings import TOKEN_MEAN, clip_ratios, epsilons, trl, verl

DIVISOR = "tokens"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """The sum over the response's tokens."""
    return of_tokens(row, token_terms(row, hyper))


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 10.0, "std_ddof": 1, "std_eps": 1e-4}
MISTAKES = [*RATIO_MISTAKES, *DUAL_MISTAKES, *STD_MISTAKES]
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = [*RATIO_VARIANTS, *DUAL_VARIANTS]
CREDIT_VARIANTS = STD_VARIANTS
PAIRINGS = [
    trl("dapo", {"loss_type": "dapo", **epsilons(0.2, 0.28), "delta": 10.0}),
    trl("dapo", {"loss_type": "bnpo", **epsilons(0.2, 0.28), "delta": 10.0}, variant="bnpo"),
    verl("dapo", "vanilla", {**TOKEN_MEAN, **clip_ratios(0.2, 0.28), "clip_ratio_c": 10.0}),
]
MUTANTS = [
    Mutant(
        "higher upper range forgotten",
        "baselines/dapo.py",
        "hyper.log_low, hyper.log_high, batch.advantages",
        "hyper.log_low, -hyper.log_low, batch.advantages",
    ),
    Mutant(
        "dual clip left behind when the range is scaled",
        "baselines/hyper.py",
        "**self._edges(factor), dual_clip=dual)",
        "**self._edges(factor))",
        check="a band wide enough is no band",
    ),
]
