"""Phases of the benchmark on a GPU, one after another within a time budget; one JSON file each, one failure stops none.

A phase's file says `started` while it runs, and is replaced by one that says how it went: `ran` with its rows,
`not run` with the reason, or `failed` with the error's type, message and place. Every replacement is atomic: whoever
reads what a killed run left finds whole files alone.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import json
import math
import os
import re
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from suite.records.costs import GIB, peak_bytes
from suite.records.files import write_atomically
from suite.records.provenance import machine, versions
from suite.types import UserError

Row = dict[str, Any]
Status = Literal["started", "ran", "not run", "failed"]
NO_CUDA, NO_VLLM = "needs a CUDA device", "vllm is not installed"
MEMORY_WORDS = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "not enough memory")
LONGEST, SHORTEST = 4.0, 60.0
"""A phase is ended after this many times its estimate, but not before so many seconds, and where the budget ends."""
PLACES = 6
"""Lines of the code's own path to an error that are kept, the innermost last."""


@dataclass(frozen=True)
class Phase:
    """A measurement: `work` is the function that makes its rows, as module:name, imported when the phase begins.

    card and rehearsal: seconds that it takes on one H100 and, with small work, on a CPU (estimates); models: for how
    many of the models it is; needs: `cuda`, `vllm`; block: phases of an earlier block come before, for all models.
    """

    name: str
    what: str
    work: str
    block: int
    card: float
    rehearsal: float
    models: Literal["none", "first", "each"] = "each"
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """A phase for one model, or for none."""

    phase: Phase
    model: str | None = None

    @property
    def file(self) -> str:
        """The name of its file."""
        of_model = "" if self.model is None else "." + re.sub(r"[^\w.-]+", "_", self.model.rpartition("/")[2])
        return f"{self.phase.name}{of_model}.json"


def jobs_of(phases: Sequence[Phase], models: Sequence[str], only: Sequence[str] = ()) -> list[Job]:
    """Every phase for its models in the order of their worth: by block, then by model, then as the table has them.

    UserError for a name in `only` that no phase has.
    """
    if unknown := sorted(set(only) - {phase.name for phase in phases}):
        raise UserError(f"--only {','.join(unknown)}: no such phase; there are {', '.join(p.name for p in phases)}")
    ranked: list[tuple[tuple[int, int, int], Job]] = []
    for place, phase in enumerate(phases):
        if only and phase.name not in only:
            continue
        chosen = {"none": [None], "first": [*models[:1]], "each": [*models]}[phase.models]
        ranked += [((phase.block, i if model else -1, place), Job(phase, model)) for i, model in enumerate(chosen)]
    return [job for _, job in sorted(ranked, key=lambda pair: pair[0])]


class Room(Protocol):
    """What the runner asks of the context that phases work in."""

    device: str
    reference: str | None

    def drop(self) -> None:
        """Forget the loaded model, which a failed phase may have left in any state."""
        ...


