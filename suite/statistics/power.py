"""How many seeds and samples a claim needs: variance components of finished runs, put into other designs and priced.

A design is a number of training seeds and of samples per problem, on the problems that the runs were evaluated on. It
finds a true difference of D points where (t(.975) + t(.8)) standard errors <= D: 80 % power, two-sided 5 %. Its cost is
that of training every seed of a model anew, and of evaluating it with that many samples, in the seconds the runs took.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import pandas as pd

from suite.config import MEAN
from suite.records.costs import SECONDS
from suite.records.result import BASE
from suite.statistics.variance import Components, components, minimum_detectable, planned_error
from suite.types import EvalResult, RunResult, UserError, Verdict

SEEDS = tuple(range(2, 31))
SAMPLES = (1, 2, 4, 8, 16, 32)
MOST_PROBLEMS = 10**6
BETWEEN_METHODS = "median over pairs of methods"


@dataclass(frozen=True)
class Rates:
    """Measured seconds: training one seed, and drawing and grading one response to every problem, of one model."""

    train: float
    sample: float

    def hours(self, models: int, seeds: int, samples: int) -> float:
        """Hours of `models` models, one cell after another: models x seeds x (training + samples x evaluation)."""
        return models * seeds * (self.train + samples * self.sample) / 3600


@dataclass(frozen=True)
class Design:
    """One row of the grid; detectable in points."""

    seeds: int
    samples: int
    detectable: float
    hours: float


Pairs = Mapping[tuple[str, str], Components]
"""Variance components of the paired difference, method minus reference."""


def pairs_of(base: RunResult, runs: Sequence[RunResult], outcome: str = MEAN) -> Pairs:
    """Components of each method against the base model and of every two methods, from the seeds that both have.

    `outcome` is one evaluation set, or the mean over all of them.
    UserError with fewer than two common seeds: one seed shows nothing of the noise of training.
    """
    by_method: dict[str, dict[int, RunResult]] = {}
    for run in runs:
        by_method.setdefault(run.method, {})[run.seed] = run
    found = {}
    for method, reference in [(m, BASE) for m in by_method] + list(itertools.combinations(by_method, 2)):
        other = None if reference == BASE else by_method[reference]
        seeds = [seed for seed in by_method[method] if other is None or seed in other]
        if len(seeds) < 2:
            raise UserError(f"{method} and {reference}: {len(seeds)} seed in common; a plan needs two seeds at least")
        differences = [_differences(by_method[method][seed], base if other is None else other[seed]) for seed in seeds]
        sets = differences[0] if outcome == MEAN else [outcome]
        found[method, reference] = components(
            {task: np.stack([by_task[task] for by_task in differences]) for task in sets}
        )
    return found


def _differences(run: RunResult, reference: RunResult) -> dict[str, np.ndarray]:
    """Difference of correctness, [problems, samples] for every set."""
    theirs = {result.task: result for result in reference.evals}
    for result in run.evals:
        other = theirs.get(result.task)
        if other is None or (result.data_digest, result.problem_ids) != (other.data_digest, other.problem_ids):
            raise UserError(f"{run.method} and {reference.method}: evaluated on other problems of {result.task}")
    return {result.task: _correct(result) - _correct(theirs[result.task]) for result in run.evals}


def _correct(result: EvalResult) -> np.ndarray:
    return np.array([[verdict == Verdict.CORRECT for verdict in row] for row in result.verdicts], dtype=float)


def chosen_pairs(pairs: Pairs, pair: str | None) -> tuple[str, Pairs]:
    """What the plan is about, in words, and its components: the pair "a,b", else all pairs of methods."""
    if pair is not None:
        first, _, second = (name.strip() for name in pair.partition(","))
        for names in ((first, second), (second, first)):
            if names in pairs:
                return f"{first} and {second}", {names: pairs[names]}
        known = ", ".join(dict.fromkeys(name for names in pairs for name in names))
        raise UserError(f"--pair {pair}: two of {known}, separated by a comma")
    between = {names: parts for names, parts in pairs.items() if names[1] != BASE}
    if between:
        return BETWEEN_METHODS, between
    return f"{next(iter(pairs))[0]} and {BASE}", dict(pairs)


def rates_of(runs: Sequence[RunResult]) -> Rates:
    """Mean seconds over all cells, from what the runs measured. UserError where a run kept no seconds."""
    train, sample = [], []
    for run in runs:
        seconds = {name.removeprefix(SECONDS): x for name, x in run.costs.items() if name.startswith(SECONDS)}
        if "evaluate" not in seconds or len(seconds) < 2:
            raise UserError(f"{run.method}, seed {run.seed}: its result has no seconds to plan with")
        sample.append(seconds.pop("evaluate") / len(run.evals[0].verdicts[0]))
        train.append(sum(seconds.values()))
    return Rates(float(np.mean(train)), float(np.mean(sample)))


def detectable(pairs: Pairs, seeds: int, samples: int, problems: Mapping[str, int] | None = None) -> float:
    """Smallest true difference found with 80 % power, in points; the median where there are several pairs."""
    errors = [planned_error(parts, seeds=seeds, samples=samples, problems=problems) for parts in pairs.values()]
    return 100 * median(minimum_detectable(*error) for error in errors)


def designs(
    pairs: Pairs, rates: Rates, models: int, seeds: Sequence[int] = SEEDS, samples: Sequence[int] = SAMPLES
) -> list[Design]:
    """The whole grid, the cheapest first."""
    grid = itertools.product(seeds, samples)
    found = [Design(s, k, detectable(pairs, s, k), rates.hours(models, s, k)) for s, k in grid]
    return sorted(found, key=lambda design: (design.hours, design.seeds))


def enough(found: Sequence[Design], detect: float) -> list[Design]:
    """The designs that find `detect` points, the cheapest first; of each number of samples the one of fewest seeds."""
    able = [design for design in found if design.detectable <= detect]
    best = {k: min((d for d in able if d.samples == k), key=lambda d: d.seeds) for k in {d.samples for d in able}}
    return sorted(best.values(), key=lambda design: (design.hours, design.seeds))


def problem_share(pairs: Pairs, seeds: int, samples: int) -> float:
    """Share of the design's error variance that no further seed or sample removes: what the problems leave."""
    shares = []
    for parts in pairs.values():
        floor = sum(max(one.problem, 0) / one.problems for one in parts.sets.values()) / len(parts.sets) ** 2
        error, _ = planned_error(parts, seeds=seeds, samples=samples)
        shares.append(floor / error**2 if error > 0 else 0.0)
    return median(shares)


