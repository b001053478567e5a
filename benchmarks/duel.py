"""Two programs in processes of their own that work in turn: times, peaks, and what each says of its work.

A process waits for a word before every round, so that only one of the two works at a time, and each has its own peak
memory. Words go over its standard input, answers over its standard output in lines that begin with `MARK`.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from suite.records.costs import GIB, peak_bytes
from suite.types import UserError

MARK, GO, STOP = "@duel ", "go", "stop"


# --- inside a side's process ----------------------------------------------------------------------


class Bell:
    """A side's end of the line: waits for a round, and reports what the round took."""

    def __init__(self) -> None:
        self.start = self.cpu_start = 0.0

    def say(self, **facts: Any) -> None:
        """One answer to the process that started this one."""
        print(MARK + json.dumps(facts), flush=True)

    def wait(self) -> None:
        """Return when a round begins; the process ends here, with its peak memory, when there is none any more."""
        if sys.stdin.readline().strip() != GO:
            self.say(peak_gib=peak_bytes() / GIB)
            sys.stdout.flush()
            os._exit(0)  # nothing of either trainer's tidying up belongs to the work
        self.start, self.cpu_start = time.perf_counter(), time.process_time()

    def done(self, **facts: Any) -> None:
        """The round is over. Seconds of all this process's threads on a core are what other work disturbs least."""
        cpu = time.process_time() - self.cpu_start
        self.say(seconds=time.perf_counter() - self.start, cpu_seconds=cpu, **facts)


# --- the process that starts both -----------------------------------------------------------------


class Side:
    """A process that plays one side."""

    def __init__(self, name: str, module: str, task: Path, threads: int, checkout: Path | None = None) -> None:
        self.name = name
        counts = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        self.errors = task.with_name(f"{name}.stderr")
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(task)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=checkout,
                env={**os.environ, **counts, "TOKENIZERS_PARALLELISM": "false"},
            )

    def hear(self) -> dict[str, Any]:
        """The next answer; UserError with the end of what it complained of when the process ends without one."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        complaint = self.errors.read_text().strip().splitlines()
        said = " / ".join(complaint[-3:]) or f"exit code {self.process.wait()}, no message"
        raise UserError(f"{self.name}: the process ended early ({said})")

    def ask(self, word: str) -> dict[str, Any]:
        """What the side answers to a word; UserError as `hear`."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the process has ended: hear says so
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        return self.hear()

    def end(self) -> None:
        """Stop the process if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def duel(
    sides: Mapping[str, str],
    task: Mapping[str, Any],
    folder: Path,
    rounds: int,
    checkouts: Mapping[str, Path] | None = None,
) -> dict[str, dict[str, Any]]:
    """All sides (name to module) on one task, in turn, after one round unseen: what each said, with peaks in GiB.

    checkouts: folders of other commits of this repository, from which the sides of these names are run. Raises
    UserError when a side ends early.
    """
    path = folder / "task.json"
    path.write_text(json.dumps({**task, "rounds": rounds + 1}), encoding="utf-8")
    playing: list[Side] = []
    try:
        for name, module in sides.items():
            playing.append(Side(name, module, path, task["threads"], (checkouts or {}).get(name)))
        found = {side.name: {"ready": side.hear(), "rounds": []} for side in playing}
        for turn in range(rounds + 1):
            for side in playing:
                said = side.ask(GO)
                if turn:
                    found[side.name]["rounds"].append(said)
                else:
                    found[side.name]["unseen"] = said
        for side in playing:
            found[side.name]["peak_gib"] = side.ask(STOP)["peak_gib"]
    finally:
        for side in playing:
            side.end()
    return found


def seconds(said: Mapping[str, Any], kind: str = "seconds") -> list[float]:
    """The times of a side's rounds; `cpu_seconds` are those that its threads spent on a core."""
    return [one[kind] for one in said["rounds"]]


def ratio(over: Sequence[float], under: Sequence[float]) -> dict[str, float]:
    """Ratio of the medians and of the minima; the second is disturbed least by other work on the machine."""
    return {"of_medians": statistics.median(over) / statistics.median(under), "of_minima": min(over) / min(under)}
