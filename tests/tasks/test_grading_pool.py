"""The processes behind the grader: nothing that happens to one of them costs a verdict of another question."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from suite.types import UserError, Verdict
from tasks import symbolic
from tasks.grading import grade
from tasks.symbolic import Question, SymbolicPool
from tasks.symbolic_process import Bounds
from tasks.symbolic_worker import WRITING, forbid

CORRECT, WRONG, UNDECIDED = Verdict.CORRECT, Verdict.WRONG, Verdict.UNDECIDED

FAULTY = """
import json, os, sys, time
from pathlib import Path

def fault(place, text):
    if text == "die":
        os._exit(1)
    if text == "die once" and not Path("died").exists():
        Path("died").touch()
        os._exit(1)
    if text == "hang":
        time.sleep(3600)
    while text == "spin":
        pass
    while text == "flood":
        os.write(1, b"x" * 4096)
    if text == "babble":
        os.write(1, b"true\\n")
    if text == "answer twice":
        os.write(1, f"{place} correct\\n".encode())
    start = time.process_time()
    while text == "work" and time.process_time() < start + 0.7:
        pass

os.write(1, b"ready\\n")
for line in sys.stdin:
    for place, kind, gold, text in json.loads(line):
        fault(place, text)
        os.write(1, f"{place} {'correct' if gold == text else 'wrong'}\\n".encode())
        if text == "retire":
            os.write(1, b"retired\\n")
            sys.exit()
