"""How far a comparison, a training run or an evaluation is: read off its folder, also while it runs.

Nothing is written and no lock is taken, so that a run does not notice. What runs here is known by the kernel's list of
locks; of another machine's, such as one of a cluster, by what it wrote last.
"""

from __future__ import annotations

import functools
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import fmean

from suite.config import CompareConfig
from suite.evaluation.sample_store import FOLDER as SAMPLES
from suite.evaluation.sample_store import MANIFEST, counts
from suite.records.comparison_folder import (
    CONFIG_FILE,
    FIRST,
    TRACEBACK,
    base_folder,
    cell_folder,
    recorded_config,
    rollouts_folder,
)
from suite.records.costs import SECONDS
from suite.records.files import Hold, last_hold, listed
from suite.records.packed import is_finished, read_result, result_file
from suite.records.result import BASE, mean_accuracy
from suite.records.run_log import FILE as METRICS
from suite.records.run_log import read_log
from suite.types import RunResult, UserError

SILENCE = 900.0
"""Seconds without a written file after which a job of another machine no longer counts as running."""
EVALUATE = f"{SECONDS}evaluate"
REWARD = "reward/mean"


class State(StrEnum):
    """What a job does. `STOPPED`: begun and not finished, and nobody works at it; `WAITING`: never begun."""

    RUNNING = "running"
    EVALUATING = "evaluating"
    FAILED = "failed"
    STOPPED = "stopped"
    WAITING = "waiting"
    DONE = "done"


@dataclass(frozen=True)
class Progress:
    """One job: the evaluation of the start model, the first rollouts of a seed, a cell, or an evaluation.

    Times in seconds, `since` (its last start) and `written` (its last file) as Unix time. `steps` of `total` training
    steps, None where it trains nothing; `responses` kept and asked for in its evaluation. `reward` is that of the last
    step; `accuracy` the mean over sets, of what is finished. `problem` is why it failed, or which file is not readable.
    """

    name: str
    state: State
    since: float | None = None
    written: float | None = None
    machine: str = ""
    steps: int | None = None
    total: int | None = None
    step_seconds: float | None = None
    responses: tuple[int, int] | None = None
    evaluation_seconds: float | None = None
    reward: float | None = None
    accuracy: float | None = None
    problem: str = ""

    @property
    def runs(self) -> bool:
        return self.state in (State.RUNNING, State.EVALUATING)


@dataclass(frozen=True)
class Status:
    """What a folder holds, and all of its jobs. `seconds_left`: an estimate, None where there is nothing to go by."""

    title: str
    jobs: tuple[Progress, ...]
    seconds_left: float | None

    @property
    def done(self) -> bool:
        return all(job.state == State.DONE for job in self.jobs)


def status_of(folder: Path, now: float | None = None) -> list[Status]:
    """The comparison or training run in a folder with those of its learning rates, or the evaluation; empty: none.

    UserError where there is no such folder, and where it holds something else. `now` is Unix time.
    """
    now = time.time() if now is None else now
    remedy = "give the --out folder of fspo compare, train or evaluate"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; {remedy}")
    places = [path.parent for path in (folder / CONFIG_FILE, *sorted(folder.glob(f"*/*/{CONFIG_FILE}")))]
    if found := [_comparison(place, now) for place in places if (place / CONFIG_FILE).exists()]:
        return found
    if (folder / SAMPLES / MANIFEST).exists():
        job = _job("evaluation", folder, now)
        return [Status(f"evaluation in {folder}", (job,), _responses_left(folder, job, now))]
    if listed(folder):
        raise UserError(f"{folder}: no comparison, training run or evaluation; {remedy}")
    return []


def _comparison(out: Path, now: float) -> Status:
    config = recorded_config(out)
    cells = [(method, seed) for seed in config.seeds for method in config.methods]
    jobs = (
        _job(BASE, base_folder(out), now),
        *(_rollouts(out, seed, now) for seed in config.seeds),
        *(_job(f"{m} seed {s}", cell_folder(out, m, s), now, config.train.steps) for m, s in cells),
    )
    return Status(f"{config.name} in {out}", jobs, seconds_left(config, jobs))


def _rollouts(out: Path, seed: int, now: float) -> Progress:
    folder, name = rollouts_folder(out, seed), f"rollouts seed {seed}"
    hold = last_hold(folder)
    if (folder / FIRST).exists():
        return Progress(name, State.DONE)
    return _unfinished(name, folder, hold, now)


def _job(name: str, folder: Path, now: float, total: int | None = None) -> Progress:
    """A job with a result, and with steps where it trains."""
    hold = last_hold(folder)  # before its result: a job that ends in between is done, not stopped
    try:
        if is_finished(folder):
            file = result_file(folder)
            return _finished(name, _result(folder, file, file.stat().st_mtime_ns), total)
        return _unfinished(name, folder, hold, now, total)
    except UserError as error:
        return Progress(name, State.FAILED, total=total, problem=str(error))