def times_problems(pairs: Pairs, seeds: int, samples: int, detect: float) -> int | None:
    """By how much every set must grow for that design to find `detect` points; None where no growth does."""
    sizes = {task: one.problems for task, one in next(iter(pairs.values())).sets.items()}
    factor = 2
    while max(sizes.values()) * factor <= MOST_PROBLEMS:
        if detectable(pairs, seeds, samples, {task: size * factor for task, size in sizes.items()}) <= detect:
            return factor
        factor += 1 + factor // 8
    return None


def design_table(rows: Sequence[Design], hours_of: str) -> pd.DataFrame:
    """Designs as text."""
    return pd.DataFrame(
        {
            "seeds": [str(row.seeds) for row in rows],
            "samples per problem": [str(row.samples) for row in rows],
            "finds a difference of": [f"{row.detectable:.2f}" for row in rows],
            hours_of: [f"{row.hours:.2f}" for row in rows],
        }
    )


def power_sentence(about: str, pairs: Pairs, found: Sequence[Design], detect: float, hours_of: str) -> str:
    """What the plan says, in one or two plain sentences."""
    able = enough(found, detect)
    if able:
        best = able[0]
        return (
            f"To find a true difference of {detect:g} points ({about}) with 80 % power: {best.seeds} seeds a model and "
            f"{best.samples} samples a problem, {best.hours:.2f} {hours_of}."
        )
    widest = min(found, key=lambda design: design.detectable)
    share = problem_share(pairs, widest.seeds, widest.samples)
    words = (
        f"No design up to {widest.seeds} seeds and {widest.samples} samples finds a true difference of {detect:g} "
        f"points ({about}): the smallest that one finds is {widest.detectable:.2f}."
    )
    if share < 0.5:
        return f"{words} The seeds limit it: more of them would help."
    total = sum(one.problems for one in next(iter(pairs.values())).sets.values())
    factor = times_problems(pairs, widest.seeds, widest.samples, detect)
    need = f"{factor} times as many would do" if factor else "no number of problems alone would do"
    return f"{words} The {total} problems limit it ({share:.0%} of its variance): more seeds do not help, {need}."
