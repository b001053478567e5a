"""GSPO, arXiv 2507.18071: s = e^(S/L), min(s A, clip(s, 1 - low, 1 + high) A), mean over responses."""

from __future__ import annotations

import math
from typing import Any

from methods import Response, Row, State, clip_term, log, log_ratio_mean, of_sequence
from methods.advantages import standardised_credit
from methods.facts import RATIO_MISTAKES, RATIO_VARIANTS, STD_MISTAKES, STD_VARIANTS, Mutant, slope_of_mean
from peers.pairings import PER_RESPONSE, TOKEN_MEAN, TRL_GSPO, Departure, clip_ratios, epsilons, trl, verl

DIVISOR = "responses"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """One number from the mean log ratio of the response."""
    low, high = log(1 - hyper.clip_low), math.log1p(hyper.clip_high)
    return of_sequence(row, clip_term(log_ratio_mean(row), low, high, None, row.advantages[0]))


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"clip_low": 3e-4, "clip_high": 4e-4, "std_ddof": 1, "std_eps": 1e-4}
MISTAKES = [*RATIO_MISTAKES, *STD_MISTAKES]
ON_POLICY_SLOPE = slope_of_mean
VARIANTS = RATIO_VARIANTS
CREDIT_VARIANTS = STD_VARIANTS
PAIRINGS = [
    trl("gspo", {**TRL_GSPO, **epsilons(3e-4, 4e-4)}),
    verl("gspo", "gspo", {**PER_RESPONSE, **clip_ratios(3e-4, 4e-4)}),
    verl(
        "gspo",
        "gspo",
        {**TOKEN_MEAN, **clip_ratios(3e-4, 4e-4)},
        variant="default",
        departure=Departure(
            "the config's default loss_agg_mode 'token-mean' weighs every response by its length",
            divisor="tokens",
            weights="lengths",
        ),
    ),
    verl(
        "gspo",
        "gspo",
        {**PER_RESPONSE, **clip_ratios(3e-4, 4e-4)},
        variant="far",
        batches=("far",),
        departure=Departure(
            "the mean log ratio is clamped from above at 10, which bounds A < 0 at e^10 A with no gradient beyond",
            inputs="mean_ceiling",
        ),
    ),
]
MUTANTS = [
    Mutant(
        "ratio not length-normalised",
        "baselines/gspo.py",
        "log_ratio = per_token(sequence_log_ratio(batch), batch.lengths[:, None])",
        "log_ratio = sequence_log_ratio(batch)",
    ),
    Mutant(
        "divided by the padded width",
        "baselines/gspo.py",
        "log_ratio = per_token(sequence_log_ratio(batch), batch.lengths[:, None])",
        "log_ratio = sequence_log_ratio(batch) / batch.response_mask.shape[1]",
    ),
    Mutant(
        "low and high exchanged",
        "baselines/gspo.py",
        "hyper.log_low, hyper.log_high,",
        "-hyper.log_high, -hyper.log_low,",
    ),
    Mutant(
        "mean of exps for the exp of the mean",
        "baselines/gspo.py",
        "log_ratio = per_token(sequence_log_ratio(batch), batch.lengths[:, None])",
        "ratios = (batch.log_probs - batch.old_log_probs).exp().where(batch.response_mask, 0.0)\n"
        "    log_ratio = per_token(ratios.sum(1, keepdim=True), batch.lengths[:, None]).log()",
    ),
    Mutant(
        "a loss of one column under a token sum",
        "baselines/gspo.py",
        "batch.advantages))",
        "batch.lengths[:, None] * batch.advantages))",
    ),
]
