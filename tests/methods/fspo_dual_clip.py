"""FSPO with a dual clip: the equation of `methods.fspo`, other numbers in `hyper`."""

from __future__ import annotations

from methods import fspo
from methods.facts import STD_VARIANTS, Mutant, slope_of_sum

DIVISOR = fspo.DIVISOR
credit = fspo.credit
response = fspo.response
observe = fspo.observe

# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {**fspo.DEFAULTS, "c_dual": 0.06}
MISTAKES = fspo.MISTAKES
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = [
    ({}, {}),
    ({}, {"drift": -0.05, "sigma": 0.4}),
    ({"c_high": 0.05, "drift_cap": 0.0}, {"drift": -0.001, "sigma": 0.1}),
]
CREDIT_VARIANTS = STD_VARIANTS
WITHOUT_PEER = fspo.WITHOUT_PEER
MUTANTS = [
    Mutant("the dual clip of fspo", "fspo/objective.py", "hyper=FSPOHyper(c_dual=0.06)", "hyper=FSPOHyper()"),
    Mutant("dual bound per token", "fspo/band.py", "hyper.c_dual * root", "hyper.c_dual * lengths"),
]
