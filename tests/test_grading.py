"""The grader: where the answer is, when it is right, and that nothing a model writes can stop it."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.types import Problem, Verdict
from tasks import symbolic
from tasks.grading import equivalent, final_answer, grade, grade_problems
from tasks.symbolic import SymbolicWorker
from tasks.symbolic_worker import WRITING, forbid

CORRECT, WRONG, UNDECIDED = Verdict.CORRECT, Verdict.WRONG, Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("response", "gold", "answer"),
    [
        (r"\boxed{3} or rather \boxed{4}", "7", "4"),
        (r"\boxed{4} but #### 5", "7", "4"),
        (r"\boxed{\frac{1}{2}}", "7", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", "7", r"\{1, 2\}"),
        (r"\boxed{never closed, so 8", "7", "8"),
        ("#### 5\nthen #### 6\nand 9 more", "7", "6"),
        ("#### 18 dollars", "7", "18"),
        ("#### 18 or 19", "7", "18 or 19"),
        ("#### 18 apples or pears", "7", "18 apples or pears"),
        ("####\nthe answer is 6", "7", "6"),
        ("4 times 1,234 makes $4,936.", "7", "$4,936."),
        ("10-7", "3", "7"),
        ("so it is -7", "3", "-7"),
        ("it is −7 degrees", "3", "-7"),
        ("a share of 3/4", "1", "3/4"),
        ("a rise of 18%", "1", "18%"),
        ("no number at all", "7", None),
        ("", "7", None),
        ("so it is 7", "x+1", None),
    ],
)
def test_where_the_answer_is(response: str, gold: str, answer: str | None):
    assert final_answer(response, gold) == answer


@pytest.mark.parametrize(
    ("gold", "answer", "verdict"),
    [
        ("1234", "1,234", CORRECT),
        ("1,234", "1234", CORRECT),
        ("1234", r"1{,}234", CORRECT),
        ("1234", r"1\,234", CORRECT),
        ("1234", "1,23,4", WRONG),
        ("18", "$18", CORRECT),
        ("18", r"\$18.00", CORRECT),
        ("18", "$18$", CORRECT),
        ("18", "€ 18", CORRECT),
        ("-18", "-$18", CORRECT),
        ("18", "18.0", CORRECT),
        ("18", "018", CORRECT),
        ("18", "+18.", CORRECT),
        ("18", "18.01", WRONG),
        ("18", "-18", WRONG),
        ("18", "180", WRONG),
        ("18", "1 8", WRONG),
        ("0", "-0.0", CORRECT),
        ("0.5", ".5", CORRECT),
        ("0.5", "1/2", CORRECT),
        ("0.5", r"\dfrac{1}{2}", CORRECT),
        ("-0.5", r"-\frac{1}{2}", CORRECT),
        ("1/2", "2/4", CORRECT),
        ("1/2", "2/3", WRONG),
        ("1/3", "0.33", WRONG),
        ("1/2", "1/0", WRONG),
        ("18", "18%", CORRECT),
        ("18%", "18", CORRECT),
        ("0.18", r"18\%", CORRECT),
        ("18%", "0.18", CORRECT),
        ("0.18%", "18%", WRONG),
        ("18", "1800%", CORRECT),
        ("18", "0.18%", WRONG),
        ("18", "", WRONG),
        (r"\frac{1}{2}", r"\tfrac{1}{2}", CORRECT),
        (r"\left(1,2\right)", "(1,2)", CORRECT),
        ("x^2+2x+1", "(x+1)^2", CORRECT),
        ("x^2+2x+1", "(x+2)^2", WRONG),
        (r"\sqrt{8}", r"2\sqrt{2}", CORRECT),
        (r"\{1,2,3\}", r"\{3,1,2\}", CORRECT),
        ("(1,2)", "(2,1)", WRONG),
        ("18", r"18\text{ dollars}", CORRECT),
        ("7", "x=7", CORRECT),
        ("7", "7x", WRONG),
        ("7", "7 or 8", WRONG),
        ("7", "lambda: 7", WRONG),
        ("1" + "0" * 5000, "1" + "0" * 5000 + ".0", CORRECT),
        ("1" + "0" * 5000, "1" + "0" * 4999, WRONG),
        ("7", "9^{9^{9^{9}}}", UNDECIDED),
        ("7", "(" * 30 + "7" + ")" * 30, UNDECIDED),
        ("7", "1+" * 600 + "1", UNDECIDED),
        ("7", "7^{1000000}", UNDECIDED),
        ("7", "10000000!", UNDECIDED),
    ],
)
def test_when_an_answer_is_right(gold: str, answer: str, verdict: Verdict):
    assert equivalent(gold, answer) is verdict


@given(st.integers(-(10**12), 10**12), st.integers(0, 4), st.sampled_from(["{}", "${}", "{}.", "+{}"]))
def test_every_way_to_write_a_number_is_that_number_and_no_other(value: int, places: int, frame: str):
    text = f"{value:,}" + ("." + "0" * places if places else "")
    written = frame.format(text) if value >= 0 else text
    pairs = [(f"#### {written}", str(value)), (f"#### {written}", str(value + 1)), (f"#### {written}", str(-value - 1))]
    assert grade(pairs) == [CORRECT, WRONG, WRONG]


@given(st.decimals(-9999, 9999, places=3), st.decimals(-9999, 9999, places=3))
def test_decimals_are_compared_exactly(gold: Decimal, answer: Decimal):
    assert equivalent(str(gold), str(answer)) is (CORRECT if gold == answer else WRONG)


@given(st.text(max_size=200), st.sampled_from(["{}", "#### {}", r"\boxed{{{}}}", "{} 7", "#### 7{}"]))
def test_no_text_raises(text: str, frame: str):
    assert grade([(frame.format(text), "7")])[0] in set(Verdict)


def test_problems_are_graded_in_order():
    problems = [Problem(f"t/{i}", "?", str(i), "t", "1") for i in range(3)]
    assert grade_problems([("#### 1", p) for p in problems]) == [WRONG, CORRECT, WRONG]


def test_easy_answers_never_start_the_worker():
    symbolic.own_worker().close()
    verdicts = grade([(f"step {i}\n#### {i}", str(i - i % 2)) for i in range(1000)])
    assert verdicts == [CORRECT, WRONG] * 500
    assert symbolic.own_worker().pid is None


def test_hostile_answers(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rows = [json.loads(line) for line in (shared / "grading" / "hostile_answers.jsonl").read_bytes().splitlines()]
    monkeypatch.chdir(tmp_path)
    easy = [(r"\boxed{(x+1)^2}", "x^2+2x+1"), (r"\boxed{(x+2)^2}", "x^2+2x+1")]
    verdicts = grade([pair for row in rows for pair in [(row["response"], row["gold"]), *easy]])
    allowed = {"correct": {CORRECT}, "not_correct": {WRONG, UNDECIDED}, "any": set(Verdict)}
    found = {row["id"]: verdict for row, verdict in zip(rows, verdicts[::3], strict=True)}
    assert [row["id"] for row in rows if found[row["id"]] not in allowed[row["expected"]]] == []
    assert (verdicts[1::3], verdicts[2::3]) == ([CORRECT] * len(rows), [WRONG] * len(rows))
    assert list(tmp_path.iterdir()) == []


def test_an_answer_out_of_time_is_undecided_and_the_next_row_is_not():
    worker = SymbolicWorker(cpu_seconds=1.0)
    assert worker.equal("8", "2^3") is CORRECT
    first = worker.pid
    # The library's own time-outs turn the same answer into "wrong" after five seconds each.
    assert worker.equal("7", "(10^{8})!") is UNDECIDED
    assert worker.pid is None
    assert (worker.equal("8", "2^3"), worker.equal("9", "2^3")) == (CORRECT, WRONG)
    assert worker.pid != first
    worker.close()


def test_an_answer_out_of_memory_is_undecided():
    worker = SymbolicWorker(memory_bytes=64 << 20)  # less than the libraries alone
    assert worker.equal("7", r"\sqrt{2}+x") is UNDECIDED
    worker.close()


def test_a_large_parent_does_not_count_as_the_workers_memory():
    ballast = bytearray(os.urandom(1 << 20) * 1300)  # a trainer with a real model is this large when it starts a worker
    worker = SymbolicWorker()
    assert worker.equal("204", "90+154") is WRONG
    worker.close()
    del ballast


def test_a_worker_killed_from_outside_is_replaced():
    worker = SymbolicWorker()
    assert worker.equal("8", "2^3") is CORRECT
    killed = worker.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    os.waitid(os.P_PID, killed, os.WEXITED | os.WNOWAIT)
    assert worker.equal("8", "2^3") is CORRECT
    assert worker.pid != killed
    worker.close()


def test_the_worker_may_read_but_not_write_or_start_anything():
    forbid("open", ("module.py", "r", os.O_RDONLY | os.O_CLOEXEC))
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_CREAT):
        assert flags & WRITING
        with pytest.raises(PermissionError):
            forbid("open", ("pwned", "w", flags))
    for event in ("os.system", "os.remove", "os.posix_spawn", "subprocess.Popen", "socket.connect"):
        with pytest.raises(PermissionError):
            forbid(event, ())


def test_a_pool_of_daemonic_children_grades_while_the_parent_has_a_worker():
    pairs = [(r"\boxed{(x+1)^2}", "x^2+2x+1"), (r"\boxed{(x+3)^2}", "x^2+6x+1")]
    assert grade(pairs) == [CORRECT, WRONG]
    mine = symbolic.own_worker().pid
    with multiprocessing.get_context("fork").Pool(2) as pool:
        # Other pairs than the parent's: those it remembers would not reach a worker.
        asked = [[(rf"\boxed{{(x+{n})^2}}", f"x^2+{2 * n}x+{n * n}"), (rf"\boxed{{x+{n}}}", "x")] for n in (4, 5)]
        assert pool.map(grade, asked) == [[CORRECT, WRONG]] * 2
    assert symbolic.own_worker().pid == mine
    assert equivalent("x^2+14x+49", "(x+7)^2") is CORRECT


def test_threads_get_their_own_verdicts():
    asked = [(f"x^2+{2 * n}x+{n * n}", f"(x+{n + n % 2})^2") for n in range(20, 40)]
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda pair: equivalent(*pair), asked))
    assert found == [CORRECT, WRONG] * 10
