"""Dr. GRPO, arXiv 2503.20783: sum over tokens of min(r_t A, clip(r_t, 1 - low, 1 + high) A), A = R - group mean.

Divided by a constant, responses x the limit of new tokens: neither a response's length nor its group's spread enters.
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, of_tokens
from methods.advantages import centred_credit
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
from peers.batches import MAX_NEW_TOKENS
from peers.pairings import ADVANTAGE, CONSTANT, NO_DUAL, Departure, clip_ratios, epsilons, trl, verl

DIVISOR = "constant"
credit = centred_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """The sum over the response's tokens."""
    return of_tokens(row, token_terms(row, hyper))


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": None}
MISTAKES = [*RATIO_MISTAKES, *DUAL_MISTAKES]
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = [*RATIO_VARIANTS, *DUAL_VARIANTS]
CREDIT_VARIANTS = NO_CREDIT_VARIANTS
PAIRINGS = [
    trl("dr_grpo", {"loss_type": "dr_grpo", "max_completion_length": MAX_NEW_TOKENS, **epsilons(0.2, 0.2)}),
    verl("dr_grpo", "vanilla", {**CONSTANT, **clip_ratios(0.2, 0.2), **NO_DUAL}),
    verl(
        "dr_grpo",
        "vanilla",
        {**CONSTANT, "loss_scale_factor": None, **clip_ratios(0.2, 0.2), **NO_DUAL},
        variant="width",
        departure=Departure(
            "without loss_scale_factor seq-mean-token-sum-norm divides by the batch's padded width", divisor="width"
        ),
    ),
    verl("dr_grpo", "grpo", {"norm_adv_by_std_in_grpo": False}, target=ADVANTAGE),
]
MUTANTS = [
    Mutant(
        "divided by the step's tokens",
        "baselines/dr_grpo.py",
        "return token_surrogate(log_ratio, tokens, batch, Divisor.CONSTANT)",
        "return token_surrogate(log_ratio, tokens, batch, Divisor.TOKENS)",
    ),
    Mutant(
        "divided by the group's std",
        "baselines/rewards.py",
        "return Credit(group_centred(seen.rewards, seen.group_ids)[:, None])",
        "return Credit(group_standardised(seen.rewards, seen.group_ids, ddof=1, eps=1e-4)[:, None])",
    ),
]
