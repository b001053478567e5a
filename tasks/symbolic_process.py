"""One worker process of `tasks.symbolic`: its pipes, what it was asked, when it is at an end. Nothing here blocks."""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from suite.types import Verdict
from tasks.symbolic_worker import READY, RETIRED

LONGEST_REPLY = 100
LOOK_SECONDS = 1.0
AT_WORK = frozenset({psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP})
"""States of a process that wants the machine, however long a busy one lets it wait."""


@dataclass(frozen=True)
class Bounds:
    """What one question may cost: CPU seconds and bytes of memory, and what is no work at all.

    `idle_seconds` is how long a worker may owe an answer while it neither runs, waits for a core nor reads a disk.
    """

    cpu_seconds: float = 3.0
    memory_bytes: int = 2 << 30
    idle_seconds: float = 30.0
    start_cpu_seconds: float = 120.0


class WorkerProcess:
    """A running worker. `asked` holds the places of the questions that it has not answered yet, in its order."""

    def __init__(self, script: Path, bounds: Bounds) -> None:
        self.bounds = bounds
        self.asked: deque[int] = deque()
        self.ready = False
        self.retired = False
        self.complaint = ""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-B", str(script), str(bounds.cpu_seconds), str(bounds.memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=os.environ | {"PYTHONHASHSEED": "0"},  # sympy's order of terms, hence its effort, follows the hashes
            start_new_session=True,  # Ctrl-C is for the parent
        )
        self._clock = psutil.Process(self._process.pid)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin.fileno(), self._process.stdout.fileno()
        os.set_blocking(self._stdin, False)
        os.set_blocking(self._stdout, False)
        self._unsent = self._unread = b""
        self._answers: list[tuple[int, Verdict]] = []
        self._closed = False
        self._answered = True
        self._cpu = self._cpu_at_answer = 0.0
        self._sign_of_life = self._next_look = time.monotonic()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process can be asked."""
        return self._process.poll() is None

    def ask(self, places: Sequence[int], line: str) -> None:
        """Hands over a batch of questions; `places` says which they are."""
        self.asked.extend(places)
        self._unsent += line.encode() + b"\n"
        self._answered = True

    def register(self, selector: selectors.BaseSelector) -> None:
        """Tells the selector what to call when this process can be read or written."""
        selector.register(self._stdout, selectors.EVENT_READ, self._receive)
        if self._unsent:
            selector.register(self._stdin, selectors.EVENT_WRITE, self._send)

    def answers(self) -> list[tuple[int, Verdict]]:
        """The answers (place, verdict) that came since the last call."""
        found, self._answers = self._answers, []
        return found

    def at_end(self) -> bool:
        """Whether no more is to be expected: it ended, retired, wrote what is no answer, works too long or hangs."""
        return self._closed or self.retired or bool(self.asked and self._out_of_bounds())

    def end(self) -> None:
        """Ends the process."""
        self._process.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait()

    def _send(self) -> None:
        try:
            self._unsent = self._unsent[os.write(self._stdin, self._unsent) :]
        except BrokenPipeError:
            self._unsent = b""  # it ended, which reading tells

    def _receive(self) -> None:
        data = os.read(self._stdout, 1 << 12)
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._understand(line.decode(errors="replace"))
        self._closed |= not data or len(self._unread) > LONGEST_REPLY

    def _understand(self, line: str) -> None:
        self._answered = True
        if self._closed:
            return
        if line == READY:
            self.ready = True
        elif line == RETIRED:
            self.retired = True
        elif self.ready and self.asked and line in [f"{self.asked[0]} {verdict}" for verdict in Verdict]:
            self._answers.append((self.asked.popleft(), Verdict(line.split()[1])))
        else:
            self._closed = True
            self.complaint = "" if self.ready else line[:LONGEST_REPLY]

    def _out_of_bounds(self) -> bool:
        """Whether the question at hand takes too much CPU (should its own timer fail), or nothing happens at all.

        The clock starts at the first look after an answer, so it is late by at most one look.
        """
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + LOOK_SECONDS
        try:
            times, status = self._clock.cpu_times(), self._clock.status()
        except psutil.NoSuchProcess:
            return True
        cpu = times.user + times.system
        if self._answered:
            self._answered, self._cpu_at_answer, self._sign_of_life = False, cpu, now
        if cpu > self._cpu or status in AT_WORK:
            self._cpu, self._sign_of_life = cpu, now
        allowed = self.bounds.cpu_seconds + LOOK_SECONDS if self.ready else self.bounds.start_cpu_seconds
        return cpu - self._cpu_at_answer > allowed or now - self._sign_of_life > self.bounds.idle_seconds
