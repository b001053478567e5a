"""RLOO with a sequence ratio, arXiv 2402.14740: min(e^S A, clip(e^S, 1 - low, 1 + high) A), mean over responses."""

from __future__ import annotations

import math
from typing import Any

from methods import Response, Row, State, clip_term, log, log_ratio_sum, of_sequence
from methods.advantages import leave_one_out_credit
from methods.facts import NO_CREDIT_VARIANTS, RATIO_MISTAKES, RATIO_VARIANTS, Mutant, slope_of_sum
from peers.pairings import ADVANTAGE, epsilons, trl, verl

DIVISOR = "responses"
credit = leave_one_out_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """One number from the whole response."""
    low, high = log(1 - hyper.clip_low), math.log(1 + hyper.clip_high)
    return of_sequence(row, clip_term(log_ratio_sum(row), low, high, None, row.advantages[0]))


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"clip_low": 0.2, "clip_high": 0.2}
MISTAKES = RATIO_MISTAKES
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = RATIO_VARIANTS
CREDIT_VARIANTS = NO_CREDIT_VARIANTS
PAIRINGS = [
    trl("rloo", epsilons(0.2, 0.2), "RLOOTrainer"),
    verl("rloo", "rloo", {}, target=ADVANTAGE),
    verl("rloo", "rloo_vectorized", {}, target=ADVANTAGE, variant="vectorized"),
]
MUTANTS = [
    Mutant(
        "length-normalised ratio",
        "baselines/rloo.py",
        "log_ratio = sequence_log_ratio(batch)",
        "log_ratio = sequence_log_ratio(batch) / batch.lengths[:, None].clamp(min=1)",
    ),
    Mutant(
        "low and high exchanged",
        "baselines/rloo.py",
        "pessimistic_clip(log_ratio, hyper.log_low, hyper.log_high, batch.advantages)",
        "pessimistic_clip(log_ratio, -hyper.log_high, -hyper.log_low, batch.advantages)",
    ),
    Mutant(
        "baseline includes the response itself",
        "baselines/rewards.py",
        "return Credit(minus_the_others(seen.rewards, seen.group_ids)[:, None])",
        "return Credit(group_centred(seen.rewards, seen.group_ids)[:, None])",
    ),
    Mutant(
        "widths taken in log space",
        "baselines/rloo.py",
        "hyper.log_low, hyper.log_high,",
        "-hyper.clip_low, hyper.clip_high,",
    ),
    Mutant(
        "a loss of one column under a token sum",
        "baselines/rloo.py",
        "batch.advantages))",
        "batch.lengths[:, None] * batch.advantages))",
    ),
]
