"""Where the variance of a mean over training seeds, problems and samples comes from, and what another design has.

A score x[s, p, k] (a verdict, or the difference of two verdicts) of training seed s, problem p and decoding sample k is

    x[s, p, k] = mean + seed[s] + problem[p] + seed_problem[s, p] + shared_sample[p, k] + sample[s, p, k]

with independent parts. `shared_sample` is the noise of decoding that all seeds have in common: a base model is sampled
once for all of them, and evaluations of one protocol draw the same token noise whatever was trained.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

LEVEL = 0.95
POWER = 0.8

Cells = Mapping[str, np.ndarray]
"""Per evaluation set a matrix [seeds, problems]; the quantity is the mean over the sets of each set's mean."""


@dataclass(frozen=True)
class SetComponents:
    """Variances within one set, of single problems, cells and samples. Estimates: they can fall below 0."""

    problems: int
    problem: float
    seed_problem: float
    sample: float
    shared_sample: float


@dataclass(frozen=True)
class SeedDoubt:
    """What the other quantities of a comparison say of how much a quantity's seeds differ.

    variance: of the mean of a single seed, pooled over the quantities of one kind; the larger of it and the quantity's
    own counts. alone: there was nothing to pool, and degrees of freedom are at most S - 1.
    """

    variance: float = 0.0
    alone: bool = False


@dataclass(frozen=True)
class Components:
    """Variances behind the mean over the sets: `seed` of the mean of one seed, the others set by set."""

    seeds: int
    samples: int
    seed: float
    sets: Mapping[str, SetComponents]


def components(samples: Mapping[str, np.ndarray]) -> Components:
    """Unbiased estimates of the variance components, from one array [seeds, problems, samples] per set.

    Mean squares of the cell means m[s, p] (two-way analysis of variance, one value a cell), less the noise of decoding,
    which the covariance of samples over seeds splits into shared and own:

        own = S/(S - 1) (W - B),   shared = W - own        W: variance over k of x,  B: of its mean over the seeds
        seed_problem = MS(interaction) - own/K,   problem = (MS(problems) - MS(interaction))/S - shared/K
        seed = var(seed means of the mean over sets) - sum over sets of MS(interaction)/(P sets^2)

    With one sample noise cannot be told from what it disturbs: both sample parts are 0, so more samples seem to help
    nothing. Raises ValueError with fewer than two seeds or problems, or sets of unequal seeds or samples.
    Source: Henderson's method 1 (analysis of variance); the split of the noise is ours.
    """
    shapes = {array.shape[::2] for array in samples.values()}
    if len(shapes) != 1:
        raise ValueError(f"sets need equally many seeds and samples, found {sorted(shapes)}")
    seeds, draws = shapes.pop()
    if seeds < 2 or min(array.shape[1] for array in samples.values()) < 2:
        raise ValueError("variance components need two seeds and two problems at least")
    seed_means = np.mean([array.mean(axis=(1, 2)) for array in samples.values()], axis=0)
    seed, found = float(seed_means.var(ddof=1)), {}
    for task, array in samples.items():
        problems = array.shape[1]
        between, interaction = mean_squares(array.mean(axis=2))
        own, shared = _noise(array)
        seed -= interaction / problems / len(samples) ** 2
        found[task] = SetComponents(
            problems=problems,
            problem=(between - interaction) / seeds - shared / draws,
            seed_problem=interaction - own / draws,
            sample=own,
            shared_sample=shared,
        )
    return Components(seeds, draws, seed, found)


def mean_squares(cells: np.ndarray) -> tuple[float, float]:
    """Mean squares of problems and of the interaction, of a matrix [seeds, problems] with at least two of each."""
    seeds, problems = cells.shape
    by_problem, by_seed = cells.mean(axis=0), cells.mean(axis=1)
    left = cells - by_problem - by_seed[:, None] + cells.mean()
    return float(seeds * by_problem.var(ddof=1)), float((left**2).sum() / ((seeds - 1) * (problems - 1)))


def _noise(array: np.ndarray) -> tuple[float, float]:
    """Variance of a single sample: each seed's own part, and the part that all seeds share."""
    seeds, _, draws = array.shape
    if draws < 2:
        return 0.0, 0.0
    within = float(array.var(axis=2, ddof=1).mean())
    of_mean = float(array.mean(axis=0).var(axis=1, ddof=1).mean())
    own = seeds / (seeds - 1) * (within - of_mean)
    return own, within - own


