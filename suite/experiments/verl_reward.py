"""`compute_score` for verl's reward processes: the suite's grader, and bounds that no response gets past.

verl calls it for one response at a time, from several threads of several processes. What threads of one process ask
meanwhile is graded together, in processes of `tasks.symbolic` that a hostile answer can only end. Needs torch, psutil
and math-verify, none of the suite's other dependencies.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from suite.policy.stop_texts import before_stop
from suite.types import Problem, UserError, Verdict
from tasks import TASKS
from tasks.symbolic import cores, own_pool


@dataclass
class WaitingResponse:
    """A response that waits for its verdict, or for the error that took its place."""

    problem: Problem
    response: str
    verdict: Verdict | None = None
    error: Exception | None = None


class Grader:
    """Grades what several threads ask: whoever comes first takes all that wait, so that none waits behind another."""

    def __init__(self) -> None:
        self._waiting: list[WaitingResponse] = []
        self._guard, self._working = threading.Lock(), threading.Lock()

    def verdict(self, problem: Problem, response: str) -> Verdict:
        """The verdict that training and evaluation of the suite give; raises what the grader raised."""
        asked = WaitingResponse(problem, response)
        with self._guard:
            self._waiting.append(asked)
        with self._working:
            if asked.verdict is None and asked.error is None:
                with self._guard:
                    together, self._waiting = self._waiting, []
                _grade(together)
        if asked.verdict is None:
            raise asked.error or RuntimeError(f"{problem.id}: no verdict")
        return asked.verdict


def _grade(together: list[WaitingResponse]) -> None:
    for name in dict.fromkeys(asked.problem.task for asked in together):
        task, rows = TASKS[name], [asked for asked in together if asked.problem.task == name]
        try:
            verdicts = task.grade([(before_stop(asked.response, task.stop), asked.problem) for asked in rows])
        except Exception as error:  # each thread raises it where its own caller sees it
            for asked in rows:
                asked.error = error
        else:
            for asked, verdict in zip(rows, verdicts, strict=True):
                asked.verdict = verdict


_grader = Grader()


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: Mapping[str, Any] | None = None, **rest: Any
) -> dict[str, float]:
    """verl's reward of one response: `score` and `acc` are 1 where the verdict is CORRECT, else 0.

    `data_source` is the task, `ground_truth` the gold answer. `no_answer` and `undecided` are 1 where that was the
    verdict, so that verl's averages are their shares. UserError for a task that the suite does not have, and where
    math-verify does not start.
    """
    if data_source not in TASKS:
        raise UserError(f"data_source {data_source!r}: no task of the suite; there are: {', '.join(TASKS)}")
    where = str((extra_info or {}).get("id", data_source))
    problem = Problem(where, "", ground_truth, data_source, TASKS[data_source].version)
    verdict = _grader.verdict(problem, solution_str)
    correct = float(verdict is Verdict.CORRECT)
    undecided, no_answer = float(verdict is Verdict.UNDECIDED), float(verdict is Verdict.NO_ANSWER)
    return {"score": correct, "acc": correct, "no_answer": no_answer, "undecided": undecided}


def require_grader(versions: Mapping[str, str], side_by_side: int) -> None:
    """Check that this is the grader that the data files were written for, and take this process's share of the cores.

    `versions` are those of the tasks, `side_by_side` is how many processes grade on one machine. UserError where
    math-verify is missing, or a task has another version here.
    """
    if importlib.util.find_spec("math_verify") is None:
        raise UserError("math-verify is not installed here; run pip install 'math-verify==0.9.*'")
    for name, version in versions.items():
        here = TASKS[name].judged_version if name in TASKS else None
        if here != version:
            raise UserError(f"task {name}: version {here} here, {version} in the data files; export them again")
    own_pool().workers = max(1, cores() // side_by_side)