class OutOfTime(BaseException):
    """Raised inside a phase when its time is up; no `except Exception` of a library holds it back."""


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise OutOfTime inside the block after so many seconds; only the main thread of a program can be told."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(number: int, frame: Any) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Runner:
    """Runs jobs and writes their files into `out`. `seconds` from its making on are the budget by `clock`.

    settings stand in every file; peak: name, source and FLOP/s of the device, None where they are not known.
    """

    out: Path
    room: Room
    seconds: float
    settings: Mapping[str, Any]
    device: str
    flops: str
    peak: Mapping[str, Any] | None = None
    clock: Callable[[], float] = time.monotonic
    limit: Callable[[float], Any] = alarm
    say: Callable[[str], None] = print

    def __post_init__(self) -> None:
        self.began = self.clock()

    @property
    def left(self) -> float:
        """Seconds of the budget that are left."""
        return self.seconds - (self.clock() - self.began)

    def run(self, jobs: Sequence[Job], first: int = 0) -> int | None:
        """Run the jobs from number `first` on. None when all are done; the number of the next one where the device
        refuses all work after a failure: a new process has to go on there."""
        for number in range(first, len(jobs)):
            job = jobs[number]
            if self.one(job) == "failed" and self._is_broken():
                self.say(f"the device refuses all further work after {job.file}")
                return number + 1
        return None

    def one(self, job: Job) -> Status:
        """Run one job and write its file."""
        start = self.clock()
        if reason := self.reason(job):
            return self._write(job, "not run", start, reason=reason)
        self._write(job, "started", start)
        most = min(self.left, max(SHORTEST, LONGEST * self.estimate(job)))
        self.room.reference = job.model
        status: Status = "failed"
        try:
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()
            with self.limit(most):
                module, _, name = job.phase.work.partition(":")
                rows: list[Row] = getattr(importlib.import_module(module), name)(self.room)
        except (ImportError, UserError) as error:
            status, found = "not run", {"reason": f"{type(error).__name__}: {error}"}
        except OutOfTime as error:
            found = {"error": error_of(error) | {"message": f"its {most:.0f} seconds were over"}}
        except Exception as error:
            found = {"error": error_of(error)}
        else:
            return self._write(job, "ran", start, rows=rows)
        self._clean()
        return self._write(job, status, start, **found)

    def estimate(self, job: Job) -> float:
        """Seconds that the job takes, about."""
        return job.phase.rehearsal if self.room.device == "cpu" else job.phase.card

    def reason(self, job: Job) -> str | None:
        """Why the job cannot run here and now, None if it can."""
        if "cuda" in job.phase.needs and self.room.device != "cuda":
            return NO_CUDA
        if "vllm" in job.phase.needs and importlib.util.find_spec("vllm") is None:
            return NO_VLLM
        if (left := self.left) < (needed := self.estimate(job)):
            return f"no time: {max(left, 0):.0f} of {self.seconds:.0f} seconds left, and it takes about {needed:.0f}"
        return None

    def _clean(self) -> None:
        """Give back what a failed phase held. Where the device is broken this fails too, which `_is_broken` sees."""
        try:
            self.room.drop()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        except RuntimeError as error:
            self.say(f"cleaning up: {error}")

    def _is_broken(self) -> bool:
        """Whether the device refuses work: an illegal access leaves a CUDA context unusable until the process ends."""
        if self.room.device != "cuda" or not torch.cuda.is_available():
            return False
        try:
            torch.cuda.synchronize()
            torch.ones(1, device="cuda").sum().item()
        except RuntimeError as error:
            self.say(f"the device: {error}")
            return True
        return False

    def _write(self, job: Job, status: Status, start: float, **found: Any) -> Status:
        rows = found.get("rows", [])
        took = self.clock() - start
        peaks = [row["peak_gib"] for row in rows if row.get("peak_gib") is not None]
        memory: Row = {"peak_gib": None, "device_gib": None}
        if status == "ran":
            memory["peak_gib"] = max([*peaks, peak_bytes() / GIB])
        if self.room.device == "cuda" and torch.cuda.is_available():
            memory["device_gib"] = torch.cuda.get_device_properties(0).total_memory / GIB
        content = {
            "benchmark": "gpu",
            "phase": job.phase.name,
            "what": job.phase.what,
            "model": job.model,
            "status": status,
            **found,
            "seconds": took,
            "estimate": self.estimate(job),
            "memory": memory,
            "needs": job.phase.needs,
            "settings": dict(self.settings),
            "flops": self.flops,
            "peak": self.peak,
            "device": self.device,
            "command": shlex.join(["python", "-m", "benchmarks.gpu", *sys.argv[1:]]),
            "commit": versions()["commit"],
            "versions": versions(),
            "machine": machine(),
            "load_average": os.getloadavg(),
        }
        write_atomically(self.out / job.file, json.dumps(plain(content), indent=1, allow_nan=False) + "\n")
        self.say(_line(job, status, self.estimate(job) if status == "started" else took, found))
        return status


def plain(value: Any) -> Any:
    """What JSON can hold of a value: numbers that are none, and what is no plain data, as their names."""
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    return value if value is None or isinstance(value, str | int) else str(value)


def error_of(error: BaseException) -> dict[str, Any]:
    """Type, message and place of an error, and whether memory ran out."""
    said = str(error).strip()
    memory = isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in said for word in MEMORY_WORDS)
    frames = traceback.extract_tb(error.__traceback__)[-PLACES:]
    where = [f"{Path(f.filename).name}:{f.lineno} in {f.name}: {f.line}" for f in frames]
    return {"type": type(error).__name__, "message": said[:1000], "where": where, "out_of_memory": memory}


def _line(job: Job, status: Status, took: float, found: Mapping[str, Any]) -> str:
    """What a person who watches the run reads of a job."""
    title = job.phase.name + (f" of {job.model}" if job.model else "")
    if status == "started":
        return f"{title}: started, takes about {took:.0f} s"
    error = found.get("error", {})
    said = found.get("reason") or f"{error.get('type', '')} {error.get('message', '')}".strip()
    rows = [json.dumps(row, default=str)[:300] for row in found.get("rows", [])[:8]]
    return "\n  ".join([f"{title}: {status}, {took:.1f} s{f' ({said[:300]})' if said else ''}", *rows])
