"""What the tests of vLLM share: whether it can be asked anything on this machine, and how near its numbers must be."""

from __future__ import annotations

from suite.policy.vllm_engine import require_vllm
from suite.types import UserError

TOLERANCE = 1e-4
"""Float32 log-probs of two implementations: sums of some hundred products in another order, as deep as two layers."""


def vllm_is_installed() -> bool:
    """Whether vLLM is installed, in a version that the suite takes."""
    try:
        require_vllm()
    except UserError:
        return False
    return True
