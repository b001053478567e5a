"""Jobs in processes: done ones are skipped, a failure stops nobody else, a dead worker and a held folder are named."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import pytest
from rich.console import Console
from rich.progress import Progress

from suite.experiments.layouts import VISIBLE, Layout
from suite.experiments.local_jobs import _Speed, run_job, run_jobs
from suite.types import UserError

pytestmark = pytest.mark.slow


class TwoParts(Exception):
    """An exception that pickle cannot bring back: its arguments are not those of its constructor."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} {other}")


@dataclass(frozen=True)
class Toy:
    """A job that leaves a file, tells what it sees, complains, waits for ever, or dies."""

    name: str
    home: Path
    fate: str = "well"
    total: int = 1

    @property
    def folder(self) -> Path:
        return self.home / self.name

    def done(self) -> bool:
        return (self.folder / "done").exists()

    def finished_units(self) -> int:
        return 0

    def run(self) -> str:
        if self.fate == "complains":
            raise UserError("no such thing")
        if self.fate == "raises":
            raise TwoParts("a [/red] b", "c")
        if self.fate == "exits":
            sys.exit(3)
        if self.fate == "ends":
            os._exit(7)
        if self.fate == "waits":
            (self.folder / "told").write_text(str(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, [])))
            signal.pause()
        if self.fate == "tells and dies":
            (self.folder / "told").write_text(os.environ[VISIBLE])
        if self.fate.endswith("dies"):
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fate == "tells":
            (self.folder / "told").write_text(f"{os.environ[VISIBLE]} {os.getpid()}")
        with open(self.folder / "done", "x") as file:
            file.write(str(os.getpid()))
        return "fine"


def run(*stages: list[Toy], workers: int = 2) -> str:
    console = Console(file=io.StringIO(), width=120)
    try:
        run_jobs(stages, Layout(workers, 1), console)
    finally:
        text = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_stages_run_and_done_jobs_are_skipped(tmp_path: Path) -> None:
    first, second = [Toy("a", tmp_path), Toy("b", tmp_path)], [Toy("c", tmp_path)]
    assert "fine" in run(first, second)
    assert all(job.done() for job in first + second)
    # A second run of any job would fail on the file that is there.
    assert "3 of 4 jobs are done already" in run(first, [*second, Toy("d", tmp_path)])


def test_a_job_that_another_program_finished_meanwhile_is_not_run_again(tmp_path: Path) -> None:
    job = Toy("a", tmp_path)
    assert run_job(job)[0] == "fine"
    written = (job.folder / "done").read_bytes()
    assert run_job(job)[0] == "finished by another program"
    assert (job.folder / "done").read_bytes() == written


def test_a_failed_job_is_named_and_stops_nobody_else_of_its_stage(tmp_path: Path) -> None:
    stage = [Toy("bad", tmp_path, "complains"), *(Toy(f"good{i}", tmp_path) for i in range(3))]
    later = Toy("later", tmp_path)
    with pytest.raises(UserError, match=r"^bad: no such thing$"):
        run(stage, [later], workers=1)
    assert [job.done() for job in stage] == [False, True, True, True]
    assert not later.done()


@pytest.mark.parametrize(
    ("fate", "said"),
    [
        ("raises", r"^bad: TwoParts: a \[/red\] b c; the traceback is in .*bad/error\.txt$"),
        ("exits", r"^bad: SystemExit: 3; the traceback is in .*bad/error\.txt$"),
        ("ends", r"^bad: its worker process died \(exit code 7\); the same command goes on from here$"),
    ],
)
def test_whatever_a_job_does_is_its_own_line_and_stops_nobody_else(tmp_path: Path, fate: str, said: str) -> None:
    stage = [Toy("bad", tmp_path, fate), *(Toy(f"good{i}", tmp_path) for i in range(2))]
    with pytest.raises(UserError, match=said):
        run(stage, workers=1)
    assert [job.done() for job in stage] == [False, True, True]


def test_a_worker_that_dies_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"victim: its worker process died \(killed by signal 9.*\); the same command goes on"
    ):
        run([Toy("victim", tmp_path, "dies")])


def told(stage: list[Toy]) -> list[str]:
    return [(job.folder / "told").read_text() for job in stage]


def test_every_worker_sees_its_own_devices(tmp_path: Path) -> None:
    """Three workers on two devices, all at work at once: the third shares the first one's device."""
    stage = [Toy(f"j{i}", tmp_path, "tells") for i in range(3)]
    console = Console(file=io.StringIO())
    run_jobs([stage], Layout(3, 1, ("GPU-aa", "1,2", "GPU-aa")), console)
    assert sorted(line.split()[0] for line in told(stage)) == ["1,2", "GPU-aa", "GPU-aa"]
    assert len({line.split()[1] for line in told(stage)}) == 3
    assert VISIBLE not in os.environ, "nothing is changed for the process that starts them"


def test_a_workers_death_stops_nobody_else_and_its_device_goes_to_the_next_job(tmp_path: Path) -> None:
    stage = [Toy("victim", tmp_path, "tells and dies"), *(Toy(f"next{i}", tmp_path, "tells") for i in range(3))]
    with pytest.raises(UserError, match=r"^victim: its worker process died \(killed by signal 9.*\); the same command"):
        run_jobs([stage], Layout(1, 1, ("5",)), Console(file=io.StringIO()))
    assert [line.split()[0] for line in told(stage)] == ["5"] * 4
    assert len({line.split()[1] for line in told(stage[1:])}) == 1, "the process that took the place is kept"


def test_ctrl_c_ends_the_workers_and_starts_no_further_job(tmp_path: Path) -> None:
    """Two jobs that would wait for ever, on two workers, and two that wait for a place."""
    stage = [Toy(f"j{i}", tmp_path, "waits") for i in range(4)]

    def interrupt() -> None:
        while not all((job.folder / "told").exists() for job in stage[:2]):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        run(stage)
    assert [(job.folder / "told").exists() for job in stage] == [True, True, False, False]
    assert [(job.folder / "told").read_text() for job in stage[:2]] == ["True"] * 2  # blocked since before its imports
    assert not multiprocessing.active_children()


def test_the_speed_of_a_finished_bar_is_that_of_its_own_time() -> None:
    now = [0.0]
    speed = _Speed("samples")
    bar = Progress(speed, get_time=lambda: now[0])
    first, second = (bar.add_task(name, total=20, start=False) for name in ("a", "b"))
    bar.start_task(first)
    bar.start_task(second)
    now[0] = 4.0
    bar.update(first, completed=20)
    bar.update(second, completed=10)
    now[0] = 40.0
    assert [speed.render(task).plain for task in bar.tasks] == ["5.00 samples/s", "0.25 samples/s"]
