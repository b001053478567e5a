"""A result beside the same one made again: whether they are the same bytes, and if not what differs and since when.

Compared is what a result's digest covers: settings, verdicts, lengths, curves, digests of weights and data. Costs and
environment are not part of it; the environment says what may be the reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from suite.records.files import flat
from suite.records.result import BASE
from suite.types import EvalResult, RunResult, Verdict

FIRST_STEP = 1e-3
"""How far the first step's curves may lie apart, relative (absolute below 1). Between AVX-512 and portable kernels, in
smoke's two cells, the farthest was the largest gradient norm of FSPO, 4.6e-5. Ours, 2026-11-29."""
FLIPPED = 0.01
"""Share of verdicts that rounding may turn where the weights are the same: only near ties turn. Ours, 2026-11-29."""
LEVEL = 0.95
RULE = (
    "Rule (ours, 2026-11-29): other kernels explain a cell if the method's settings, card and source are the recorded "
    f"ones, its first step agrees to {FIRST_STEP:g}, and its accuracy moved by no more than another seed moves it"
)
NOT_RECORDED = "not recorded"
HEADER = "first_rollouts"
"""A digest that also covers the commit; compared apart, under the recorded versions."""
CARD = "card"
_IGNORED = ("canary",)


@dataclass(frozen=True)
class MadeAgain:
    """One cell beside itself. `differs` is empty where all bytes are the same.

    notes: what differs without touching a number. reasons: what was recorded otherwise than it is here. noise: whether
    a change of kernels explains it, in a sentence.
    """

    name: str
    differs: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    noise: str = ""

    @property
    def same(self) -> bool:
        return not self.differs


def compared(
    name: str,
    stored: RunResult,
    made: RunResult,
    same_rollouts: bool,
    sources: tuple[str, str],
    others: Sequence[RunResult] = (),
) -> MadeAgain:
    """A stored result beside the one that was made again.

    same_rollouts: whether both began with the same rollouts. sources: digests of the method's source, then and now.
    others: the comparison's stored cells, which say how much a seed moves an accuracy.
    """
    settings, more = _settings(stored.config, made.config)
    outcomes = [*_digests(stored, made), *_curves(stored, made), *_accuracies(stored, made)]
    notes = [f"setting {setting}, which is not recorded" for setting in more if setting.startswith("hyper.")]
    notes += [
        f"curves that the stored result does not have: {', '.join(new)}" for new in [_new_curves(stored, made)] if new
    ]
    if not same_rollouts:
        (outcomes if outcomes else notes).insert(0, "the file of the first rollouts has other bytes")
    card = (stored.digests.get(CARD, NOT_RECORDED), made.digests.get(CARD, NOT_RECORDED))
    if card[0] != card[1] and not outcomes:
        notes.append(f"the method's card reads otherwise: {card[0]} -> {card[1]}")
    if not settings and not outcomes:
        return MadeAgain(name, notes=tuple(notes))
    told = [*_reasons(stored.environment, made.environment), *_changed("card of the method", card)]
    told += _changed("source of the method", sources)
    told += [f"canary: {made.environment['canary']}"] * (made.environment.get("canary", "same") != "same")
    another = [*settings, *_changed("card", card), *_changed("source", sources)]
    noise = _noise(stored, made, bool(another), others)
    return MadeAgain(name, (*settings, *outcomes), tuple(notes), tuple(told), noise)


def _changed(what: str, pair: tuple[str, str]) -> list[str]:
    return [] if pair[0] == pair[1] else [f"{what}: {pair[0]} -> {pair[1]}"]


