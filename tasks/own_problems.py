"""Anybody's own problems: a JSON-lines file in the place of a task's name, to train on or to evaluate.

    FILE.jsonl           asked with four worked examples that box their answer
    FILE.jsonl@STYLE     asked in one of STYLES
    ...@MODULE:NAME      judged by a reward of the user's own (`suite.experiments.own_rewards`)

A row has `id`, `problem` and `answer`, all strings (an id or answer may be a number); `solution` may be there too. The
file is one set: as training problems and as evaluation problems it holds the same ones, and what stands in both is left
out of training. Graded by the common grader, or by that reward. The digest of its content is the set's version: results
of two contents are never mixed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from suite.types import OWN_PROBLEMS, Problem, Task, UserError, reward_of, task_name
from tasks.grading import GRADER, PROBLEM_PANEL, answer_to, grade_problems
from tasks.jsonl import OWN_PROBLEM, read_problems
from tasks.prompts import BOXED_STOP, SEVERAL_STEPS, STOP, boxed_few_shot, boxed_question, few_shot
from tasks.text import content_digest

NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
SPLITS = ("train", "eval")


@dataclass(frozen=True)
class Style:
    """How problems are asked: the text that a model continues, the bare question, where a response ends."""

    render: Callable[[Problem], str]
    question: Callable[[Problem], str]
    stop: tuple[str, ...]


def _bare(problem: Problem) -> str:
    return problem.prompt


STYLES = {
    "boxed": Style(lambda p: boxed_few_shot(p.prompt), lambda p: boxed_question(p.prompt), BOXED_STOP),
    "worked": Style(lambda p: few_shot(SEVERAL_STEPS, p.prompt), _bare, STOP),
    "plain": Style(_bare, _bare, ()),
}
"""boxed: as competition problems are asked here; worked: as gsm8k is; plain: the problem's text and nothing else."""


def is_own(reference: str) -> bool:
    """Whether a task's name is that of a file of somebody's own."""
    return reference.partition("@")[0].endswith(OWN_PROBLEMS)


def own_task(reference: str) -> Task:
    """The task that a file of problems makes. UserError names what is wrong with the file or with the name."""
    file, _, style = reference.removesuffix(f"@{reward_of(reference)}").partition("@")
    path, name = Path(file), task_name(reference)
    if style and style not in STYLES:
        raise UserError(f"task {reference}: style {style!r}; there are: {', '.join(STYLES)}")
    if not NAME.fullmatch(name):
        raise UserError(f"{path}: name the file with letters, digits, dots and dashes, for results are named after it")
    asked = STYLES[style or "boxed"]
    version = content_digest(read_problems(path, name, "", OWN_PROBLEM))[:12]

    def load(split: str, data_dir: Path | None) -> list[Problem]:
        if split not in SPLITS:
            raise UserError(f"task {name}: unknown split {split!r}; choose train or eval")
        return read_problems(path, name, version, OWN_PROBLEM)

    return Task(
        name=name,
        version=version,
        source=f"{path.name}, a file of the user's own",
        load=load,
        render=asked.render,
        question=asked.question,
        grade=grade_problems,
        stop=asked.stop,
        max_new_tokens=512,
        answer=answer_to,
        panel=PROBLEM_PANEL,
        grader=GRADER,
    )
