"""FSPO, Fair Sequence Policy Optimization (arXiv 2509.09177): the method, its controls, diagnostics of its claims."""

from fspo.band import FSPOHyper
from fspo.controls import FSPO_PER_TOKEN, NO_CLIP
from fspo.objective import FSPO
from suite.types import Method

METHODS: dict[str, Method] = {"fspo": FSPO, "fspo_per_token": FSPO_PER_TOKEN, "no_clip": NO_CLIP}

__all__ = ["FSPO", "FSPO_PER_TOKEN", "METHODS", "NO_CLIP", "FSPOHyper"]
