"""Whether vLLM can be asked anything on this machine: what its tests skip by."""

from __future__ import annotations

from suite.policy.vllm_engine import require_vllm
from suite.types import UserError


def vllm_is_installed() -> bool:
    """Whether vLLM is installed, in a version that the suite takes."""
    try:
        require_vllm()
    except UserError:
        return False
    return True
