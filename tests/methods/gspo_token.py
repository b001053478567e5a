"""GSPO-token, arXiv 2507.18071: (1/L) sum over tokens of min(s_t A, clip(s_t, 1 - low, 1 + high) A).

log s_t = sg[S/L] + x_t - sg[x_t]: every token has the response's weight, and a gradient of its own.
Mean over responses.
"""

from __future__ import annotations

import math
from typing import Any

from methods import Response, Row, State, clip_term, counted, log, log_ratio, log_ratio_mean, of_tokens, per_token
from methods.advantages import standardised_credit
from methods.facts import RATIO_MISTAKES, RATIO_VARIANTS, STD_MISTAKES, STD_VARIANTS, Mutant, slope_of_mean
from peers.pairings import PER_RESPONSE, TRL_GSPO, clip_ratios, epsilons, trl, verl

DIVISOR = "responses"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State, frozen: Row | None = None) -> Response:
    """The mean over the response's tokens; S/L and sg[x_t] are the frozen row's."""
    held = row if frozen is None else frozen
    low, high = log(1 - hyper.clip_low), math.log1p(hyper.clip_high)
    terms = {}
    for t in counted(row.mask):
        weight = log_ratio_mean(held) + (log_ratio(row, t) - log_ratio(held, t))
        terms[t] = clip_term(weight, low, high, None, row.advantages[0])
    return per_token(row, of_tokens(row, terms))


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"clip_low": 3e-4, "clip_high": 4e-4, "std_ddof": 1, "std_eps": 1e-4}
MISTAKES = [*RATIO_MISTAKES, *STD_MISTAKES]
ON_POLICY_SLOPE = slope_of_mean
VARIANTS = RATIO_VARIANTS
CREDIT_VARIANTS = STD_VARIANTS
PAIRINGS = [
    trl("gspo_token", {**TRL_GSPO, **epsilons(3e-4, 4e-4)}),
    verl("gspo_token", "gspo", {**PER_RESPONSE, **clip_ratios(3e-4, 4e-4)}),
]
MUTANTS = [
    Mutant(
        "value and gradient exchanged",
        "baselines/gspo_token.py",
        "log_weight = with_gradient_of(mean, token_log_ratio(batch))",
        "log_weight = with_gradient_of(token_log_ratio(batch), mean)",
    ),
    Mutant(
        "token gradients without 1/L",
        "baselines/gspo_token.py",
        "return token_surrogate(log_weight, tokens, batch, Divisor.RESPONSES, mean=True)",
        "return token_surrogate(log_weight, tokens, batch, Divisor.RESPONSES)",
    ),
]
