"""`fspo status` reads off a folder what its jobs do: their states, numbers and the time left, and changes nothing."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from suite.commands.status import lines_of
from suite.config import CompareConfig
from suite.evaluation.sample_store import Sample, SampleStore
from suite.experiments.progress import SILENCE, Progress, State, Status, seconds_left, status_of
from suite.experiments.recipes import recipe
from suite.records.comparison_folder import TRACEBACK, base_folder, cell_folder, claim_folder, rollouts_folder
from suite.records.files import LOCK, locked, write_atomically
from suite.records.result import write_result
from suite.records.run_log import FILE, RunLog, read_log
from suite.types import EvalResult, FinishReason, RunResult, UserError, Verdict

CONFIG = dataclasses.replace(recipe("smoke"), methods=("grpo", "fspo", "mine:LOSS"), seeds=(0, 1))


def logged(folder: Path, steps: int, seconds: float = 2.0) -> None:
    log = RunLog(folder, 0)
    for step in range(steps):
        log.append(step, {"reward/mean": step / 8, "seconds/sample": seconds / 2, "seconds/update": seconds / 2})


def finished(folder: Path, evaluation: float = 6.0, steps: int = 3) -> None:
    right, wrong = Verdict.CORRECT, Verdict.WRONG
    evals = (
        EvalResult("gcd", "1", "d", ("a", "b"), ((right,), (wrong,)), ((1,), (1,)), 0.0),
        EvalResult("equation", "1", "d", ("a",), ((wrong,),), ((1,),), 0.0),
    )
    curves = {"reward/mean": [0.25] * (steps - 1) + [0.75]} if steps else {}
    costs = {"seconds/evaluate": evaluation, **({"seconds/update": 3.0 * steps} if steps else {})}
    write_result(RunResult(1, folder.name, 0, {}, evals, curves, {}, costs, {}), folder)


def claimed(out: Path, config: CompareConfig = CONFIG) -> Path:
    claim_folder(config, out, ["fspo"], {})
    return out


def jobs(out: Path, now: float | None = None) -> dict[str, Progress]:
    (status,) = status_of(out, now)
    return {job.name: job for job in status.jobs}


def touched(folder: Path) -> Mapping[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in [folder, *folder.rglob("*")]}


def test_a_folder_that_is_empty_or_of_another_kind(tmp_path: Path) -> None:
    assert status_of(tmp_path) == []
    assert lines_of([], tmp_path) == [f"{tmp_path}: empty, nothing has begun"]
    with pytest.raises(UserError, match="no such folder; give the --out folder"):
        status_of(tmp_path / "absent")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="no comparison, training run or evaluation; give the --out folder"):
        status_of(tmp_path)


def test_every_state_is_told_from_the_files_and_the_kernels_locks(tmp_path: Path) -> None:
    out = claimed(tmp_path)
    finished(base_folder(out), steps=0)
    write_atomically(rollouts_folder(out, 0) / "first.json", "{}")
    cells = {job: cell_folder(out, *job) for job in (("grpo", 0), ("fspo", 0), ("mine:LOSS", 0), ("grpo", 1))}
    for folder in (cells["fspo", 0], cells["mine:LOSS", 0]):
        with locked(folder):
            logged(folder, 1)
    write_atomically(cells["mine:LOSS", 0] / TRACEBACK, "Traceback\n  File\nValueError: odd\n")
    finished(cells["grpo", 1])
    with locked(cells["grpo", 0]):
        logged(cells["grpo", 0], 2)
        before = touched(out)
        found = jobs(out)
        assert touched(out) == before
    states = {name: job.state.value for name, job in found.items()}
    assert states == {
        "base": "done",
        "rollouts seed 0": "done",
        "rollouts seed 1": "waiting",
        "grpo seed 0": "running",
        "fspo seed 0": "stopped",
        "mine:LOSS seed 0": "failed",
        "grpo seed 1": "done",
        "fspo seed 1": "waiting",
        "mine:LOSS seed 1": "waiting",
    }
    assert jobs(out)["grpo seed 0"].state == State.STOPPED, "its lock is gone"
    assert found["mine:LOSS seed 0"].problem.startswith("ValueError: odd (")
    running, last = found["grpo seed 0"], read_log(cells["grpo", 0])[-1]
    assert (running.steps, running.total, running.reward) == (2, CONFIG.train.steps, last["reward/mean"])
    assert running.since == (cells["grpo", 0] / LOCK).stat().st_mtime
    done = found["grpo seed 1"]
    assert (done.steps, done.reward, done.accuracy, done.step_seconds) == (3, 0.75, 0.25, 3.0)
    with locked(cells["mine:LOSS", 0]):
        assert jobs(out)["mine:LOSS seed 0"].state == State.RUNNING, "tried again"
        os.utime(cells["mine:LOSS", 0] / TRACEBACK, (0, 0))
    assert jobs(out)["mine:LOSS seed 0"].state == State.STOPPED, "the second try left no traceback"


def test_a_job_of_another_machine_runs_while_it_writes(tmp_path: Path) -> None:
    out = claimed(tmp_path)
    folder = cell_folder(out, "fspo", 1)
    logged(folder, 1)
    (folder / LOCK).write_text("gpu7")
    written = (folder / FILE).stat().st_mtime
    found = jobs(out, written + SILENCE - 1)["fspo seed 1"]
    assert (found.state, found.machine) == (State.RUNNING, "gpu7")
    assert jobs(out, written + SILENCE + 1)["fspo seed 1"].state == State.STOPPED


def test_a_file_that_was_altered_is_one_jobs_problem(tmp_path: Path) -> None:
    out = claimed(tmp_path)
    logged(cell_folder(out, "fspo", 0), 1)
    path = cell_folder(out, "fspo", 0) / FILE
    path.write_text(path.read_text().replace("1.0", "2.0"))
    found = jobs(out)
    assert (found["fspo seed 0"].state, found["grpo seed 0"].state) == (State.FAILED, State.WAITING)
    assert f"{path}, line 1: altered" in found["fspo seed 0"].problem


def cell(method: str, seed: int, state: State, steps: int, seconds: float | None, **more: float | None) -> Progress:
    return Progress(f"{method} seed {seed}", state, steps=steps, total=10, step_seconds=seconds, **more)  # pyright: ignore


def test_the_time_left_is_steps_and_evaluations_shared_by_what_runs() -> None:
    config = dataclasses.replace(CONFIG, methods=("grpo", "fspo"), seeds=(0, 1))
    done = cell("grpo", 0, State.DONE, 10, 2.0, evaluation_seconds=5.0)
    running, other = cell("fspo", 0, State.RUNNING, 4, 3.0), cell("grpo", 1, State.RUNNING, 0, None)
    waiting = cell("fspo", 1, State.WAITING, 0, None)
    left = {"fspo 0": 6 * 3.0 + 5, "grpo 1, as grpo 0": 10 * 2.0 + 5, "fspo 1, as fspo 0": 10 * 3.0 + 5}
    assert seconds_left(config, (done, running, other, waiting)) == pytest.approx(sum(left.values()) / 2)
    alone = seconds_left(
        config, (done, cell("grpo", 1, State.RUNNING, 9, 2.0), cell("fspo", 0, State.RUNNING, 0, 30.0))
    )
    assert alone == pytest.approx(10 * 30.0 + 5), "no cell ends before its own work"
    evaluating = dataclasses.replace(cell("fspo", 0, State.EVALUATING, 10, 3.0), responses=(75, 100))
    assert seconds_left(config, (done, evaluating)) == pytest.approx(0.25 * 5)
    assert seconds_left(config, (cell("grpo", 0, State.RUNNING, 0, None),)) is None
    assert seconds_left(config, (done,)) == 0


def test_an_evaluation_says_how_many_responses_it_has_and_its_time_left(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "samples")
    asked = {"samples": 2, "tasks": {"gcd": {"problems": 3}, "equation": {"problems": 1}}}
    with locked(tmp_path):
        store.claim({"asked": asked, "chunk": 2})
        row = Sample("gcd", "a", 0, 0, 1, "t", "p", "g", "r", (1,), FinishReason.STOP)
        store.add("gcd", 0, [row, dataclasses.replace(row, sample=1, place=1)])
        since = (tmp_path / LOCK).stat().st_mtime
        (found,) = status_of(tmp_path, since + 10)
        (job,) = found.jobs
        assert (job.state, job.responses) == (State.EVALUATING, (2, 8))
        assert found.seconds_left == pytest.approx(6 * 10 / 2)
    (found,) = status_of(tmp_path)
    assert (found.jobs[0].state, found.seconds_left, found.done) == (State.STOPPED, None, False)
    finished(tmp_path, steps=0)
    (found,) = status_of(tmp_path)
    assert (found.jobs[0].accuracy, found.seconds_left, found.done) == (0.25, 0.0, True)


def test_lines_fit_eighty_columns_and_obey_no_text_of_a_file() -> None:
    bad = Progress(
        "a_module_of_mine_with_a_long_name:LOSS seed 4000000000",
        State.FAILED,
        steps=1000,
        total=1000,
        step_seconds=12345.678,
        reward=-0.5,
        accuracy=1.0,
        problem="step 3: \x1b[31mred [bold]" + "word " * 60,
    )
    now = time.time()
    far = Progress("fspo seed 1", State.EVALUATING, now - 720, now - 40, "gpu7", 3, 3, 1.0, (1, 3))
    lines = lines_of([Status("smoke in " + "x" * 30, (far, bad), 7200.0)], Path("out"))
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)
    assert lines[0].startswith("smoke in ")
    assert "1 running, 1 failed; about 2.0 h left" in " ".join(lines[:2])
    assert any("evaluating 33%, 12 min" in line for line in lines)
    assert any("on gpu7, wrote " in line for line in lines)
