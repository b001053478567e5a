"""A control of ours, GSPO (arXiv 2507.18071) with a band that shrinks with the length, mean over responses:

min(e^(S/L) A, e^clip(S/L, -c_low / sqrt L, c_high / sqrt L) A).
"""

from __future__ import annotations

import math
from typing import Any

from methods import Response, Row, State, clip_term, counted, log_ratio_mean, of_sequence
from methods.advantages import standardised_credit
from methods.facts import ROOT_MISTAKES, ROOT_VARIANTS, STD_MISTAKES, STD_VARIANTS, Mutant, slope_of_mean

DIVISOR = "responses"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """One number from the mean log ratio; the band of an empty response is that of one token (S/L = 0 is inside)."""
    root = math.sqrt(max(len(counted(row.mask)), 1))
    low, high = -hyper.c_low / root, hyper.c_high / root
    return of_sequence(row, clip_term(log_ratio_mean(row), low, high, None, row.advantages[0]))


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"c_low": 0.03, "c_high": 0.03, "std_ddof": 1, "std_eps": 1e-4}
MISTAKES = [*ROOT_MISTAKES, *STD_MISTAKES]
ON_POLICY_SLOPE = slope_of_mean
VARIANTS = ROOT_VARIANTS
CREDIT_VARIANTS = STD_VARIANTS
WITHOUT_PEER = "a control of ours, in neither TRL 1.16 nor verl 0.9.1"
MUTANTS = [
    Mutant(
        "band times the root instead of over it",
        "baselines/gspo_sqrt.py",
        "-hyper.c_low / root, hyper.c_high / root",
        "-hyper.c_low * root, hyper.c_high * root",
    ),
    Mutant(
        "L for sqrt L",
        "baselines/gspo_sqrt.py",
        "root = exact_root(lengths.clamp(min=1))",
        "root = lengths.clamp(min=1)",
    ),
]
