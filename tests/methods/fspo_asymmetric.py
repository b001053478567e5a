"""FSPO with the widths of arXiv 2605.07331: the equation of `methods.fspo`, other numbers in `hyper`."""

from __future__ import annotations

from methods import fspo
from methods.facts import STD_VARIANTS, Mutant, slope_of_sum

DIVISOR = fspo.DIVISOR
credit = fspo.credit
response = fspo.response
observe = fspo.observe

# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {**fspo.DEFAULTS, "c_low": 0.025, "c_high": 0.05}
MISTAKES = fspo.MISTAKES
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = [({}, {}), ({}, {"drift": -0.05, "sigma": 0.4}), ({"c_dual": 0.06}, {"drift": -0.001, "sigma": 0.1})]
CREDIT_VARIANTS = STD_VARIANTS
WITHOUT_PEER = fspo.WITHOUT_PEER
MUTANTS = [
    Mutant("widths exchanged", "fspo/objective.py", "c_low=0.025, c_high=0.05)", "c_low=0.05, c_high=0.025)"),
    Mutant("cap by the upper side", "fspo/band.py", "min(c_low, c_high) * root)", "c_high * root)"),
]