"""
IMPATIENT = Bounds(cpu_seconds=1.0, idle_seconds=3.0)


def asked(pool: SymbolicPool, *pairs: tuple[str, str]) -> list[Verdict]:
    return pool.ask([Question("equal", gold, text) for gold, text in pairs])


def ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that its parent has yet to bury, before a long deadline."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.1)
    return False


@pytest.fixture
def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SymbolicPool]:
    """A pool of two whose workers do what a question says, however bad."""
    script = tmp_path / "worker.py"
    script.write_text(FAULTY)
    monkeypatch.chdir(tmp_path)
    pool = SymbolicPool(2, IMPATIENT, script)
    yield pool
    pool.close()


@pytest.mark.parametrize(
    "fault", ["die", "flood", "babble", *(pytest.param(f, marks=pytest.mark.slow) for f in ("hang", "spin"))]
)
def test_a_faulty_worker_is_replaced_and_the_others_never_notice(faulty: SymbolicPool, fault: str):
    pairs = [(str(i), str(i - i % 3)) for i in range(60)]
    pairs[17] = pairs[41] = ("7", fault)
    expected = [WRONG if i % 3 else CORRECT for i in range(60)]
    expected[17] = expected[41] = UNDECIDED
    assert asked(faulty, *pairs) == expected
    assert faulty.retried == 2
    assert asked(faulty, ("1", "1"), ("1", "2")) == [CORRECT, WRONG]


def test_an_undecided_question_is_asked_once_more_and_alone(faulty: SymbolicPool):
    assert asked(faulty, ("1", "1"), ("die once", "die once"), ("2", "1")) == [CORRECT, CORRECT, WRONG]
    assert faulty.retried == 1


def test_an_answer_too_many_belongs_to_no_other_question(faulty: SymbolicPool):
    """One worker, many in a batch: a spare `correct` must not become the verdict of a wrong row behind it."""
    faulty.workers = 1
    pairs = [("answer twice", "answer twice"), *[("1", "2")] * 40]
    assert asked(faulty, *pairs) == [CORRECT, *[WRONG] * 40]


def test_what_a_retired_worker_left_is_asked_again_without_blame(faulty: SymbolicPool):
    pairs = [("retire", "retire") if i % 5 == 0 else ("1", "2") for i in range(40)]
    assert asked(faulty, *pairs) == [WRONG if i % 5 else CORRECT for i in range(40)]
    assert faulty.retried == 0


def test_progress_is_told_once_a_question(faulty: SymbolicPool):
    told: list[int] = []
    faulty.ask([Question("equal", "1", text) for text in ("1", "die", "2", "die once")], told.append)
    assert sorted(told) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("program", "said"),
    [("print('cannot import math_verify', flush=True)", "cannot import math_verify"), ("raise SystemExit(1)", "ended")],
)
def test_a_pool_that_cannot_start_says_so(program: str, said: str, tmp_path: Path):
    script = tmp_path / "worker.py"
    script.write_text(program)
    with pytest.raises(UserError, match=said) as error:
        asked(SymbolicPool(2, IMPATIENT, script), ("1", "1"))
    assert "pip install" in str(error.value)


def test_what_no_worker_lives_to_say_is_undecided_and_never_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = tmp_path / "worker.py"
    script.write_text("print('ready', flush=True)\ninput()\n")
    pool = SymbolicPool(1, IMPATIENT, script)
    monkeypatch.setattr(symbolic, "own_pool", lambda: pool)
    pairs = [(rf"\boxed{{(x+{n})^2}}", f"x^2+{n}") for n in (91, 92)]
    assert grade([*pairs, (r"\boxed{3}", "3")]) == [UNDECIDED, UNDECIDED, CORRECT]
    pool.close()


@pytest.mark.slow
def test_many_questions_keep_every_worker_busy():
    pool = SymbolicPool(2)
    pairs = [(f"x^2+{2 * n}x+{n * n}", f"(x+{n + n % 2})^2") for n in range(1, 81)]
    assert asked(pool, *pairs) == [WRONG, CORRECT] * 40
    assert len(pool.pids) == 2
    used = [sum(psutil.Process(pid).cpu_times()[:2]) for pid in pool.pids]
    assert min(used) > 0.2 * max(used)
    pool.close()
    assert pool.pids == []


@pytest.mark.slow
def test_an_answer_out_of_time_is_undecided_and_the_next_row_is_not():
    pool = SymbolicPool(1, Bounds(cpu_seconds=1.0))
    assert asked(pool, ("8", "2^3")) == [CORRECT]
    first = pool.pids
    # The library's own time-outs turn the same answer into "wrong" after five seconds each.
    assert asked(pool, ("7", "(10^{8})!"), ("8", "2^3"), ("9", "2^3")) == [UNDECIDED, CORRECT, WRONG]
    assert pool.pids != first
    assert asked(pool, ("8", "2^3"), ("9", "2^3")) == [CORRECT, WRONG]
    pool.close()


@pytest.mark.slow
def test_a_busy_machine_gives_the_verdicts_of_an_idle_one(faulty: SymbolicPool):
    """Work of 0.7 CPU seconds under a bound of 1, where its share of a core makes many seconds of it."""
    spinners = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(8 * symbolic.cores())]
    try:
        assert asked(faulty, *[("work", "work"), ("1", "work")] * 2) == [CORRECT, WRONG] * 2
        assert faulty.retried == 0
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


@pytest.mark.slow
def test_an_answer_out_of_memory_is_undecided():
    pool = SymbolicPool(1, Bounds(memory_bytes=64 << 20))  # less than the libraries alone
    assert asked(pool, ("7", r"\sqrt{2}+x")) == [UNDECIDED]
    pool.close()


@pytest.mark.slow
def test_a_large_parent_does_not_count_as_the_workers_memory():
    ballast = bytearray(os.urandom(1 << 20) * 1300)  # a trainer with a real model is this large when it starts a worker
    pool = SymbolicPool(1)
    assert asked(pool, ("204", "90+154")) == [WRONG]
    pool.close()
    del ballast


def test_a_worker_killed_from_outside_is_replaced():
    pool = SymbolicPool(1)
    assert asked(pool, ("8", "2^3")) == [CORRECT]
    [killed] = pool.pids
    os.kill(killed, signal.SIGKILL)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    assert asked(pool, ("8", "2^3")) == [CORRECT]
    assert pool.pids != [killed]
    pool.close()


def test_the_worker_may_read_but_not_write_or_start_anything():
    forbid("open", ("module.py", "r", os.O_RDONLY | os.O_CLOEXEC))
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_CREAT):
        assert flags & WRITING
        with pytest.raises(PermissionError):
            forbid("open", ("pwned", "w", flags))
    for event in ("os.system", "os.remove", "os.posix_spawn", "subprocess.Popen", "socket.connect"):
        with pytest.raises(PermissionError):
            forbid(event, ())


@pytest.mark.slow
def test_a_pool_of_daemonic_children_grades_while_the_parent_has_workers():
    pairs = [(r"\boxed{(x+1)^2}", "x^2+2x+1"), (r"\boxed{(x+3)^2}", "x^2+6x+1")]
    grade(pairs)
    assert grade([(r"\boxed{(x+13)^2}", "x^2+26x+169")]) == [CORRECT]
    mine = symbolic.own_pool().pids
    with multiprocessing.get_context("fork").Pool(2) as pool:
        # Other pairs than the parent's: those it remembers would not reach a worker.
        asked = [[(rf"\boxed{{(x+{n})^2}}", f"x^2+{2 * n}x+{n * n}"), (rf"\boxed{{x+{n}}}", "x")] for n in (4, 5)]
        assert pool.map(grade, asked) == [[CORRECT, WRONG]] * 2
    assert symbolic.own_pool().pids == mine
    assert grade([(r"\boxed{(x+7)^2}", "x^2+14x+49")]) == [CORRECT]


def test_threads_get_their_own_verdicts():
    asked = [[(rf"\boxed{{(x+{n + n % 2})^2}}", f"x^2+{2 * n}x+{n * n}")] for n in range(20, 40)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(grade, asked))
    assert found == [[CORRECT], [WRONG]] * 10


@pytest.mark.slow
@pytest.mark.parametrize("end", ["os._exit(1)", "os.kill(os.getpid(), 9)", "raise KeyboardInterrupt", "pass"])
def test_workers_end_with_their_process_however_it_ends(end: str):
    """Even while a forked child of that process keeps its pipes open."""
    program = (
        "import os, sys, time\nfrom tasks import symbolic\n"
        "symbolic.own_pool().workers = 2\n"
        "symbolic.own_pool().start()\n"
        "child = os.fork()\n"
        "if child == 0:\n    time.sleep(600)\n    os._exit(0)\n"
        f"print(child, *symbolic.own_pool().pids, flush=True)\n{end}\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert process.stdout is not None
    child, *workers = map(int, process.stdout.readline().split())
    try:
        process.wait()
        assert len(workers) == 2
        assert all(ended(pid) for pid in workers)
    finally:
        os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_a_worker_of_a_grid_has_as_many_workers_as_threads():
    with multiprocessing.get_context("spawn").Pool(1, initializer=_one_thread) as pool:
        assert pool.apply(symbolic.cores) == 1
    assert symbolic.cores() == len(os.sched_getaffinity(0))


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
