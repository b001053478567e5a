"""What a phase of the work costs: seconds and peak memory. Both change from run to run, and stay out of digests."""

from __future__ import annotations

import os
import resource
import sys
import time
from pathlib import Path

SECONDS = "seconds/"
PEAK = "peak_gib/"
COSTS = (SECONDS, PEAK)
"""Prefixes of the names of costs; `name.startswith(COSTS)` tells them from numbers that belong to a result."""
_STATUS, _REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET = "5"
"""What Linux takes for: the peak of resident memory begins again at the present size."""

GIB = 2**30


class Clock:
    """Seconds and peak memory of phases that follow one another, by the names `seconds/PHASE` and `peak_gib/PHASE`.

    Memory is the device's allocations where there is a GPU, else this process's resident size. Where no
    peak can begin again (only Linux lets it), a phase shows the largest size so far.
    """

    def __init__(self) -> None:
        self.costs: dict[str, float] = {}
        self._begin()

    def lap(self, phase: str) -> None:
        """End a phase and begin the next."""
        self.costs[f"{SECONDS}{phase}"] = time.perf_counter() - self._start
        self.costs[f"{PEAK}{phase}"] = peak_bytes() / GIB
        self._begin()

    def _begin(self) -> None:
        import torch  # here, so that readers of costs need none

        self._start = time.perf_counter()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        elif os.access(_REFERENCES, os.W_OK):
            _REFERENCES.write_text(_RESET, encoding="ascii")


def peak_bytes() -> int:
    """The largest memory since the peak began: allocated on the GPU where there is one, else resident."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "linux":
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
