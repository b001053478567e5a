"""The embedded tasks: arithmetic whose worked solutions run from 2 to about 80 tokens, generated from a seed.

Every line of working is made from the line before it and says how much is left, so a small model can learn each family
in a minute, and a solution is as long as the problem is big:

    recurrence  04@3,5;     03@5,8;02@8,3;01@3,1;00@1,4=4       next two digits of u(k) = u(k-1) + u(k-2) mod 10
    equation    3x+5=14;    3x09,00;3x06,01;3x03,02;3x00,03=3   what is left of 3x, and how often 3 was taken from it
    gcd         84,36;      48,36;12,36;12,24;12,12=12          the smaller is taken from the larger until they agree
    recurrence_long         more steps than any trained problem; evaluation only

A problem is in the evaluation split when a hash of its text says so: no size of either split can make them share one.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.types import Problem, Task, UserError, Verdict

ALPHABET = "0123456789+=,;@x"
VERSION = "1"
SEPARATOR = "="
EVAL_PROBLEMS = 100
TRAIN_PROBLEMS = 600
_EVAL_SHARE = 5  # one problem in five
_POOL_SEED = 2509


@dataclass(frozen=True)
class Worked:
    """A problem as the model sees it, its worked solution, and the answer that ends the solution."""

    prompt: str
    solution: str
    gold: str


@dataclass(frozen=True)
class Family:
    """A kind of problem: `make(rng, size)` draws one; sizes are uniform."""

    name: str
    sizes: range
    make: Callable[[random.Random, int], Worked]
    max_new_tokens: int
    trainable: bool = True


def recurrence(rng: random.Random, steps: int) -> Worked:
    """u(k) = u(k-1) + u(k-2) mod 10 from two given digits, `steps` times; the counter runs down to 00."""
    older, newer = rng.randrange(10), rng.randrange(10)
    prompt, lines = f"{steps:02}@{older},{newer};", []
    for left in reversed(range(steps)):
        older, newer = newer, (older + newer) % 10
        lines.append(f"{left:02}@{older},{newer}")
    return _worked(prompt, lines, newer)


def equation(rng: random.Random, unknown: int) -> Worked:
    """a x + b = c below 100: b leaves c, then a is taken away until nothing is left; the count is x."""
    slope = rng.randint(1, 9)
    offset = rng.randint(0, 9)
    lines = [f"{slope}x{slope * (unknown - taken):02},{taken:02}" for taken in range(unknown + 1)]
    return _worked(f"{slope}x+{offset}={slope * unknown + offset:02};", lines, unknown)


def gcd(rng: random.Random, subtractions: int) -> Worked:
    """The greatest common divisor of two numbers below 100 by repeated subtraction."""
    pair = rng.choice(_pairs_by_subtractions()[subtractions])
    lines = [f"{a:02},{b:02}" for a, b in _euclid(*pair)]
    return _worked(f"{pair[0]:02},{pair[1]:02};", lines, math.gcd(*pair))


def _worked(prompt: str, lines: Sequence[str], answer: int) -> Worked:
    return Worked(prompt, f"{';'.join(lines)}{SEPARATOR}{answer}", str(answer))


def _euclid(a: int, b: int) -> Iterator[tuple[int, int]]:
    """The pairs after each subtraction."""
    while a != b:
        a, b = (a - b, b) if a > b else (a, b - a)
        yield a, b


@functools.cache
def _pairs_by_subtractions() -> dict[int, list[tuple[int, int]]]:
    pairs: dict[int, list[tuple[int, int]]] = {}
    for a, b in itertools.product(range(1, 100), repeat=2):
        pairs.setdefault(sum(1 for _ in _euclid(a, b)), []).append((a, b))
    return pairs


FAMILIES = (
    Family("recurrence", range(0, 11), recurrence, 112),
    Family("equation", range(0, 10), equation, 112),
    Family("gcd", range(0, 13), gcd, 112),
    Family("recurrence_long", range(12, 18), recurrence, 176, trainable=False),
)


def is_eval(prompt: str) -> bool:
    """Whether a problem belongs to the evaluation split: a function of its text alone."""
    return hashlib.sha256(prompt.encode()).digest()[0] % _EVAL_SHARE == 0


def worked_examples(seed: int) -> Iterator[tuple[str, str]]:
    """Endless (prompt, worked solution) pairs of the trained families in turn, train split only, repeats possible."""
    rng = random.Random(f"worked/{seed}")
    streams = [_draws(family, "train", rng) for family in FAMILIES if family.trainable]
    for stream in itertools.cycle(streams):
        worked = next(stream)
        yield worked.prompt, worked.solution


def grade(pairs: Sequence[tuple[str, Problem]]) -> list[Verdict]:
    """CORRECT where the text after the last `=` (all of it without one) is the answer, character for character.

    Else WRONG where there is such a text, and NO_ANSWER where there is no `=` or nothing behind the last.
    """
    return [_verdict(*text.rpartition(SEPARATOR)[1:], problem.gold) for text, problem in pairs]


def answer(response: str, problem: Problem) -> str | None:
    """What `grade` compares with the gold answer, None where it says NO_ANSWER."""
    _, separator, text = response.rpartition(SEPARATOR)
    return text if text and (separator or text == problem.gold) else None


def _verdict(separator: str, answer: str, gold: str) -> Verdict:
    if answer == gold:
        return Verdict.CORRECT
    return Verdict.WRONG if separator and answer else Verdict.NO_ANSWER


def _draws(family: Family, split: str, rng: random.Random) -> Iterator[Worked]:
    """Endless problems of one split, sizes uniform; the split is drawn by rejection."""
    while True:
        worked = family.make(rng, rng.choice(family.sizes))
        if is_eval(worked.prompt) == (split == "eval"):
            yield worked


@functools.cache
def _load(family: Family, split: str) -> tuple[Problem, ...]:
    wanted = {"train": TRAIN_PROBLEMS, "eval": EVAL_PROBLEMS}.get(split)
    if wanted is None:
        raise UserError(f"task {family.name}: unknown split {split!r}; choose train or eval")
    if split == "train" and not family.trainable:
        raise UserError(f"task {family.name}: it is for evaluation only; train on another one")
    found: dict[str, Worked] = {}
    for worked in _draws(family, split, random.Random(f"{_POOL_SEED}/{family.name}/{split}")):
        found.setdefault(worked.prompt, worked)
        if len(found) == wanted:
            break
    return tuple(
        Problem(f"{family.name}/{split}/{i}", w.prompt, w.gold, family.name, VERSION, w.solution)
        for i, w in enumerate(found.values())
    )


def _task(family: Family) -> Task:
    def load(split: str, data_dir: Path | None = None) -> list[Problem]:
        return list(_load(family, split))

    return Task(
        name=family.name,
        version=VERSION,
        source="ours: generated by tasks/embedded_tasks.py",
        load=load,
        render=lambda problem: problem.prompt,
        question=lambda problem: problem.prompt,
        grade=grade,
        stop=(),
        max_new_tokens=family.max_new_tokens,
        trainable=family.trainable,
        answer=answer,
    )


TASKS: tuple[Task, ...] = tuple(_task(family) for family in FAMILIES)
