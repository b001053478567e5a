"""Cells on the local cores: processes that survive Ctrl-C, a kill and a worker's death without mixing files."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from multiprocessing import resource_tracker
from pathlib import Path
from queue import PriorityQueue
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from suite.experiments.layouts import VISIBLE, Layout
from suite.policy.portable import variables
from suite.policy.ranks import POLL_SECONDS, Ranks, end_with
from suite.records.comparison_folder import TRACEBACK
from suite.records.files import locked
from suite.records.provenance import environment_variables
from suite.records.texts import one_line, printable
from suite.types import UserError


class Job(Protocol):
    """One unit of work with a folder of its own. `total` counts its units; `finished_units()` reads them from disk."""

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def total(self) -> int: ...
    def finished_units(self) -> int: ...
    def done(self) -> bool: ...
    def run(self) -> str: ...


class _Speed(ProgressColumn):
    """How many units a second were done since the start; `kept` ones were there before."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self.unit = unit

    def render(self, task: Task) -> Text:
        done = task.completed - task.fields.get("kept", 0)
        seconds = task.finished_time if task.finished else task.elapsed  # a finished one waits for the others
        if not done or not seconds:
            return Text("")
        return Text(f"{done / seconds:{'.0f' if done > 9 * seconds else '.2f'}} {self.unit}/s")


def progress_bar(console: Console | None = None, unit: str | None = None) -> Progress:
    """The one look of every progress bar of the suite, with time left and, where a unit is named, units a second."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        *([] if unit is None else [_Speed(unit)]),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
    )


def _leave_ctrl_c_to_the_parent() -> None:
    """Block Ctrl-C in this thread, and so, from their first moment, in the processes that it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _start_worker(parent: int, stop: Any, threads: int, devices: str | None) -> None:
    """See only these devices, limit the threads, and end when the parent ends or says stop; Ctrl-C is the parent's."""
    if devices is not None:
        os.environ[VISIBLE] = devices  # before anything in this process asks CUDA for its devices
    import torch

    assert devices is None or not torch.cuda.is_initialized()
    torch.set_num_threads(threads)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent, lambda: stop.value != 0)


def run_job(job: Job) -> tuple[str, float]:
    """Run a job in this process, alone in its folder: what it says of itself, and its seconds.

    A job that another program finished meanwhile is left as it is. Whatever goes wrong is a UserError: an error of
    another kind may not survive the way to another process. Its traceback is in the job's folder.
    """
    start = time.perf_counter()
    with locked(job.folder):
        try:
            if job.done():
                return "finished by another program", time.perf_counter() - start
            return job.run(), time.perf_counter() - start
        except UserError as error:
            raise UserError(f"{_where(error)}{error}") from None
        except (Exception, SystemExit) as error:
            file = job.folder / TRACEBACK
            file.write_text(traceback.format_exc(), encoding="utf-8")
            raise UserError(f"{_where(error)}{one_line(error)}; the traceback is in {file}") from None


def _where(error: BaseException) -> str:
    """In which step of a training it happened, where the trainer noted it."""
    return "".join(f"{note}: " for note in getattr(error, "__notes__", ()))


def run_jobs(stages: Sequence[Sequence[Job]], layout: Layout, console: Console) -> None:
    """Run the jobs that are not done, stage after stage, and show progress. A failed job does not stop its stage.

    Raises UserError for the first failed job after its stage; KeyboardInterrupt ends the workers at once, and what
    they had finished stays.
    """
    workers = _Workers(layout)
    threads = ThreadPoolExecutor(layout.workers, initializer=_leave_ctrl_c_to_the_parent)
    with environment_variables(variables(layout.portable)):  # inherited by the workers, whose torch reads them
        try:
            run_stages(stages, console, threads, workers.run)
        finally:
            workers.stop()
            threads.shutdown(wait=True, cancel_futures=True)
            workers.join()


