"""MaxRL, arXiv 2602.02710 algorithm 1: A = (R - group mean) / group mean, 0 in a group without a success.

With the loss of its code: sum over tokens of min(r_t A, clip(r_t, 1 - low, 1 + high) A), divided by all tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from methods import Floats, Response, Row, State, of_tokens
from methods.advantages import Credit
from methods.facts import (
    DUAL_MISTAKES,
    DUAL_VARIANTS,
    NO_CREDIT_VARIANTS,
    RATIO_MISTAKES,
    RATIO_VARIANTS,
    Mutant,
    slope_of_sum,
)
from methods.ppo import token_terms
from peers.pairings import epsilons, trl

DIVISOR = "tokens"


def credit(rewards: Floats, groups: Sequence[int], masks: Sequence[Sequence[bool]], values: Any, hyper: Any) -> Credit:
    """(R - mean) / mean of the group's rewards, one number a response; 0 where the mean is not above 0."""
    result = []
    for i in range(len(rewards)):
        members = [rewards[j] for j in range(len(rewards)) if groups[j] == groups[i]]
        mean = math.fsum(members) / len(members)
        result.append([(rewards[i] - mean) / mean if mean > 0 else 0.0])
    return result, None


def response(row: Row, hyper: Any, state: State) -> Response:
    """The sum over the response's tokens."""
    return of_tokens(row, token_terms(row, hyper))


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": None}
MISTAKES = [*RATIO_MISTAKES, *DUAL_MISTAKES]
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = [*RATIO_VARIANTS, *DUAL_VARIANTS]
CREDIT_VARIANTS = NO_CREDIT_VARIANTS
PAIRINGS = [trl("maxrl", {"loss_type": "dapo", **epsilons(0.2, 0.2)})]
MUTANTS = [
    Mutant(
        "centred and not divided",
        "suite/advantages.py",
        "return masked((rewards - mean) / mean, mean > 0)",
        "return rewards - mean",
    ),
    Mutant(
        "divided by the failures' share",
        "suite/advantages.py",
        "return masked((rewards - mean) / mean, mean > 0)",
        "return masked((rewards - mean) / (1 - mean), mean != 1)",
    ),
    Mutant(
        "NaN in a group without a success",
        "suite/advantages.py",
        "return masked((rewards - mean) / mean, mean > 0)",
        "return (rewards - mean) / mean",
    ),
    Mutant(
        "response mean for token mean",
        "baselines/maxrl.py",
        "return token_surrogate(log_ratio, tokens, batch, Divisor.TOKENS)",
        "return token_surrogate(log_ratio, tokens, batch, Divisor.RESPONSES, mean=True)",
    ),
]
