"""Word problems of one to eight steps, generated from a seed: everyday arithmetic in plain English.

A problem follows one amount through a story: somebody has 4 apples, buys 3, gives 2 away, shares the rest. Every step
is one sentence of the question and one line of the worked solution, so a solution is as long as the problem has steps.
Numbers are small, so that a model of 135 million parameters solves some of them before it is trained:

    Maya has 4 apples. She buys 3 more apples. She gives 2 apples to Omar. How many apples does Maya have now?
    4 + 3 = 7
    7 - 2 = 5
    #### 5

A friend in a story is of the other gender, so that "she" and "he" are one person. The splits share no problem and no
wording, though short solutions, being a few small numbers, recur: every sentence pattern belongs to the training split,
to the evaluation split or to the longer problems of `word_problems_long` (nine to twelve steps), which are for
evaluation only, and the examples of a prompt are in the wording of its split. Nothing was taken from a data set, so no
licence of others binds them; whether a model was trained on similar stories is not tested. The sets hold a fixed number
of problems, and `worked_problems` makes as many as are asked for.

    >>> first = next(worked_problems("any seed", steps={2: 1}, split="train"))
    >>> first.steps, first.solution.count("\\n"), first.solution.endswith(f"#### {first.gold}")
    (2, 2, True)
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.types import Problem, Task, UserError
from tasks.grading import GRADER, PROBLEM_PANEL, answer_to, grade_problems
from tasks.prompts import STOP, few_shot

NAME = "word_problems"
LONG = "word_problems_long"
VERSION = "1"
TRAIN_PROBLEMS = 4_000
"""How many the train split holds. `worked_problems` goes on for ever."""
EVAL_PROBLEMS = 400
LONG_PROBLEMS = 200
STEPS: Mapping[int, int] = {1: 12, 2: 5, 3: 2, 4: 1, 5: 1, 6: 1, 7: 1, 8: 1}
"""How often a problem has so many steps, in parts of their sum: most are short, so that a small model solves some."""
LONG_STEPS: Mapping[int, int] = dict.fromkeys(range(9, 13), 1)
LARGEST = 7
"""No amount of a story is larger."""
HARDER_FROM = 3
"""Multiplication and division occur in problems of so many steps."""
_SEED = 2509

NAMES = (
    ("Maya", "she", "her"),
    ("Omar", "he", "him"),
    ("Ines", "she", "her"),
    ("Tomas", "he", "him"),
    ("Lena", "she", "her"),
    ("Ravi", "he", "him"),
    ("Chloe", "she", "her"),
    ("Jonas", "he", "him"),
    ("Amina", "she", "her"),
    ("Pablo", "he", "him"),
)
"""Who the stories are about: name, and the pronoun as subject and as object."""
THINGS = (
    "apples",
    "stickers",
    "marbles",
    "pencils",
    "shells",
    "coins",
    "cards",
    "buttons",
    "candles",
    "books",
    "stones",
    "stamps",
)


@dataclass(frozen=True)
class Wordings:
    """The sentence patterns of one split: how a story starts, every kind of step, and the question at its end."""

    start: Sequence[str]
    add: Sequence[str]
    subtract: Sequence[str]
    multiply: Sequence[str]
    divide: Sequence[str]
    question: Sequence[str]


WORDINGS: Mapping[str, Wordings] = {
    "train": Wordings(
        start=("{name} has {n} {things}.", "{name} starts with {n} {things}."),
        add=(
            "{She} buys {n} more {things}.",
            "{She} finds {n} {things}.",
            "{She} gets {n} {things} from {friend}.",
            "{friend} gives {her} {n} {things}.",
        ),
        subtract=(
            "{She} sells {n} {things}.",
            "{She} loses {n} {things}.",
            "{She} gives {n} {things} to {friend}.",
            "{friend} borrows {n} {things}.",
        ),
        multiply=("Soon {she} has {n} times as many {things}.", "The {things} become {n} times as many."),
        divide=(
            "{She} splits the {things} into {n} equal piles and keeps one pile.",
            "{She} puts the {things} into {n} equal bags and keeps one bag.",
        ),
        question=("How many {things} does {name} have now?",),
    ),
    "eval": Wordings(
        start=("{name} has {n} {things} at home.", "One day {name} has {n} {things}."),
        add=(
            "{She} makes {n} more {things}.",
            "{She} buys another {n} {things}.",
            "{friend} brings {her} {n} more {things}.",
        ),
        subtract=(
            "{She} uses {n} {things}.",
            "{She} gives away {n} {things}.",
            "{friend} takes {n} {things}.",
        ),
        multiply=("A week later there are {n} times as many {things}.",),
        divide=("{She} shares the {things} equally between {n} people and keeps one share.",),
        question=("How many {things} does {name} have in the end?",),
    ),
    "long": Wordings(
        start=("At first {name} has {n} {things}.",),
        add=("The post brings {n} {things}.", "{She} draws {n} {things}.", "{friend} lends {her} {n} {things}."),
        subtract=("{She} breaks {n} {things}.", "A shop takes {n} {things}.", "{She} leaves {n} {things} on a bus."),
        multiply=("Then the number of {things} is {n} times as large.",),
        divide=("{She} lays the {things} on {n} trays, the same number on each, and takes one tray.",),
        question=("How many {things} does {name} have after all this?",),
    ),
}
"""Patterns by split; none occurs in two of them."""

_SOLUTIONS = ("4 + 3 = 7\n#### 7", "6 - 2 = 4\n#### 4", "7 - 4 = 3\n3 + 2 = 5\n#### 5", "3 + 3 = 6\n#### 6")
_QUESTIONS: Mapping[str, Sequence[str]] = {
    "train": (
        "Nora has 4 eggs. She buys 3 more eggs. How many eggs does Nora have now?",
        "Sam has 6 pens. He loses 2 pens. How many pens does Sam have now?",
        "Elif has 7 keys. She sells 4 keys. She finds 2 keys. How many keys does Elif have now?",
        "Ivan has 3 nails. He gets 3 nails from Rosa. How many nails does Ivan have now?",
    ),
    "eval": (
        "Nora has 4 eggs at home. She buys another 3 eggs. How many eggs does Nora have in the end?",
        "One day Sam has 6 pens. He uses 2 pens. How many pens does Sam have in the end?",
        "Elif has 7 keys at home. She gives away 4 keys. Max brings her 2 more keys. "
        "How many keys does Elif have in the end?",
        "One day Ivan has 3 nails. He makes 3 more nails. How many nails does Ivan have in the end?",
    ),
    "long": (
        "At first Nora has 4 eggs. The post brings 3 eggs. How many eggs does Nora have after all this?",
        "At first Sam has 6 pens. He breaks 2 pens. How many pens does Sam have after all this?",
        "At first Elif has 7 keys. A shop takes 4 keys. Max lends her 2 keys. "
        "How many keys does Elif have after all this?",
        "At first Ivan has 3 nails. The post brings 3 nails. How many nails does Ivan have after all this?",
    ),
}
EXAMPLES: Mapping[str, tuple[tuple[str, str], ...]] = {
    split: tuple(zip(questions, _SOLUTIONS, strict=True)) for split, questions in _QUESTIONS.items()
}
"""The worked examples of the prompts, in the wording of the split that they stand before, of names and things that no
problem has."""


@dataclass(frozen=True)
class Story:
    """One generated problem: the question, its worked solution and its answer."""

    question: str
    solution: str
    gold: str
    steps: int


def story(rng: random.Random, steps: int, wordings: Wordings) -> Story:
    """A problem of so many steps; all amounts are whole, at least 2 and at most LARGEST."""
    name, she, her = rng.choice(NAMES)
    friend = rng.choice([other for other, pronoun, _ in NAMES if pronoun != she])
    things = rng.choice(THINGS)
    said = functools.partial(_sentence, name=name, friend=friend, she=she, She=she.capitalize(), her=her, things=things)
    amount = rng.randint(2, LARGEST - 1)
    sentences, lines, before, pattern = [said(rng.choice(wordings.start), n=amount)], [], "", ""
    for _ in range(steps):
        easy = ("add", "subtract")
        kinds = [kind for kind in _possible(amount) if kind in easy or (steps >= HARDER_FROM and kind != before)]
        kind = rng.choice(kinds)
        number = _number(rng, kind, amount)
        pattern = rng.choice([one for one in getattr(wordings, kind) if one != pattern])
        sentences.append(said(pattern, n=number))
        sign, after = _DONE[kind](amount, number)
        lines.append(f"{amount} {sign} {number} = {after}")
        amount, before = after, kind
    sentences.append(said(rng.choice(wordings.question)))
    return Story(" ".join(sentences), "\n".join([*lines, f"#### {amount}"]), str(amount), steps)


_DONE = {
    "add": lambda amount, n: ("+", amount + n),
    "subtract": lambda amount, n: ("-", amount - n),
    "multiply": lambda amount, n: ("*", amount * n),
    "divide": lambda amount, n: ("/", amount // n),
}


def _possible(amount: int) -> list[str]:
    """The kinds of step that this amount allows; the easy two are three times as likely as the others."""
    kinds = []
    if amount <= LARGEST - 2:
        kinds += ["add"] * 3
    if amount >= 4:
        kinds += ["subtract"] * 3
    if 2 * amount <= LARGEST:
        kinds += ["multiply"]
    if _divisors(amount):
        kinds += ["divide"]
    return kinds


def _number(rng: random.Random, kind: str, amount: int) -> int:
    """What is added, taken away, or multiplied or divided by: from 2 on, and at least 2 are left."""
    if kind == "add":
        return rng.randint(2, min(4, LARGEST - amount))
    if kind == "subtract":
        return rng.randint(2, min(4, amount - 2))
    if kind == "multiply":
        return rng.randint(2, min(3, LARGEST // amount))
    return rng.choice(_divisors(amount))


def _divisors(amount: int) -> list[int]:
    return [n for n in range(2, 6) if amount % n == 0 and amount // n >= 2]


def _sentence(pattern: str, **words: object) -> str:
    return pattern.format(**words)


def worked_problems(seed: str, steps: Mapping[int, int], split: str) -> Iterator[Story]:
    """Endless problems of one split, repeats possible; `steps` as STEPS."""
    rng = random.Random(seed)
    while True:
        (count,) = rng.choices(list(steps), weights=list(steps.values()))
        yield story(rng, count, WORDINGS[split])


@functools.cache
def _load(name: str, split: str) -> tuple[Problem, ...]:
    if split not in ("train", "eval"):
        raise UserError(f"task {name}: unknown split {split!r}; choose train or eval")
    if name == LONG and split == "train":
        raise UserError(f"task {name}: it is for evaluation only; train on {NAME}")
    steps, patterns = (LONG_STEPS, "long") if name == LONG else (STEPS, split)
    wanted = TRAIN_PROBLEMS if split == "train" else LONG_PROBLEMS if name == LONG else EVAL_PROBLEMS
    found: dict[str, Story] = {}
    for one in worked_problems(f"{_SEED}/{name}/{split}", steps, patterns):
        found.setdefault(one.question, one)
        if len(found) == wanted:
            break
    return tuple(
        Problem(f"{name}/{split}/{i}-steps{one.steps}", one.question, one.gold, name, VERSION, one.solution)
        for i, one in enumerate(found.values())
    )


def steps_of(problem: Problem) -> str:
    """How many steps a problem has, in words: what its accuracy is shown by.

    >>> steps_of(Problem("word_problems/eval/7-steps3", "...", "5", "word_problems", "1"))
    ' 3 steps'
    """
    count = problem.id.rpartition("-steps")[2]
    return f"{count:>2} step{'' if count == '1' else 's'}"


def _asked(name: str, problem: Problem) -> str:
    """The prompt, with the examples of the problem's split; without an id, those of the evaluation."""
    split = "long" if name == LONG else "train" if problem.id.startswith(f"{name}/train/") else "eval"
    return few_shot(EXAMPLES[split], problem.prompt)


def _task(name: str, max_new_tokens: int, trainable: bool) -> Task:
    def load(split: str, data_dir: Path | None = None) -> list[Problem]:
        return list(_load(name, split))

    return Task(
        name=name,
        version=VERSION,
        source="ours: generated by tasks/word_problems.py",
        load=load,
        render=functools.partial(_asked, name),
        question=lambda problem: problem.prompt,
        grade=grade_problems,
        stop=STOP,
        max_new_tokens=max_new_tokens,
        trainable=trainable,
        answer=answer_to,
        panel=PROBLEM_PANEL,
        grader=GRADER,
        kind=steps_of,
    )


TASKS = (_task(NAME, 96, trainable=True), _task(LONG, 128, trainable=False))
