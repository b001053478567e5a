"""IcePop, arXiv 2512.16144 eq. 1: sum over tokens of M(r_t) A, divided by all tokens.

M(k) = k where alpha <= k <= beta, else 0: a token outside the band is dropped for both signs of A.
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, Term, counted, exp, log, log_ratio, of_tokens, times
from methods.advantages import centred_credit
from methods.facts import INFINITY, NAN, NO_CREDIT_VARIANTS, Mutant, slope_of_sum, without_state

DIVISOR = "tokens"
credit = centred_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """The sum over the response's tokens."""
    advantage, low, high = row.advantages[0], log(hyper.alpha), log(hyper.beta)
    terms = {}
    for t in counted(row.mask):
        x = log_ratio(row, t)
        inside = low <= x <= high
        terms[t] = Term(
            log_weight=x,
            objective=times(exp(x), advantage) if inside else 0.0,
            unclipped=times(exp(x), advantage),
            outside=not inside,
            clipped=not inside and advantage != 0,
            margin=min(abs(x - low), abs(x - high)),
        )
    return of_tokens(row, terms)


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"alpha": 0.5, "beta": 5.0}
MISTAKES = [{"alpha": 0.0}, {"alpha": 1.0}, {"alpha": NAN}, {"beta": 1.0}, {"beta": NAN}, {"beta": INFINITY}]
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = without_state({}, {"alpha": 0.97, "beta": 1.05}, {"alpha": 0.6, "beta": 1.001})
CREDIT_VARIANTS = NO_CREDIT_VARIANTS
WITHOUT_PEER = (
    "neither TRL nor verl has this loss: both mask tokens by the ratio of the old policy to the sampler, before a clip"
)
MUTANTS = [
    Mutant(
        "clipped instead of dropped",
        "baselines/icepop.py",
        "objective=weighted(log_ratio, kept),",
        "objective=weighted(log_ratio.clamp(math.log(hyper.alpha), math.log(hyper.beta)), advantages),",
    ),
    Mutant(
        "dropped on the advantage's side only",
        "baselines/icepop.py",
        "torch.where(outside, torch.zeros_like(advantages), advantages)",
        "torch.where(outside & (log_ratio * advantages > 0), torch.zeros_like(advantages), advantages)",
    ),
    Mutant(
        "lower edge forgotten",
        "baselines/icepop.py",
        "(log_ratio < math.log(hyper.alpha)) | (log_ratio > math.log(hyper.beta))",
        "log_ratio > math.log(hyper.beta)",
    ),
    Mutant(
        "0 times infinity at a dropped token",
        "baselines/icepop.py",
        "objective=weighted(log_ratio, kept),",
        "objective=torch.where(outside, 0.0, weighted(log_ratio, advantages)),",
        check="extreme ratios",
    ),
]
