"""Equality of two answers by math-verify, in a worker process with hard bounds on CPU time and memory.

math-verify's own time-outs use signals: they need the main thread, and C code ignores them. Here the bound ends the
process and the next pair gets a new one. CPU seconds, not wall-clock seconds, so that a busy machine gives the same
verdicts as an idle one.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from multiprocessing.connection import wait
from pathlib import Path

from suite.types import UserError, Verdict

CPU_SECONDS = 3.0
MEMORY_BYTES = 2 << 30
START_SECONDS = 300.0
WALL_SECONDS_PER_CPU_SECOND = 20.0
_SCRIPT = Path(__file__).with_name("symbolic_worker.py")


class SymbolicWorker:
    """One worker process, started by the first question and replaced whenever it ended."""

    def __init__(self, cpu_seconds: float = CPU_SECONDS, memory_bytes: int = MEMORY_BYTES) -> None:
        self.cpu_seconds = cpu_seconds
        self.memory_bytes = memory_bytes
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    @property
    def pid(self) -> int | None:
        """The id of the worker process; None before the first question and after an end."""
        return None if self._process is None else self._process.pid

    def equal(self, gold: str, answer: str) -> Verdict:
        """Whether the two LaTeX texts are equal; UNDECIDED where the worker met a bound or failed."""
        with self._lock:
            process = self._running()
            request = json.dumps({"gold": gold, "answer": answer}) + "\n"
            try:
                process.stdin.write(request.encode())  # pyright: ignore[reportOptionalMemberAccess]
            except BrokenPipeError:
                said = ""
            else:
                said = _line(process, self.cpu_seconds * WALL_SECONDS_PER_CPU_SECOND)
            if said not in list(Verdict):
                self._end()
                return Verdict.UNDECIDED
            return Verdict(said)

    def close(self) -> None:
        """Ends the worker process; a later question starts a new one."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-B", str(_SCRIPT), str(self.cpu_seconds), str(self.memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=os.environ | {"PYTHONHASHSEED": "0"},  # sympy's order of terms, hence its effort, follows the hashes
            start_new_session=True,  # Ctrl-C is for the parent
        )
        said = _line(self._process, START_SECONDS)
        if said != "ready":
            self._end()
            raise UserError(f"math-verify does not start ({said or 'no reply'}); run pip install 'math-verify==0.9.*'")
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


def _line(process: subprocess.Popen[bytes], seconds: float) -> str:
    """The worker's next line, or nothing when it ended or took longer than `seconds`."""
    pipe = process.stdout
    assert pipe is not None
    return pipe.readline().decode().strip() if wait([pipe.fileno()], seconds) else ""


_workers: dict[int, SymbolicWorker] = {}
"""One worker for each process: a forked child must not talk through its parent's pipes."""


def own_worker() -> SymbolicWorker:
    """The worker of this process."""
    return _workers.get(os.getpid()) or _workers.setdefault(os.getpid(), SymbolicWorker())


def equal(gold: str, answer: str) -> Verdict:
    """Whether two LaTeX texts are equal, asked of this process's own worker."""
    return own_worker().equal(gold, answer)


@atexit.register
def _close_own_worker() -> None:
    worker = _workers.pop(os.getpid(), None)
    if worker is not None:
        worker.close()