def _settings(stored: Mapping[str, Any], made: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Settings that differ, in words; and `name = value` of those that only the younger result has."""
    then, now = flat(stored), flat(made)
    lines = [
        f"setting {name}: {value!r} -> {now.get(name, 'no such setting')!r}"
        for name, value in then.items()
        if name not in now or now[name] != value
    ]
    return lines, [f"{name} = {value!r}" for name, value in now.items() if name not in then]


def _digests(stored: RunResult, made: RunResult) -> Iterator[str]:
    """Weights, tokenizer and data whose digests differ."""
    for name, value in stored.digests.items():
        if name not in (HEADER, CARD) and made.digests.get(name) != value:
            yield f"{name.replace('_', ' ')}: {value[:10]} -> {str(made.digests.get(name))[:10]}"


def _new_curves(stored: RunResult, made: RunResult) -> list[str]:
    return [name for name in made.curves if name not in stored.curves]


def _curves(stored: RunResult, made: RunResult) -> Iterator[str]:
    """From which step on curves differ, and which do at that step; curves that are not made any more."""
    parted: dict[str, int] = {}
    for name, then in stored.curves.items():
        now = made.curves.get(name)
        if now is None:
            yield f"curve {name}: not made any more"
        elif list(then) != list(now):
            pairs = enumerate(zip(then, now, strict=False))
            parted[name] = next((i for i, (a, b) in pairs if a != b), min(len(then), len(now)))
    if not parted:
        return
    first = min(parted.values())
    there = [name for name, step in parted.items() if step == first]
    name = max(there, key=lambda n: _distance(_at(stored, n, first), _at(made, n, first)))
    a, b = (_at(run, name, first) for run in (stored, made))
    others = f" and {len(there) - 1} more" if len(there) > 1 else ""
    steps = len(stored.curves[name])
    yield f"curves part at step {first + 1} of {steps}: {name} {_said(a)} -> {_said(b)}{others}"


def _at(run: RunResult, name: str, step: int) -> float | None:
    curve = run.curves[name]
    return curve[step] if step < len(curve) else None


def _said(x: float | None) -> str:
    return "none" if x is None else f"{x:.6g}"


def _distance(a: float | None, b: float | None) -> float:
    """|a - b|, relative where |a| is above 1; infinite where only one is a number."""
    if a is None or b is None:
        return 0.0 if a is b else math.inf
    return abs(a - b) / max(1.0, abs(a))


def _accuracies(stored: RunResult, made: RunResult) -> Iterator[str]:
    """Per evaluation set with any difference: accuracy then and now, and how many responses differ."""
    now = {one.task: one for one in made.evals}
    for then in stored.evals:
        if then.task not in now:
            yield f"{then.task}: not evaluated any more"
        elif (one := now[then.task]) != then:
            if (then.task_version, then.data_digest, then.problem_ids) != (
                one.task_version,
                one.data_digest,
                one.problem_ids,
            ):
                versions = f"version {then.task_version} -> {one.task_version}"
                yield f"{then.task}: other problems or another grader ({versions})"
                continue
            verdicts, lengths = (_unequal(getattr(then, part), getattr(one, part)) for part in ("verdicts", "lengths"))
            yield (
                f"{then.task}: accuracy {100 * _accuracy(then):.2f} -> {100 * _accuracy(one):.2f} %, {verdicts} "
                f"verdicts and {lengths} lengths of {sum(map(len, then.verdicts))} responses differ"
            )


def _unequal(a: Sequence[Sequence[Any]], b: Sequence[Sequence[Any]]) -> int:
    return sum(x != y for row, other in zip(a, b, strict=True) for x, y in zip(row, other, strict=True))


def _accuracy(one: EvalResult) -> float:
    verdicts = [verdict for row in one.verdicts for verdict in row]
    return sum(verdict == Verdict.CORRECT for verdict in verdicts) / len(verdicts)


def _reasons(stored: Mapping[str, str], made: Mapping[str, str]) -> Iterator[str]:
    """Facts of the environment that differ, in the order of recording."""
    for name in dict.fromkeys([*stored, *made]):
        then, now = stored.get(name, NOT_RECORDED), made.get(name, NOT_RECORDED)
        if then != now and name not in _IGNORED:
            yield f"{name.replace('_', ' ')}: {then} -> {now}"


def _noise(stored: RunResult, made: RunResult, another: bool, others: Sequence[RunResult]) -> str:
    """Whether other kernels explain the difference, by RULE, and what decided it."""
    if another:
        return "not explained by other kernels: the method's settings, card or source are not the recorded ones"
    if [(e.task, e.data_digest) for e in stored.evals] != [(e.task, e.data_digest) for e in made.evals]:
        return "not explained by other kernels: the evaluation sets are not the recorded ones"
    if stored.method == BASE:
        flipped = sum(_unequal(a.verdicts, b.verdicts) for a, b in zip(stored.evals, made.evals, strict=True))
        share = flipped / sum(len(row) for e in stored.evals for row in e.verdicts)
        word = "within" if share <= FLIPPED else "beyond"
        return (
            f"{word} the noise of other kernels: {100 * share:.2f} % of the verdicts turned, at most {FLIPPED:.0%} do"
        )
    common = [name for name in stored.curves if name in made.curves]
    far = max((_distance(_at(stored, n, 0), _at(made, n, 0)), n) for n in common)
    if far[0] > FIRST_STEP:
        return f"beyond the noise of other kernels: already the first step's {far[1]} is {far[0]:.1e} away"
    moved = abs(_mean_accuracy(made) - _mean_accuracy(stored))
    bound, whence = _another_seed(stored, made, others)
    word = "within" if moved <= bound else "beyond"
    return (
        f"{word} the noise of other kernels: the first step agrees to {far[0]:.1e}, "
        f"mean accuracy moved by {100 * moved:.2f} points, and {whence} moves it by up to {100 * bound:.2f}"
    )


def _mean_accuracy(run: RunResult) -> float:
    return float(np.mean([_accuracy(one) for one in run.evals]))


def _another_seed(stored: RunResult, made: RunResult, others: Sequence[RunResult]) -> tuple[float, str]:
    """How far apart two seeds of one method lie, at most, in 95 of 100 cases, and what says so.

    t s sqrt(2), s the standard deviation over seeds, pooled over the methods. With one seed a method: 1.96 standard
    errors of the paired difference over problems.
    """
    groups: dict[str, list[float]] = {}
    for run in others:
        groups.setdefault(run.method, []).append(_mean_accuracy(run))
    freedom = sum(len(xs) - 1 for xs in groups.values())
    if freedom > 0:
        pooled = sum(float(np.var(xs, ddof=1)) * (len(xs) - 1) for xs in groups.values() if len(xs) > 1) / freedom
        return float(stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(2 * pooled), "another seed"
    variance = 0.0
    for a, b in zip(stored.evals, made.evals, strict=True):
        right = (np.array([[v == Verdict.CORRECT for v in row] for row in e.verdicts], float) for e in (a, b))
        change = np.subtract(*right).mean(axis=1)
        variance += float(change.var(ddof=1)) / len(change) if len(change) > 1 else 0.0
    return 1.96 * math.sqrt(variance) / len(stored.evals), "another draw of problems (there is one seed)"
