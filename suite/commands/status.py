"""The command that says how far a comparison, a training run or an evaluation is, from another terminal."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro
from rich.live import Live
from rich.text import Text

from suite.commands.console import console, say
from suite.records.texts import printable

if TYPE_CHECKING:
    from suite.experiments.progress import Progress, Status

WIDTH = 80
REFRESH_SECONDS = 3.0
NAME = 23
"""Columns of a job's name; a longer one loses its middle."""


def status(folder: tyro.conf.Positional[Path], /, watch: bool = False) -> None:
    """Say what is done, what runs, the time left and the last rewards of a results folder. The run does not notice.

    Args:
        folder: The --out folder of fspo compare, train or evaluate, also while it works on this machine or another.
        watch: Say it again every few seconds, until all is done or Ctrl-C.
    """
    from suite.experiments.progress import status_of

    found = status_of(folder)
    if not watch:
        return say(lines_of(found, folder))
    with Live(Text("\n".join(lines_of(found, folder))), console=console, auto_refresh=False) as shown:
        try:
            while not (found and all(one.done for one in found)):
                time.sleep(REFRESH_SECONDS)
                found = status_of(folder)
                shown.update(Text("\n".join(lines_of(found, folder))), refresh=True)
        except KeyboardInterrupt:
            return


def lines_of(found: Sequence[Status], folder: Path) -> list[str]:
    """What a folder holds, in lines of at most 80 columns."""
    if not found:
        return [f"{printable(str(folder))}: empty, nothing has begun"]
    return [line for one in found for line in _lines(one)]


def _lines(status: Status) -> list[str]:
    from suite.experiments.progress import State

    states = [job.state for job in status.jobs]
    running = sum(job.runs for job in status.jobs)
    said = [f"{states.count(State.DONE)} of {len(states)} jobs done", f"{running} running" if running else ""]
    said += [f"{n} {state}" for state in (State.FAILED, State.STOPPED, State.WAITING) if (n := states.count(state))]
    head = f"{printable(status.title)}: {', '.join(filter(None, said))}{_left(status, running)}"
    shown = sorted(
        (job for job in status.jobs if job.state != State.WAITING), key=lambda job: list(State).index(job.state)
    )
    rows = [f"{'job':<{NAME}} {'state':<23} {'step':>9} {'s/step':>6} {'reward':>6} {'accuracy':>8}"]
    rows += [line for job in shown for line in _job_lines(job)]
    return [*textwrap.wrap(head, WIDTH), *(["", *rows, ""] if shown else [])]


def _left(status: Status, running: int) -> str:
    """The time left, or how to go on where no job is worked at."""
    if status.done:
        return ""
    left = "" if status.seconds_left is None else f"about {duration(status.seconds_left)}"
    if running:
        return f"; {left} left" if left else "; the time left is known after a step"
    work = f", {left} of work are left" if left else ""
    return f"{work}; no job runs now: where its command has ended, the same one goes on from here"


def _job_lines(job: Progress) -> list[str]:
    cells = [
        f"{_short(printable(job.name)):<{NAME}}",
        f"{_state(job):<23}",
        f"{'–' if job.total is None else f'{job.steps}/{job.total}':>9}",
        f"{_number(job.step_seconds, '.1f' if (job.step_seconds or 0) < 1000 else '.0f'):>6}",
        f"{_number(job.reward, '.3f'):>6}",
        f"{_number(job.accuracy, '.3f'):>8}",
    ]
    notes = [job.problem] if job.problem else []
    if job.runs and job.machine:
        wrote = "" if job.written is None else f", wrote {duration(time.time() - job.written)} ago"
        notes.append(f"on {job.machine}{wrote}")
    return [" ".join(cells), *(f"    {line}" for note in notes for line in textwrap.wrap(printable(note), WIDTH - 4))]


def _state(job: Progress) -> str:
    """What a job does and since when; of an evaluation the share of responses that is there."""
    if not job.runs:
        return job.state
    have, asked = job.responses or (0, 0)
    share = f" {100 * have // asked}%" if asked else ""
    return f"{job.state}{share}{'' if job.since is None else f', {duration(time.time() - job.since)}'}"


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _short(name: str) -> str:
    """A name in the width of its column, without its middle where it is longer."""
    half = NAME // 2
    return name if len(name) <= NAME else f"{name[: half - 1]}…{name[-half:]}"


def duration(seconds: float) -> str:
    """A span of time in its largest unit: 45 s, 12 min, 2.1 h, 3.5 d."""
    for unit, name, digits in ((86400.0, "d", 1), (3600.0, "h", 1), (60.0, "min", 0)):
        if seconds >= unit:
            return f"{seconds / unit:.{digits}f} {name}"
    return f"{max(seconds, 0):.0f} s"
