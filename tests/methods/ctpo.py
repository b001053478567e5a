"""CTPO, arXiv 2605.07331: (1/L) sum over tokens of the pessimistic clip of e^w_t, mean over responses.

w_t = sg[x_1 + ... + x_t] + x_t - sg[x_t], its band [-c_low sqrt t, c_high sqrt t], for A < 0 never below
e^(c_dual sqrt t) A. t counts the counted tokens from 1.
"""

from __future__ import annotations

import math
from typing import Any

from methods import Response, Row, State, clip_term, counted, log_ratio, of_tokens, per_token
from methods.advantages import standardised_credit
from methods.facts import (
    NAN,
    ROOT_MISTAKES,
    ROOT_VARIANTS,
    STD_MISTAKES,
    STD_VARIANTS,
    Mutant,
    slope_of_mean,
    without_state,
)

DIVISOR = "responses"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State, frozen: Row | None = None) -> Response:
    """The mean over the response's tokens; prefix sums and sg[x_t] are the frozen row's."""
    held = row if frozen is None else frozen
    places = counted(row.mask)
    terms = {}
    for k, t in enumerate(places, start=1):
        prefix = math.fsum(log_ratio(held, s) for s in places[:k])
        weight = prefix + (log_ratio(row, t) - log_ratio(held, t))
        root = math.sqrt(k)
        dual = None if hyper.c_dual is None else hyper.c_dual * root
        terms[t] = clip_term(weight, -hyper.c_low * root, hyper.c_high * root, dual, row.advantages[0])
    return per_token(row, of_tokens(row, terms))


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"c_low": 0.025, "c_high": 0.05, "c_dual": 0.05, "std_ddof": 1, "std_eps": 1e-4}
MISTAKES = [*ROOT_MISTAKES, {"c_dual": 0.0}, {"c_dual": NAN}, *STD_MISTAKES]
ON_POLICY_SLOPE = slope_of_mean
VARIANTS = [*ROOT_VARIANTS, *without_state({"c_dual": None}, {"c_dual": 0.3, "c_high": 0.2})]
CREDIT_VARIANTS = STD_VARIANTS
WITHOUT_PEER = "neither TRL 1.16 nor verl 0.9.1 weighs a token by the ratio of its prefix"
MUTANTS = [
    Mutant(
        "L for the position",
        "baselines/ctpo.py",
        "root = exact_root(batch.response_mask.to(log_ratio.dtype).cumsum(dim=1))",
        "root = batch.lengths[:, None].sqrt()",
    ),
    Mutant(
        "gradient of the whole prefix",
        "baselines/ctpo.py",
        "log_weight = with_gradient_of(log_ratio.cumsum(dim=1), log_ratio)",
        "log_weight = log_ratio.cumsum(dim=1)",
    ),
]
