"""FSPO without drift, arXiv 2509.09177v3: the equation of `methods.fspo` with mu = 0, other numbers in `hyper`."""

from __future__ import annotations

from methods import fspo
from methods.facts import STD_VARIANTS, Mutant, slope_of_sum

DIVISOR = fspo.DIVISOR
credit = fspo.credit
response = fspo.response
observe = fspo.observe

# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {**fspo.DEFAULTS, "drift": "zero"}
MISTAKES = fspo.MISTAKES
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = [({}, {}), ({}, {"drift": -0.05, "sigma": 0.4}), ({"c_low": 0.025, "c_high": 0.05, "c_dual": 0.06}, {})]
CREDIT_VARIANTS = STD_VARIANTS
WITHOUT_PEER = fspo.WITHOUT_PEER
MUTANTS = [
    Mutant("moved by the running KL", "fspo/objective.py", 'hyper=FSPOHyper(drift="zero")', "hyper=FSPOHyper()"),
    Mutant("the drift of its relative", "fspo/band.py", 'if hyper.drift == "zero":', 'if hyper.drift == "none":'),
]
