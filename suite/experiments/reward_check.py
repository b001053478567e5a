"""What every reward owes, whatever it rewards: the properties behind `fspo method check-reward`.

They are tried on problems of the user's own, with answers right and wrong, and with texts that a policy may well write.

Source: ours.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from suite.experiments.own_rewards import FULL, OwnReward
from suite.types import Problem, UserError

MOST_PROBLEMS = 50
"""Problems that are tried: the first so many."""
HUGE = 200_000
"""Characters of a huge text, above what a response of 32,768 tokens has."""
HOSTILE = (
    *("", " ", "\n\n", "\0", "\x1b[2J", "\u202e\u200b\ufffd", "nan", "-inf", "1e999", "0/0", "٣", "ﬁ½²"),
    *("{" * 5000, "(" * 5000 + ")" * 5000, "\\boxed{" * 1000, "\\frac{1}{0}", "$$\\\\", "{}%s{0}{x}", "[a-z]*+(?:("),
    *("__import__('os').abort()", "raise SystemExit", "</answer><answer>", "= " * 5000),
    *("9" * HUGE, "word " * (HUGE // 5), "1+" * (HUGE // 2) + "1"),
)
"""Texts that nobody means: none, control characters, numbers that are none, brackets without an end, very long ones."""

Pair = tuple[str, Problem]


@dataclass(frozen=True)
class Owed:
    """One property of a reward: `reason` is None where it holds."""

    check: str
    reason: str | None = None


@dataclass(frozen=True)
class CheckedReward:
    """The properties, and what is told beside them. `full`: problems whose gold answer is right in some form."""

    owed: tuple[Owed, ...]
    problems: int
    full: int
    calls: int
    mean_seconds: float
    slowest_seconds: float


def texts_for(problem: Problem, problems: Sequence[Problem]) -> list[str]:
    """Responses to a problem as they come: its answer in several forms, another problem's answer, a half sentence."""
    other = problems[(problems.index(problem) + 1) % len(problems)].gold
    return [*gold_forms(problem), other, f"So the answer is {other}", f"{problem.prompt} {other}", "I do not know"]


def gold_forms(problem: Problem) -> list[str]:
    """The gold answer in the forms that the suite's own prompts ask for, and the worked solution where there is one."""
    gold = problem.gold
    return [gold, f"\\boxed{{{gold}}}", f"#### {gold}", *([problem.solution] if problem.solution else [])]


def checked_reward(reward: OwnReward, problems: Sequence[Problem], low: float, high: float) -> CheckedReward:
    """Every property of a reward on the first problems; nothing that it raises is swallowed, the reason has it."""
    problems = problems[:MOST_PROBLEMS]
    plain = [(text, problem) for problem in problems for text in texts_for(problem, problems)]
    hostile = [(text, problems[i % len(problems)]) for i, text in enumerate(HOSTILE)]
    seconds: list[float] = []
    found: dict[Pair, float | str] = {}
    for pair in [*plain, *hostile]:
        start = time.perf_counter()
        found[pair] = _reward(reward, pair)
        seconds.append(time.perf_counter() - start)
    pairs = list(found)
    again = {pair: _reward(reward, pair) for pair in pairs}
    backwards = {pair: _reward(reward, pair) for pair in reversed(pairs)}
    numbers = {pair: value for pair, value in found.items() if not isinstance(value, str)}
    outside = next((pair for pair, value in numbers.items() if not low <= value <= high), None)
    answered = {numbers[pair] for pair in plain if pair in numbers}
    owed = (
        Owed("a finite number or a verdict for answers right and wrong", _first_broken(found, plain)),
        Owed("a finite number or a verdict for empty, huge and hostile text", _first_broken(found, hostile)),
        Owed(f"from {low:g} to {high:g}", None if outside is None else f"{numbers[outside]:g} for {_shown(outside)}"),
        Owed("the same for the same text", _first_other(found, again)),
        Owed("the same in another order", _first_other(found, backwards)),
        Owed("not one number for every answer", _told_apart(answered)),
    )
    full = [p for p in problems if any(numbers.get((form, p), -1.0) >= FULL for form in gold_forms(p))]
    return CheckedReward(owed, len(problems), len(full), len(seconds), sum(seconds) / len(seconds), max(seconds))


def _reward(reward: OwnReward, pair: Pair) -> float | str:
    """The reward of a text, or why there is none."""
    try:
        return reward.of(*pair)[1]
    except UserError as error:
        return str(error).rpartition(";")[0]


def _first_broken(found: dict[Pair, float | str], pairs: Sequence[Pair]) -> str | None:
    broken = next((pair for pair in pairs if isinstance(found[pair], str)), None)
    return None if broken is None else f"{found[broken]}; the text is {_shown(broken)}"


def _first_other(found: dict[Pair, float | str], others: dict[Pair, float | str]) -> str | None:
    pair = next((pair for pair, value in found.items() if others[pair] != value), None)
    return None if pair is None else f"{found[pair]}, then {others[pair]}, for {_shown(pair)}"


def _told_apart(rewards: Collection[float]) -> str | None:
    """Why nothing can be learned from rewards; None where there are two different ones."""
    return None if len(rewards) > 1 else f"always {next(iter(rewards)):g}" if rewards else "no number at all"


def _shown(pair: Pair) -> str:
    """A text and its problem, short."""
    text, problem = pair
    start = f"{text[:40]!r}..., {len(text)} characters" if len(text) > 40 else repr(text)
    return f"{start} (problem {problem.id!r})"