class _Workers:
    """A process for each place of a layout, started with its first job and kept for the next ones.

    A place keeps its devices: where its process died, its next job starts another one there.
    """

    def __init__(self, layout: Layout) -> None:
        self.context = multiprocessing.get_context("spawn")
        resource_tracker.ensure_running()  # now: whichever thread starts it gets Ctrl-C unblocked
        self.stopped = self.context.RawValue("b", 0)  # no Event: its lock outlives a worker that is killed in a wait
        self.layout = layout
        self.pools: dict[int, ProcessPoolExecutor] = {}
        self.processes: dict[int, list[Any]] = {}
        self.free: PriorityQueue[int] = PriorityQueue()
        for place in range(layout.workers):
            self.free.put(place)

    def run(self, job: Job) -> tuple[str, float]:
        """A job in the first free place; BrokenProcessPool where its process dies."""
        place = self.free.get()
        try:
            if self.stopped.value:
                raise BrokenProcessPool("stopped")
            pool = self._pool(place)
            future = pool.submit(run_job, job)
            self.processes[place] = list(pool._processes.values())
            return future.result()
        except UserError:  # the process may not be as it was: a method may have changed torch's settings
            self.pools.pop(place).shutdown()
            raise
        except BrokenProcessPool as error:
            if place in self.pools:
                self.pools.pop(place).shutdown()
                error.add_note(_end_of(self.processes.get(place, ())))
            raise
        finally:
            self.free.put(place)

    def stop(self) -> None:
        """End all processes at once; no further one starts."""
        self.stopped.value = 1

    def join(self) -> None:
        """Wait for the end of all processes, when nobody runs jobs any more."""
        for pool in self.pools.values():
            pool.shutdown(wait=True, cancel_futures=True)

    def _pool(self, place: int) -> ProcessPoolExecutor:
        if place not in self.pools:
            seen = self.layout.devices[place] if self.layout.devices else None
            arguments = (os.getpid(), self.stopped, self.layout.threads, seen)
            self.pools[place] = ProcessPoolExecutor(1, self.context, initializer=_start_worker, initargs=arguments)
        return self.pools[place]


def run_stages(
    stages: Sequence[Sequence[Job]], console: Console, pool: Executor, run: Callable[[Job], tuple[str, float]]
) -> None:
    """`run` the jobs that are not done in a pool, stage after stage, as `run_jobs` says."""
    todo = [[job for job in stage if not job.done()] for stage in stages]
    skipped = sum(map(len, stages)) - sum(map(len, todo))
    if skipped:
        console.print(f"{skipped} of {sum(map(len, stages))} jobs are done already")
    if any(todo):
        with progress_bar(console) as bar:
            for stage in todo:
                _run_stage(pool, run, stage, bar)


def run_together(stages: Sequence[Sequence[Job]], ranks: Ranks, console: Console) -> None:
    """Run the jobs that are not done one after another, each by all the processes that torchrun started."""
    for job in (job for stage in stages for job in stage):
        if ranks.agreed(job.done()):
            continue
        start = time.perf_counter()
        with locked(job.folder) if ranks.is_leader else nullcontext():
            line = job.run()
        console.print(f"{job.name:<16} {line}  ({time.perf_counter() - start:.0f} s)", highlight=False)


def _run_stage(pool: Executor, run: Callable[[Job], tuple[str, float]], jobs: Sequence[Job], bar: Progress) -> None:
    overall = bar.add_task(f"{len(jobs)} jobs", total=sum(job.total for job in jobs))
    waiting: dict[Future[tuple[str, float]], Job] = {pool.submit(run, job): job for job in jobs}
    failures: list[tuple[Job, BaseException]] = []
    while waiting:
        finished, _ = wait(waiting, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        for future in finished:
            job = waiting.pop(future)
            if (error := future.exception()) is not None:
                failures.append((job, error))
                bar.console.print(said("failed", "red", f"{job.name}: {error}"), highlight=False)
            else:
                line, seconds = future.result()
                bar.console.print(f"{job.name:<16} {line}  ({seconds:.0f} s)", highlight=False)
        bar.update(overall, completed=sum(_units(job) for job in jobs))
    bar.remove_task(overall)
    if failures:
        job, error = failures[0]
        if isinstance(error, BrokenProcessPool):
            raise UserError(f"{job.name}: its worker process died{_how(error)}; the same command goes on from here")
        if isinstance(error, UserError):
            raise UserError(f"{job.name}: {error}") from error
        raise error


def _how(error: BrokenProcessPool) -> str:
    """How a worker died, where its place noted it."""
    return "".join(f" ({note})" for note in getattr(error, "__notes__", ()))


def _end_of(processes: Sequence[Any]) -> str:
    """How worker processes that are dead ended."""
    for process in processes:
        process.join(1)
        code = process.exitcode
        if code == -signal.SIGKILL:
            return "killed by signal 9: out of memory?"
        if code:
            return f"signal {-code}" if code < 0 else f"exit code {code}"
    return "no exit code"


def said(word: str, style: str, text: str) -> Text:
    """A line that begins with a word in colour; nothing in its text is markup."""
    return Text.assemble((f"{word:<8}", style), printable(text))


def _units(job: Job) -> int:
    return job.total if job.done() else min(job.finished_units(), job.total)
