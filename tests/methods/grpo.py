"""GRPO, arXiv 2402.03300: (1/L) sum over tokens of min(r_t A, clip(r_t, 1 - low, 1 + high) A), mean over responses."""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, of_tokens, per_token
from methods.advantages import standardised_credit
from methods.facts import (
    DUAL_MISTAKES,
    DUAL_VARIANTS,
    RATIO_MISTAKES,
    RATIO_VARIANTS,
    STD_MISTAKES,
    STD_VARIANTS,
    Mutant,
    slope_of_mean,
)
from methods.ppo import token_terms
from peers.pairings import ADVANTAGE, NO_DUAL, ORDINARY, PER_RESPONSE, Departure, clip_ratios, epsilons, trl, verl

DIVISOR = "responses"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """The mean over the response's tokens."""
    return per_token(row, of_tokens(row, token_terms(row, hyper)))


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": None, "std_ddof": 1, "std_eps": 1e-4}
MISTAKES = [*RATIO_MISTAKES, *DUAL_MISTAKES, *STD_MISTAKES]
ON_POLICY_SLOPE = slope_of_mean
VARIANTS = [*RATIO_VARIANTS, *DUAL_VARIANTS]
CREDIT_VARIANTS = STD_VARIANTS
PLAIN = {**PER_RESPONSE, **clip_ratios(0.2, 0.2), **NO_DUAL}
CLAMPED = "token log ratios are clamped to [-20, 20], which bounds A < 0 at e^20 A with no gradient beyond"
GROUP_OF_ONE = "a group of one keeps its reward as the advantage (/ (1 + 1e-6)); ours is 0"
PAIRINGS = [
    trl("grpo", {"loss_type": "grpo", **epsilons(0.2, 0.2)}, batches=(*ORDINARY, "far", "empty")),
    trl(
        "grpo",
        {"loss_type": "grpo", **epsilons(0.2, 0.28), "delta": 3.0},
        variant="delta",
        hyper={"clip_high": 0.28, "dual_clip": 3.0},
    ),
    trl(
        "grpo",
        {"loss_type": "grpo", **epsilons(0.2, 0.2), "delta": 1.1},
        variant="low-delta",
        departure=Departure(
            "`delta` caps the ratio for both signs of A: below 1 + epsilon_high it also lowers the band for A > 0, "
            "and A < 0 is cut at 1 + epsilon_high (our dual_clip refuses such a value)",
            hyper={"clip_high": 0.1, "dual_clip": 1.2},
        ),
    ),
    verl("grpo", "vanilla", PLAIN),
    verl(
        "grpo",
        "vanilla",
        {**PER_RESPONSE, **clip_ratios(0.2, 0.2)},
        variant="default",
        departure=Departure(
            "dual clip cannot be turned off and is 3 by default (clip_ratio_c); ours is off by default",
            hyper={"dual_clip": 3.0},
        ),
    ),
    verl(
        "grpo",
        "vanilla",
        PLAIN,
        variant="far",
        batches=("far",),
        departure=Departure(CLAMPED, inputs="token_clamp"),
    ),
    verl("grpo", "vanilla", {**PLAIN, "global_batch_size": 6}, variant="counted", batches=("empty",)),
    verl(
        "grpo",
        "vanilla",
        PLAIN,
        variant="empty",
        batches=("empty",),
        departure=Departure(
            "without global_batch_size the seq-mean modes leave responses without tokens out of the count of responses",
            divisor="nonempty",
        ),
    ),
    verl("grpo", "grpo", {}, target=ADVANTAGE, hyper={"std_eps": 1e-6}),
    verl(
        "grpo",
        "grpo",
        {},
        target=ADVANTAGE,
        variant="default",
        departure=Departure("1e-6 is added to the standard deviation, ours is 1e-4", hyper={"std_eps": 1e-6}),
    ),
    verl(
        "grpo",
        "grpo",
        {},
        target=ADVANTAGE,
        variant="single",
        hyper={"std_eps": 1e-6},
        batches=("single",),
        departure=Departure(GROUP_OF_ONE, outputs="lone_reward"),
    ),
]
MUTANTS = [
    Mutant(
        "sum in the response",
        "baselines/grpo.py",
        "return token_surrogate(log_ratio, tokens, batch, Divisor.RESPONSES, mean=True)",
        "return token_surrogate(log_ratio, tokens, batch, Divisor.RESPONSES)",
    ),
    Mutant(
        "token mean for response mean",
        "baselines/grpo.py",
        "return token_surrogate(log_ratio, tokens, batch, Divisor.RESPONSES, mean=True)",
        "return token_surrogate(log_ratio, tokens, batch, Divisor.TOKENS)",
    ),
    Mutant("dual clip forgotten", "baselines/grpo.py", "batch.advantages, hyper.log_dual)", "batch.advantages)"),
    Mutant("ddof written down instead of read", "baselines/rewards.py", "ddof=hyper.std_ddof", "ddof=1"),
    Mutant(
        "low and high exchanged",
        "baselines/grpo.py",
        "hyper.log_low, hyper.log_high,",
        "-hyper.log_high, -hyper.log_low,",
    ),
    Mutant(
        "widths taken in log space",
        "baselines/grpo.py",
        "hyper.log_low, hyper.log_high,",
        "-hyper.clip_low, hyper.clip_high,",
    ),
    Mutant(
        "one weight a response",
        "baselines/grpo.py",
        "log_ratio = token_log_ratio(batch)",
        "log_ratio = token_log_ratio(batch).sum(1, keepdim=True).expand(batch.response_mask.shape)",
    ),
    Mutant("other ddof", "baselines/rewards.py", "ddof=hyper.std_ddof", "ddof=1 - hyper.std_ddof"),
    Mutant(
        "one group for all",
        "baselines/rewards.py",
        "group_standardised(seen.rewards, seen.group_ids,",
        "group_standardised(seen.rewards, 0 * seen.group_ids,",
    ),
]
