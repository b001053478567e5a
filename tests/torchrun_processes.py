"""Programs in several processes of one run, for tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def torchrun(*words: str, processes: int = 2, seconds: int = 600) -> subprocess.CompletedProcess[str]:
    """A program in several processes, one thread each. One that waits for another for ever is killed and fails."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    return subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
    )
