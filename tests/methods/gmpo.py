"""GMPO, arXiv 2507.20673: A e^((1/L) sum over tokens of c_t), the clipped ratios' geometric mean, mean over responses.

c_t = min(x_t, log_high) for A > 0 and max(x_t, -log_low) for A < 0.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from methods import Response, Row, State, clip_term, counted, exp, log_ratio, log_ratio_mean, of_tokens, times
from methods.advantages import standardised_credit
from methods.facts import NAN, STD_MISTAKES, STD_VARIANTS, Mutant, slope_of_mean, without_state
from peers.pairings import clip_ratios, epsilons, trl, verl

DIVISOR = "responses"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """The flags and kinks are those of the tokens, the number is one of the whole response (A when it is empty)."""
    advantage, places = row.advantages[0], counted(row.mask)
    low, high = -hyper.log_low, hyper.log_high
    held = []
    for t in places:
        x = log_ratio(row, t)
        held.append(min(x, high) if advantage > 0 else max(x, low))
    mean = math.fsum(held) / len(places) if places else 0.0
    found = of_tokens(row, {t: clip_term(log_ratio(row, t), low, high, None, advantage) for t in places})
    return replace(found, objective=times(exp(mean), advantage), unclipped=times(exp(log_ratio_mean(row)), advantage))


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"log_low": 0.4, "log_high": 0.4, "std_ddof": 1, "std_eps": 1e-4}
MISTAKES = [{"log_low": 0.0}, {"log_high": -0.4}, {"log_high": NAN}, *STD_MISTAKES]
ON_POLICY_SLOPE = slope_of_mean
VARIANTS = without_state({}, {"log_low": 0.01, "log_high": 0.2}, {"log_low": 0.1, "log_high": 0.02})
CREDIT_VARIANTS = STD_VARIANTS
PAIRINGS = [
    trl("gmpo", epsilons(0.4, 0.4), "GMPOTrainer"),
    verl("gmpo", "geo_mean", clip_ratios(0.4, 0.4)),
]
MUTANTS = [
    Mutant(
        "clip after the mean",
        "baselines/gmpo.py",
        "objective=geometric(held),",
        "objective=weighted(per_token(log_ratio.sum(dim=1, keepdim=True), lengths)"
        ".clamp(-hyper.log_low, hyper.log_high), batch.advantages.detach())[:, 0],",
    ),
    Mutant(
        "arithmetic mean",
        "baselines/gmpo.py",
        "mean = per_token(masked(x, batch.response_mask).sum(dim=1, keepdim=True), lengths)",
        "mean = per_token(masked(x.exp(), batch.response_mask).sum(dim=1, keepdim=True), lengths).log()",
    ),
]
