"""The embedded tasks: right answers, honest splits, lengths that span short to long, a grader that cannot be fooled."""

from __future__ import annotations

import math
import re
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.types import Problem, Task, UserError, Verdict
from tasks.embedded_tasks import ALPHABET, EVAL_PROBLEMS, FAMILIES, TASKS, TRAIN_PROBLEMS, is_eval, worked_examples

TRAINED = [task for task in TASKS if task.trainable]
HELD_OUT = [task for task in TASKS if not task.trainable]
SPLITS = [(task, split) for task in TASKS for split in ("train", "eval") if task.trainable or split == "eval"]
every_split = pytest.mark.parametrize(("task", "split"), SPLITS, ids=[f"{t.name}-{s}" for t, s in SPLITS])


def tokens(problem: Problem) -> int:
    """Tokens of the worked solution: its characters and the end token."""
    return len(problem.solution or "") + 1


def answer_by_another_way(task: Task, problem: Problem) -> int:
    """The answer from the prompt alone, by a rule that shares nothing with the generator."""
    numbers = [int(n) for n in re.findall(r"\d+", problem.prompt)]
    if task.name.startswith("recurrence"):
        steps, older, newer = numbers
        fibonacci = [0, 1]
        while len(fibonacci) < steps + 2:
            fibonacci.append(fibonacci[-1] + fibonacci[-2])
        return (fibonacci[steps] * older + fibonacci[steps + 1] * newer) % 10
    if task.name == "equation":
        slope, offset, total = numbers
        assert (total - offset) % slope == 0
        return (total - offset) // slope
    return math.gcd(*numbers)


@every_split
def test_gold_answers_are_right(task: Task, split: str) -> None:
    for problem in task.load(split, None):
        assert problem.gold == str(answer_by_another_way(task, problem)), problem


@every_split
def test_lines_of_working_follow_from_the_line_before(task: Task, split: str) -> None:
    for problem in task.load(split, None):
        working = (problem.solution or "").rpartition("=")[0]
        lines = [[int(n) for n in re.findall(r"\d+", line)] for line in working.split(";") if line]
        if task.name != "equation":
            lines = [[int(n) for n in re.findall(r"\d+", problem.prompt)], *lines]
        for before, after in pairwise(lines):
            if task.name == "equation":
                (slope, left, taken), now = before, after
                assert now == [slope, left - slope, taken + 1]
            elif task.name == "gcd":
                a, b = before
                assert after in ([a - b, b], [a, b - a])
                assert min(after) > 0
            else:
                left, older, newer = before
                assert after == [left - 1, newer, (older + newer) % 10]


@every_split
def test_split_has_its_size_and_no_problem_twice(task: Task, split: str) -> None:
    problems = task.load(split, None)
    assert len(problems) == {"train": TRAIN_PROBLEMS, "eval": EVAL_PROBLEMS}[split]
    assert len({p.prompt for p in problems}) == len({p.id for p in problems}) == len(problems)
    assert task.load(split, None) == problems
    assert all(p.task == task.name and p.task_version == task.version for p in problems)


def test_no_problem_is_in_both_splits() -> None:
    trained = {task.render(p) for task in TRAINED for p in task.load("train", None)}
    evaluated = {task.render(p) for task in TASKS for p in task.load("eval", None)}
    assert not trained & evaluated
    assert not any(map(is_eval, trained))
    assert all(map(is_eval, evaluated))


@pytest.mark.parametrize("seed", [0, 1])
def test_warm_up_sees_no_evaluation_problem(seed: int) -> None:
    examples = list(islice(worked_examples(seed), 20_000))
    evaluated = {p.prompt for task in TASKS for p in task.load("eval", None)}
    assert not evaluated & {prompt for prompt, _ in examples}
    assert not any(is_eval(prompt) for prompt, _ in examples)
    assert examples[:50] == list(islice(worked_examples(seed), 50)) != list(islice(worked_examples(seed + 1), 50))


def test_worked_solutions_differ_in_length_more_than_tenfold() -> None:
    assert len(TRAINED) >= 3
    for task in TRAINED:
        lengths = sorted(tokens(p) for p in task.load("train", None))
        assert lengths[0] <= 10
        assert lengths[-1] >= 8 * lengths[0]
        assert len(set(lengths)) >= 10
    overall = [tokens(p) for task in TRAINED for p in task.load("train", None)]
    assert max(overall) >= 10 * min(overall)


def test_held_out_family_is_longer_than_anything_trained() -> None:
    assert HELD_OUT
    longest = max(len(solution) + 1 for _, solution in islice(worked_examples(0), 20_000))
    for task in HELD_OUT:
        assert min(tokens(p) for p in task.load("eval", None)) > longest
        with pytest.raises(UserError, match="evaluation only"):
            task.load("train", None)


@every_split
def test_limit_leaves_headroom_and_text_stays_in_the_alphabet(task: Task, split: str) -> None:
    for problem in task.load(split, None):
        assert task.max_new_tokens >= 1.2 * tokens(problem)
        assert set(task.render(problem) + (problem.solution or "")) <= set(ALPHABET)
        assert task.question(problem)
    assert task.stop == ()


@every_split
def test_worked_solutions_are_correct_and_any_other_answer_is_wrong(task: Task, split: str) -> None:
    problems = task.load(split, None)
    assert set(task.grade([(p.solution or "", p) for p in problems])) == {Verdict.CORRECT}
    others = [f"{int(p.gold) + 1}" for p in problems]
    assert set(task.grade([(f"{p.solution}={o}", p) for p, o in zip(problems, others, strict=True)])) == {Verdict.WRONG}
    for spoil in (lambda s: s + "0", lambda s: s + ";"):
        assert set(task.grade([(spoil(p.solution or ""), p) for p in problems])) == {Verdict.WRONG}
    for spoil in (lambda s: s + "=", lambda s: s.rpartition("=")[0], lambda s: ""):
        assert set(task.grade([(spoil(p.solution or ""), p) for p in problems])) == {Verdict.NO_ANSWER}
    assert Verdict.CORRECT not in task.grade([((p.solution or "")[:-1], p) for p in problems])


@given(st.lists(st.text() | st.text("=3;"), max_size=4))
def test_grading_never_raises_and_keeps_order(texts: list[str]) -> None:
    problem = Problem("p", "3x+5=14;", "3", "equation", "1")
    verdicts = TASKS[0].grade([(text, problem) for text in texts])
    assert [v is Verdict.CORRECT for v in verdicts] == [text.split("=")[-1] == "3" for text in texts]
    assert [v is Verdict.NO_ANSWER for v in verdicts] == [
        text != "3" and ("=" not in text or text.endswith("=")) for text in texts
    ]


def test_unknown_split_says_what_there_is() -> None:
    with pytest.raises(UserError, match=r"unknown split 'test'; choose train or eval"):
        TASKS[0].load("test", None)


def test_each_family_has_enough_distinct_problems_of_every_size() -> None:
    for task, family in zip(TASKS, FAMILIES, strict=True):
        assert len({tokens(p) for p in task.load("eval", None)}) >= len(family.sizes) // 2
