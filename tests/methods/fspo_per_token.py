"""A control of ours: FSPO's number (arXiv 2509.09177, `methods.fspo`) divided by the length, mean over responses.

(1/L) min(e^S A, e^clip(S, m - c_low sqrt L, m + c_high sqrt L) A), 0 for an empty response.
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, fspo, per_token
from methods.facts import STD_VARIANTS, Mutant, slope_of_mean

DIVISOR = fspo.DIVISOR
credit = fspo.credit
observe = fspo.observe


def response(row: Row, hyper: Any, state: State) -> Response:
    """FSPO's number and flags, the number over L."""
    return per_token(row, fspo.response(row, hyper, state))


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = fspo.DEFAULTS
MISTAKES = fspo.MISTAKES
ON_POLICY_SLOPE = slope_of_mean
VARIANTS = [({}, {}), ({"c_low": 0.01, "c_dual": 0.1}, {"drift": -0.03, "sigma": 0.4})]
CREDIT_VARIANTS = STD_VARIANTS
WITHOUT_PEER = "a control of ours, in neither TRL 1.16 nor verl 0.9.1"
MUTANTS = [
    Mutant(
        "divided by sqrt L",
        "fspo/controls.py",
        "per_token(getattr(whole, name), batch.lengths)",
        "per_token(getattr(whole, name), batch.lengths.sqrt())",
    ),
    Mutant(
        "unclipped not divided",
        "fspo/controls.py",
        'for name in ("objective", "unclipped")',
        'for name in ("objective",)',
    ),
]
