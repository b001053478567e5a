"""FSPO, Fair Sequence Policy Optimization (arXiv 2509.09177): the method and the diagnostics of its claims."""

from fspo.band import FSPOHyper
from fspo.objective import FSPO

__all__ = ["FSPO", "FSPOHyper"]
