"""The embedded tasks: arithmetic whose worked solutions run from 2 to about 110 tokens, generated from a seed.

Every number but the answer has two digits, and the prompt ends with the first line of working, which the model goes on:

    recurrence  07@01:3;02:5;    03:8;04:3;05:1;06:4;07:5=5      each digit is the last of the sum of the two before; u(7)?
    equation    3x+04=13;00:04;  01:07;02:10;03:13=3             try x = 0, 1, 2, ... until both sides agree
    gcd         84,36;           48,36;12,36;12,24;12,12=12      take the smaller from the larger until they are equal
    gcd_long    more subtractions than any trained problem       evaluation only

A problem that is solved by its first line needs no working: the response is the answer alone.
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

ALPHABET = "0123456789+=,:;@x"
VERSION = "1"
SEPARATOR = "="
EVAL_PROBLEMS = 100
TRAIN_PROBLEMS = 1024
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
    """A kind of problem: `make(rng, size)` draws one, uniform over `sizes`."""

    name: str
    sizes: range
    make: Callable[[random.Random, int], Worked]
    max_new_tokens: int
    trainable: bool = True


def recurrence(rng: random.Random, steps: int) -> Worked:
    """u(k) = (u(k-1) + u(k-2)) mod 10 from two given digits; asks for u(steps + 2)."""
    values = [rng.randrange(10), rng.randrange(10)]
    for _ in range(steps):
        values.append((values[-1] + values[-2]) % 10)
    lines = [f"{k:02}:{value}" for k, value in enumerate(values, start=1)]
    return _worked(f"{len(values):02}@{lines[0]};{lines[1]};", lines[2:], values[-1])


def equation(rng: random.Random, unknown: int) -> Worked:
    """a x + b = c with every term below 100, solved by trying x = 0, 1, 2, ..."""
    slope = rng.randint(1, min(9, 99 // max(unknown, 1)))
    start = rng.randint(0, 99 - slope * unknown)
    lines = [f"{x:02}:{slope * x + start:02}" for x in range(unknown + 1)]
    return _worked(f"{slope}x+{start:02}={slope * unknown + start:02};{lines[0]};", lines[1:], unknown)


def gcd(rng: random.Random, subtractions: int) -> Worked:
    """The greatest common divisor of two numbers below 100 by repeated subtraction."""
    pair = rng.choice(_pairs_by_subtractions()[subtractions])
    lines = [f"{a:02},{b:02}" for a, b in _euclid(*pair)]
    return _worked(lines[0] + ";", lines[1:], math.gcd(*pair))


def _worked(prompt: str, lines: list[str], answer: int) -> Worked:
    return Worked(prompt, ";".join(lines) + f"={answer}" if lines else str(answer), str(answer))


def _euclid(a: int, b: int) -> Iterator[tuple[int, int]]:
    yield a, b
    while a != b:
        a, b = (a - b, b) if a > b else (a, b - a)
        yield a, b


@functools.cache
def _pairs_by_subtractions() -> dict[int, list[tuple[int, int]]]:
    pairs: dict[int, list[tuple[int, int]]] = {}
    for a, b in itertools.product(range(1, 100), repeat=2):
        pairs.setdefault(sum(1 for _ in _euclid(a, b)) - 1, []).append((a, b))
    return pairs


FAMILIES = (
    Family("recurrence", range(0, 20), recurrence, 160),
    Family("equation", range(0, 18), equation, 160),
    Family("gcd", range(0, 18), gcd, 160),
    Family("gcd_long", range(19, 26), gcd, 224, trainable=False),
)


def is_eval(prompt: str) -> bool:
    """Whether a problem belongs to the evaluation split: a function of its text alone."""
    return hashlib.sha256(prompt.encode()).digest()[0] % _EVAL_SHARE == 0


def sft_pairs(seed: int, count: int) -> list[tuple[str, str]]:
    """`count` (prompt, worked solution) pairs of the trained families in turn, train split only, repeats possible."""
    rng = random.Random(f"sft/{seed}")
    streams = [_draws(family, "train", rng) for family in FAMILIES if family.trainable]
    drawn = [next(streams[i % len(streams)]) for i in range(count)]
    return [(worked.prompt, worked.solution) for worked in drawn]


def grade(pairs: Sequence[tuple[str, Problem]]) -> list[Verdict]:
    """CORRECT where the text after the last `=` is the answer, character for character; else WRONG."""
    return [
        Verdict.CORRECT if text.rpartition(SEPARATOR)[2] == problem.gold else Verdict.WRONG for text, problem in pairs
    ]


def _draws(family: Family, split: str, rng: random.Random) -> Iterator[Worked]:
    """Endless problems of one split, sizes uniform; the split is drawn by rejection."""
    while True:
        worked = family.make(rng, min(rng.choice(family.sizes), rng.choice(family.sizes)))
        if is_eval(worked.prompt) == (split == "eval"):
            yield worked


@functools.cache
def _load(family: Family, split: str) -> tuple[Problem, ...]:
    wanted = {"train": TRAIN_PROBLEMS, "eval": EVAL_PROBLEMS}.get(split)
    if wanted is None:
        raise UserError(f"task {family.name}: unknown split {split!r}; choose train or eval")
    if split == "train" and not family.trainable:
        raise UserError(f"task {family.name}: it is for evaluation only; choose a trained one")
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
    return Task(
        name=family.name,
        version=VERSION,
        source="ours: generated by tasks/arithmetic.py",
        load=lambda split, data_dir=None: list(_load(family, split)),
        render=lambda problem: problem.prompt,
        question=lambda problem: problem.prompt,
        grade=grade,
        stop=(),
        max_new_tokens=family.max_new_tokens,
        trainable=family.trainable,
    )


TASKS: tuple[Task, ...] = tuple(_task(family) for family in FAMILIES)
