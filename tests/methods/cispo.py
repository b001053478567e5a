"""CISPO, arXiv 2506.13585: sum over tokens of sg[min(r_t, max_weight)] A log pi(y_t), divided by all tokens.

A capped token keeps its gradient, with the cap as its weight.
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, Term, counted, exp, log, log_ratio, of_tokens, times
from methods.advantages import standardised_credit
from methods.facts import INFINITY, NAN, STD_MISTAKES, STD_VARIANTS, Mutant, slope_of_sum, without_state
from peers.pairings import TOKEN_MEAN, Departure, clip_ratios, trl, verl

DIVISOR = "tokens"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State, frozen: Row | None = None) -> Response:
    """The sum over the response's tokens; the weights are the frozen row's."""
    held = row if frozen is None else frozen
    advantage, cap = row.advantages[0], log(hyper.max_weight)
    terms = {}
    for t in counted(row.mask):
        x = log_ratio(held, t)
        terms[t] = Term(
            log_weight=x,
            objective=times(exp(min(x, cap)), advantage * row.log_probs[t]),
            unclipped=times(exp(x), advantage * row.log_probs[t]),
            outside=x > cap,
            clipped=x > cap and advantage != 0,
            margin=abs(x - cap),
        )
    return of_tokens(row, terms)


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"max_weight": 5.0, "std_ddof": 1, "std_eps": 1e-4}
MISTAKES = [{"max_weight": 1.0}, {"max_weight": NAN}, {"max_weight": INFINITY}, *STD_MISTAKES]
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = without_state({}, {"max_weight": 1.05}, {"max_weight": 1.5})
CREDIT_VARIANTS = STD_VARIANTS
PAIRINGS = [
    trl("cispo", {"loss_type": "cispo", "epsilon_high": 5.0}),
    verl("cispo", "cispo", {**TOKEN_MEAN, **clip_ratios(1.0, 4.0)}),
    verl(
        "cispo",
        "cispo",
        {**TOKEN_MEAN, **clip_ratios(0.2, 4.0)},
        variant="floor",
        departure=Departure(
            "the weight is also bounded from below, at 1 - clip_ratio_low (.8 by default); the upper bound is "
            "1 + clip_ratio_high",
            inputs="weight_floor",
        ),
    ),
]
MUTANTS = [
    Mutant(
        "maximum taken as 1 + eps",
        "baselines/cispo.py",
        "capped_policy_gradient(log_ratio, math.log(hyper.max_weight), batch)",
        "capped_policy_gradient(log_ratio, math.log1p(hyper.max_weight), batch)",
    ),
    Mutant(
        "response mean for token mean",
        "baselines/cispo.py",
        "return token_surrogate(log_ratio, tokens, batch, Divisor.TOKENS)",
        "return token_surrogate(log_ratio, tokens, batch, Divisor.RESPONSES, mean=True)",
    ),
]