def planned_error(
    parts: Components, *, seeds: int, samples: int, problems: Mapping[str, int] | int | None = None
) -> tuple[float, float]:
    """Standard error of the mean over the sets under another design, and its degrees of freedom.

        error^2 = seed/S + sum over sets of [ (problem + shared_sample/K)/P + (seed_problem + sample/K)/(S P) ] / sets^2

    `problems` of each set, of every set, or (None) as many as measured. Components below 0 count as 0. The degrees of
    freedom are Welch and Satterthwaite's, as `error_of` has them for a finished comparison.
    """
    count = len(parts.sets)
    by_seed, by_problem, interactions, sizes = max(parts.seed, 0.0) / seeds, [], [], []
    for task, one in parts.sets.items():
        size = one.problems if problems is None else problems if isinstance(problems, int) else problems[task]
        cell = (max(one.seed_problem, 0.0) + max(one.sample, 0.0) / samples) / (seeds * size * count**2)
        problem = (max(one.problem, 0.0) + max(one.shared_sample, 0.0) / samples) / (size * count**2)
        by_seed += cell
        by_problem.append(problem + cell)
        interactions.append(cell)
        sizes.append(size)
    return error_of(by_seed, by_problem, interactions, seeds, sizes)


def seed_means(cells: Cells) -> np.ndarray:
    """The mean over the sets of every seed, [seeds]."""
    return np.mean([matrix.mean(axis=1) for matrix in cells.values()], axis=0)


def seed_doubt(quantities: Iterable[Cells]) -> SeedDoubt:
    """Seed variance pooled over quantities of one kind, such as the differences of every two methods of a comparison.

        mean over the quantities of var(seed means)

    Of all differences of every two methods on the same seeds this is twice the mean square of the residuals of methods
    by seeds. Those with a single seed say nothing. With fewer than two that say something nothing is pooled.

    Pooling alone, with its many degrees of freedom, covers too little where one method's seeds differ more than the
    others'; a pair's own variance alone covers too little with two or three seeds, where it is small by chance. The
    larger of the two keeps the family-wise error: results/family_error (`python -m benchmarks.family_error`).
    """
    found = [float(seed_means(cells).var(ddof=1)) for cells in quantities if len(next(iter(cells.values()))) > 1]
    return SeedDoubt(float(np.mean(found))) if len(found) > 1 else SeedDoubt(alone=True)


def measured_error(cells: Cells, doubt: SeedDoubt | None = None) -> tuple[float, float]:
    """Standard error of a mean from its matrices [seeds, problems], and its degrees of freedom; see `error_of`.

    With a `doubt` the seeds' variance is the larger of the quantity's own and the pooled one, with the S - 1 degrees of
    freedom of its own; see `seed_doubt`.
    """
    count, seeds = len(cells), len(next(iter(cells.values())))
    by_problem, interactions, sizes = [], [], []
    for matrix in cells.values():
        problems = matrix.shape[1]
        between = float(matrix.mean(axis=0).var(ddof=1)) if problems > 1 else 0.0
        both = mean_squares(matrix)[1] if seeds > 1 and problems > 1 else 0.0
        by_problem.append(between / problems / count**2)
        interactions.append(both / (seeds * problems) / count**2)
        sizes.append(problems)
    by_seed = float(seed_means(cells).var(ddof=1)) / seeds if seeds > 1 else 0.0
    if doubt is not None and seeds > 1:
        by_seed = max(by_seed, doubt.variance / seeds)
    error, df = error_of(by_seed, by_problem, interactions, seeds, sizes)
    return error, min(df, seeds - 1) if doubt is not None and doubt.alone and seeds > 1 else df


def error_of(
    by_seed: float, by_problem: Sequence[float], interaction: Sequence[float], seeds: int, problems: Sequence[int]
) -> tuple[float, float]:
    """Standard error and degrees of freedom from the variances of seed means, problem means and their interaction.

        error^2 = by_seed + sum by_problem - sum interaction     (never less than the interaction alone)
        df = error^4 / (by_seed^2/(S - 1) + sum by_problem^2/(P - 1) + sum interaction^2/((S - 1)(P - 1)))

    Each is a variance of the mean over the sets: by_seed = var(seed means)/S, by_problem = var(problem means)/P/sets^2
    and interaction = MS(interaction)/(S P)/sets^2; the interaction is in both of the others, hence the minus. df is inf
    where nothing varies. With one seed, by_seed and interaction are 0.
    """
    both = sum(interaction)
    problem_part = sum(max(part, cell) for part, cell in zip(by_problem, interaction, strict=True))
    variance = max(by_seed, both) + problem_part - both
    doubt = by_seed**2 / max(seeds - 1, 1)
    for part, cell, size in zip(by_problem, interaction, problems, strict=True):
        doubt += part**2 / max(size - 1, 1) + cell**2 / max((seeds - 1) * (size - 1), 1)
    return float(np.sqrt(variance)), variance**2 / doubt if doubt > 0 else float("inf")


def minimum_detectable(error: float, df: float, power: float = POWER, tests: int = 1) -> float:
    """The true difference that a two-sided test at 5 % finds with this power: (t(.975) + t(power)) standard errors.

    With several `tests` the level is that of the first step of Holm's correction, 5 % over their number.

    >>> round(minimum_detectable(1.0, float("inf")), 2), round(minimum_detectable(1.0, 2.0), 2)
    (2.8, 5.36)
    """
    return float((stdtrit(df, 1 - (1 - LEVEL) / 2 / tests) + stdtrit(df, power)) * error)
