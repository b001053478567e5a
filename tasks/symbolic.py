"""Equality of answers by math-verify, in worker processes with hard bounds on CPU time, memory and output.

math-verify's own time-outs use signals: they need the main thread, and C code ignores them. Here a bound ends the
process, and the questions behind the one that met it go to another. CPU seconds, not wall-clock seconds, so that a busy
machine gives the same verdicts as an idle one. A question without a verdict is asked once more, alone in a fresh
process while no other works, before it is UNDECIDED.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import selectors
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from suite.types import UserError, Verdict
from tasks.symbolic_process import Bounds, WorkerProcess

LARGEST_BATCH = 16
BATCHES_A_WORKER = 4
POLL_SECONDS = 1.0
FAILED_STARTS = 3
_SCRIPT = Path(__file__).with_name("symbolic_worker.py")


class Question(NamedTuple):
    """What a worker is asked: `equal`, two LaTeX texts; or `responds`, a whole response by math-verify's own rules."""

    kind: str
    gold: str
    text: str


Told = Callable[[int], None]
"""Is told the place of every question that has its final verdict."""


class SymbolicPool:
    """Worker processes, started by the first questions and replaced whenever one ended. Threads may share them."""

    def __init__(self, workers: int | None = None, bounds: Bounds | None = None, script: Path = _SCRIPT) -> None:
        self.workers = workers or cores()
        self.bounds = bounds or Bounds()
        self.retried = 0
        self._script = script
        self._running: list[WorkerProcess] = []
        self._failed_starts = 0
        self._lock = threading.Lock()

    @property
    def pids(self) -> list[int]:
        """The ids of the worker processes; none before the first question."""
        return [worker.pid for worker in self._running]

    def ask(self, questions: Sequence[Question], told: Told = lambda place: None) -> list[Verdict]:
        """The verdict of each question, in order; UNDECIDED where a worker met a bound or failed, twice.

        Raises UserError where math-verify does not start.
        """
        with self._lock:
            found: dict[int, Verdict] = {}

            def decided(place: int, verdict: Verdict) -> None:
                found[place] = verdict
                if verdict is not Verdict.UNDECIDED:
                    told(place)

            try:
                self._work(questions, range(len(questions)), self.workers, decided)
                for place in [i for i, verdict in sorted(found.items()) if verdict is Verdict.UNDECIDED]:
                    self._end(self._running)
                    self.retried += 1
                    self._work(questions, [place], 1, found.__setitem__)
                    told(place)
            except BaseException:
                self._end(self._running)  # their next replies would answer questions that nobody asks any more
                raise
            return [found[i] for i in range(len(questions))]

    def start(self) -> None:
        """Starts every worker now and waits until each has answered once; `ask` would start them when needed."""
        self.ask([Question("equal", "1", "2^0")] * self.workers)

    def close(self) -> None:
        """Ends the worker processes; a later question starts new ones."""
        with self._lock:
            self._end(self._running)

    def _work(
        self, questions: Sequence[Question], places: Iterable[int], most: int, decided: Callable[[int, Verdict], None]
    ) -> None:
        """One verdict for each place. The question in which a worker ended is UNDECIDED; those behind it wait again."""
        waiting = deque(places)
        self._end([worker for worker in self._running if not worker.alive()])
        while waiting or any(worker.asked for worker in self._running):
            free = [worker for worker in self._running if not worker.asked]
            for _ in range(min(most - len(self._running), len(waiting) - len(free))):
                free.append(WorkerProcess(self._script, self.bounds))
                self._running.append(free[-1])
            for worker in free:
                if not waiting:
                    break
                share = len(waiting) // (BATCHES_A_WORKER * most)
                batch = [waiting.popleft() for _ in range(max(1, min(LARGEST_BATCH, share)))]
                worker.ask(batch, json.dumps([(i, *questions[i]) for i in batch]))
            self._transfer()
            for worker in self._running:
                for place, verdict in worker.answers():
                    decided(place, verdict)
            for worker in [worker for worker in self._running if worker.at_end()]:
                self._end([worker])
                self._check_start(worker)
                unanswered = list(worker.asked)
                if unanswered and worker.ready and not worker.retired:
                    decided(unanswered.pop(0), Verdict.UNDECIDED)
                waiting.extendleft(reversed(unanswered))

    def _transfer(self) -> None:
        """Reads and writes what the pipes take, waiting for the first that takes something."""
        with selectors.DefaultSelector() as selector:
            for worker in self._running:
                worker.register(selector)
            for key, _ in selector.select(POLL_SECONDS):
                key.data()

    def _end(self, workers: Sequence[WorkerProcess]) -> None:
        self._running = [worker for worker in self._running if worker not in workers]
        for worker in workers:
            worker.end()

    def _check_start(self, worker: WorkerProcess) -> None:
        self._failed_starts = 0 if worker.ready else self._failed_starts + 1
        if worker.complaint or self._failed_starts >= FAILED_STARTS:
            said = worker.complaint or f"{FAILED_STARTS} processes in a row ended before they were ready"
            raise UserError(f"math-verify does not start ({said}); run pip install 'math-verify==0.9.*'")


def cores() -> int:
    """How many workers a process may have side by side: one a core; as many as it has threads in a grid's worker."""
    if multiprocessing.parent_process() is not None:
        import torch

        return torch.get_num_threads()
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


_pools: dict[int, SymbolicPool] = {}
"""One pool for each process: a forked child must not talk through its parent's pipes."""


def own_pool() -> SymbolicPool:
    """The pool of this process."""
    return _pools.get(os.getpid()) or _pools.setdefault(os.getpid(), SymbolicPool())


@atexit.register
def _close_own_pool() -> None:
    pool = _pools.pop(os.getpid(), None)
    if pool is not None:
        pool.close()
