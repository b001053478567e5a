"""FSPO, Fair Sequence Policy Optimization (arXiv 2509.09177): the method, its controls, diagnostics of its claims."""

from fspo.band import FSPOHyper
from fspo.controls import FSPO_PER_TOKEN, NO_CLIP
from fspo.objective import FSPO, FSPO_ASYMMETRIC, FSPO_DUAL_CLIP, FSPO_ZERO_DRIFT
from suite.types import Method

METHODS: dict[str, Method] = {
    "fspo": FSPO,
    "fspo_zero_drift": FSPO_ZERO_DRIFT,
    "fspo_asymmetric": FSPO_ASYMMETRIC,
    "fspo_dual_clip": FSPO_DUAL_CLIP,
    "fspo_per_token": FSPO_PER_TOKEN,
    "no_clip": NO_CLIP,
}

__all__ = [
    "FSPO",
    "FSPO_ASYMMETRIC",
    "FSPO_DUAL_CLIP",
    "FSPO_PER_TOKEN",
    "FSPO_ZERO_DRIFT",
    "METHODS",
    "NO_CLIP",
    "FSPOHyper",
]
