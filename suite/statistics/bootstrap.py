"""Intervals for means over training seeds and problems: a crossed bootstrap, scaled to an unbiased error and a t.

One draw of seeds serves all sets (the same trained models are evaluated on all of them) and one draw of problems serves
all models, so differences keep their pairing. The samples of a problem are not drawn again: the problem means already
carry their noise, and drawing them too counts it twice (`three_level` in results/coverage: too wide where seeds differ
little, and no better than without where they differ much).

The plain crossed bootstrap is wrong both ways: it shows (S - 1)/S of the seeds' variance and no doubt about it, and
it counts what varies from cell to cell three times. It is kept for its shape; replicates are spread about the estimate
by a factor [ours]:

    sqrt(v / v_bootstrap) t(df) / z,    v and df of `suite.statistics.variance.measured_error`

Coverage, measured in nested binomial worlds, is in results/coverage (`python -m benchmarks.coverage`); that of the
differences of a comparison, which pool their seed variance, in results/family_error. One seed shows nothing of the
seeds' variance: its interval covers problems only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from suite.statistics.variance import LEVEL, Cells, SeedDoubt, measured_error, minimum_detectable

REPETITIONS = 10_000
INNER = 0.90
"""Level of the interval that two one-sided tests at 5 % go with."""
CHUNK_NUMBERS = 2_000_000


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 and 90 % intervals; all but value and seeds are nan where nothing varies.

    minimum_detectable is the true size that would be found with 80 % power at two-sided 5 %: (t(.975) + t(.8)) standard
    errors, 2.8 of them with many seeds. p is two-sided, from t(df), on the scale of the interval's half that faces 0:
    below .05 where the interval excludes 0, and nowhere else.
    """

    value: float
    low: float
    high: float
    low_90: float
    high_90: float
    standard_error: float
    minimum_detectable: float
    p: float
    df: float
    seeds: int


def bootstrap(
    quantities: Mapping[str, Cells],
    *,
    seed: int,
    repetitions: int = REPETITIONS,
    doubts: Mapping[str, SeedDoubt] | None = None,
) -> dict[str, Estimate]:
    """Estimates of named quantities, all under one common draw of seeds and of each set's problems.

    Matrices of one set must have equally many problems, in the same order; those of one quantity equally many seeds.
    `doubts` has what other quantities say of the seeds of some of them (`suite.statistics.variance.seed_doubt`).
    Raises ValueError otherwise, and for a quantity without sets. Source: pigeonhole bootstrap, Owen 2007; the scaling
    is ours.
    """
    for name, cells in quantities.items():
        if not cells or len({matrix.shape[0] for matrix in cells.values()}) != 1:
            raise ValueError(f"{name}: at least one set is needed, and equally many seeds in each")
    replicates = _replicates(quantities, seed, repetitions)
    known = doubts or {}
    return {name: _estimate(cells, replicates[name], known.get(name)) for name, cells in quantities.items()}


def _replicates(quantities: Mapping[str, Cells], seed: int, repetitions: int) -> dict[str, np.ndarray]:
    """Means of the resampled matrices, [repetitions] per quantity."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in quantities}
    for by_seed, by_task in draws(quantities, seed, repetitions):
        for name, cells in quantities.items():
            means = [
                np.einsum("rp,rp->r", by_seed[len(matrix)] @ matrix, by_task[task]) for task, matrix in cells.items()
            ]
            parts[name].append(np.mean(means, axis=0))
    return {name: np.concatenate(part) for name, part in parts.items()}


def draws(
    quantities: Mapping[str, Cells], seed: int, repetitions: int
) -> Iterator[tuple[dict[int, np.ndarray], dict[str, np.ndarray]]]:
    """Chunks of draws: by number of seeds the weights of seeds, by set those of problems, each [some, units].

    A weight is how often a unit is drawn, as a share. Raises ValueError when a set has two numbers of problems.
    """
    sizes: dict[str, int] = {}
    for name, cells in quantities.items():
        for task, matrix in cells.items():
            if sizes.setdefault(task, matrix.shape[1]) != matrix.shape[1]:
                raise ValueError(f"{name}: {matrix.shape[1]} problems in {task}, {sizes[task]} elsewhere")
    seed_counts = sorted({matrix.shape[0] for cells in quantities.values() for matrix in cells.values()})
    # A stream per set and per number of seeds: adding a set or a method changes no other interval.
    task_streams = {task: np.random.default_rng([seed, 0, *task.encode()]) for task in sizes}
    seed_streams = {count: np.random.default_rng([seed, 1, count]) for count in seed_counts}
    chunk = max(1, CHUNK_NUMBERS // max(sizes.values()))
    for start in range(0, repetitions, chunk):
        size = min(chunk, repetitions - start)
        by_task = {task: _weights(task_streams[task], count, size) for task, count in sizes.items()}
        by_seed = {count: _weights(seed_streams[count], count, size) for count in seed_counts}
        yield by_seed, by_task


def _weights(rng: np.random.Generator, count: int, size: int) -> np.ndarray:
    """How often each of `count` units is drawn, as a share, [size, count]."""
    return rng.multinomial(count, np.full(count, 1 / count), size=size) / count


def _estimate(cells: Cells, replicates: np.ndarray, doubt: SeedDoubt | None) -> Estimate:
    value = float(np.mean([matrix.mean() for matrix in cells.values()]))
    seeds = len(next(iter(cells.values())))
    factor, error, df = scaling(cells, replicates, doubt)
    if np.isnan(factor):
        return Estimate(value, *[float("nan")] * 8, seeds=seeds)
    low, high = _limits(value, replicates, factor, LEVEL)
    low_90, high_90 = _limits(value, replicates, scaling(cells, replicates, doubt, INNER)[0], INNER)
    half = max(value - low if value > 0 else high - value, 1e-9 * error)
    return Estimate(
        value=value,
        low=low,
        high=high,
        low_90=low_90,
        high_90=high_90,
        standard_error=error,
        minimum_detectable=minimum_detectable(error, df),
        p=float(2 * stdtr(df, -abs(value) / half * stdtrit(df, (1 + LEVEL) / 2))),
        df=df,
        seeds=seeds,
    )


def _limits(value: float, replicates: np.ndarray, factor: float, level: float) -> tuple[float, float]:
    low, high = np.quantile(value + factor * (replicates - value), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def scaling(
    cells: Cells, replicates: np.ndarray, doubt: SeedDoubt | None = None, level: float = LEVEL
) -> tuple[float, float, float]:
    """The factor that spreads replicates of the mean about it, the standard error, its degrees of freedom.

        factor = error / std(replicates) t((1 + level)/2, df) / z((1 + level)/2)

    All nan where nothing varies.
    """
    spread = float(replicates.std())
    if spread <= 1e-12:
        return float("nan"), float("nan"), float("nan")
    error, df = measured_error(cells, doubt)
    tail = (1 + level) / 2
    return float(error / spread * stdtrit(df, tail) / ndtri(tail)), error, df