@functools.lru_cache(maxsize=1024)
def _result(folder: Path, file: Path, changed: int) -> RunResult:
    """The result of a run, read once while its file stays the same."""
    return read_result(folder)


def _finished(name: str, run: RunResult, total: int | None) -> Progress:
    rewards = run.curves.get(REWARD, ())
    training = sum(x for cost, x in run.costs.items() if cost.startswith(SECONDS) and cost != EVALUATE)
    return Progress(
        name,
        State.DONE,
        steps=None if total is None else len(rewards),
        total=total,
        step_seconds=training / len(rewards) if rewards else None,
        evaluation_seconds=run.costs.get(EVALUATE),
        reward=rewards[-1] if rewards else None,
        accuracy=mean_accuracy(run.evals),
    )


def _unfinished(name: str, folder: Path, hold: Hold | None, now: float, total: int | None = None) -> Progress:
    rows = read_log(folder)
    responses = None
    if (folder / SAMPLES / MANIFEST).exists():
        kept = counts(folder / SAMPLES).values()
        responses = sum(have for have, _ in kept), sum(asked for _, asked in kept)
    written = max(_written(folder), default=None)
    state, problem = State.WAITING, ""
    if hold is not None:
        state = State.STOPPED
        elsewhere = hold.machine != platform.node() and now - max(written or 0, hold.since) < SILENCE
        if hold.now or elsewhere:
            state = State.RUNNING if responses is None else State.EVALUATING
        elif (folder / TRACEBACK).exists() and (folder / TRACEBACK).stat().st_mtime >= hold.since:
            state, problem = State.FAILED, _last_line(folder / TRACEBACK)
    return Progress(
        name,
        state,
        since=None if hold is None else hold.since,
        written=written,
        machine="" if hold is None or hold.machine == platform.node() else hold.machine,
        steps=None if total is None else len(rows),
        total=total,
        step_seconds=fmean(_seconds(row) for row in rows) if rows else None,
        responses=responses,
        reward=rows[-1].get(REWARD) if rows else None,
        problem=problem,
    )


def _written(folder: Path) -> Iterator[float]:
    """When files of a job were written that grow while it works."""
    for path in (folder / METRICS, folder / SAMPLES, *(folder / SAMPLES).glob("*")):
        if path.exists():
            yield path.stat().st_mtime


def _last_line(file: Path) -> str:
    lines = file.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return f"{lines[-1] if lines else 'no word'} ({file})"


def _seconds(row: Mapping[str, float]) -> float:
    """What a step took, all of its phases."""
    return sum(value for name, value in row.items() if name.startswith(SECONDS))


def seconds_left(config: CompareConfig, jobs: Sequence[Progress]) -> float | None:
    """Seconds until all cells are trained and evaluated; None before the first step, 0 when all are done.

    A step takes the mean of the cell's own steps, before its first that of its method, else that of all; an evaluation
    takes the mean of the finished ones. The work is shared by the cells that run now (where none runs, one by one),
    and no cell ends before its own is done. Loading models and drawing first rollouts are left out.
    """
    cells = [job for job in jobs if job.total is not None]
    if all(job.state == State.DONE for job in jobs):
        return 0.0
    known = [(job.name.rpartition(" seed ")[0], job.step_seconds) for job in cells if job.step_seconds is not None]
    if not known:
        return None
    everywhere = fmean(seconds for _, seconds in known)
    of_method = {
        method: fmean([seconds for name, seconds in known if name == method] or [everywhere])
        for method in config.methods
    }
    evaluation = fmean([s for job in jobs if (s := job.evaluation_seconds) is not None] or [0.0])
    work = {}
    for job in cells:
        if job.state == State.DONE:
            continue
        step = of_method[job.name.rpartition(" seed ")[0]] if job.step_seconds is None else job.step_seconds
        have, asked = job.responses or (0, 1)
        work[job] = ((job.total or 0) - (job.steps or 0)) * step + (1 - have / max(asked, 1)) * evaluation
    running = [job for job in cells if job.runs]
    return max([sum(work.values()) / max(len(running), 1), *(work[job] for job in running)])


def _responses_left(folder: Path, job: Progress, now: float) -> float | None:
    """Seconds until an evaluation has all responses, at its pace since its last start; None where that is not known."""
    if not job.runs or job.since is None or job.responses is None:
        return 0.0 if job.state == State.DONE else None
    drawn = sum(have for have, _ in counts(folder / SAMPLES, job.since).values())
    have, asked = job.responses
    return (asked - have) * (now - job.since) / drawn if drawn else None
