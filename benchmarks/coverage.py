"""Coverage of nominal 95 % intervals of one quantity, power and false alarms, in worlds whose truth is known.

    python -m benchmarks.coverage --out results/coverage

coverage.csv has a row for each world and number of seeds: the share of experiments whose interval holds the truth, by

ours         suite.statistics.bootstrap (for one accuracy on a small set: the Wilson limits of
suite.statistics.intervals) percentile   the plain crossed bootstrap over seeds and problems
three_level  the same with the samples of every drawn cell drawn again (fewer experiments: it is slow)

Each difference stands alone here: what a comparison pools over its pairs, and its verdicts, are in
benchmarks/family_error.py. power.csv: the share called "better" (the interval lies above 0) when the true difference is
0, and when it is what suite.statistics.variance says that 80 % would find. Binomial noise of these shares: "error", one
standard error.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import brentq

from benchmarks.worlds import World
from suite.records.provenance import write_provenance
from suite.report.markdown import write_csv
from suite.statistics.bootstrap import _replicates, bootstrap
from suite.statistics.intervals import effective_trials, wilson_limits
from suite.statistics.variance import LEVEL, components, minimum_detectable, planned_error

SEEDS = (2, 3, 4, 5, 10)
WORLDS = [
    *(World(kind, sd) for kind in ("base", "methods") for sd in (0.05, 0.15, 0.4)),
    *(World(kind, 0.15, common_noise=True) for kind in ("base", "methods")),
    *(World("accuracy", 0.15, problems=30, gain=gain) for gain in (0.0, -2.0)),
]
EXPERIMENTS, SLOW_EXPERIMENTS, REPETITIONS, SLOW_REPETITIONS = 600, 100, 500, 300
PILOTS = 6
TAILS = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]


def coverage(world: World, experiments: int, repetitions: int, seed: int, slow: int = 0) -> dict[str, float]:
    """Shares of experiments whose interval holds the truth, by kind of interval; all experiments share their draws."""
    rng = np.random.default_rng(seed)
    truth, samples = world.truth(rng), world.differences(rng, experiments)
    cells = {str(i): {"set": one.mean(axis=2)} for i, one in enumerate(samples)}
    found = bootstrap(cells, seed=seed, repetitions=repetitions)
    limits = np.array([(one.low, one.high) for one in found.values()])
    if world.kind == "accuracy":
        limits = np.array(
            [
                wilson_limits(one.value, effective_trials(one.value, one.standard_error), one.df)
                for one in found.values()
            ]
        )
    plain = np.array([np.quantile(drawn, TAILS) for drawn in _replicates(cells, seed, repetitions).values()])
    shares = {"ours": _share(limits, truth), "percentile": _share(plain, truth)}
    if slow:
        nested = [np.quantile(three_level(rng, one, SLOW_REPETITIONS), TAILS) for one in samples[:slow]]
        shares["three_level"] = _share(np.array(nested), truth)
    return shares | {"error": float(np.sqrt(LEVEL * (1 - LEVEL) / experiments)), "truth": truth}


def _share(limits: np.ndarray, truth: float) -> float:
    return float(np.mean((limits[:, 0] <= truth) & (truth <= limits[:, 1])))


def three_level(rng: np.random.Generator, samples: np.ndarray, repetitions: int) -> np.ndarray:
    """Means of [seeds, problems, samples] with seeds, problems and the samples of each drawn cell drawn again."""
    seeds, problems, draws = samples.shape
    means = []
    for _ in range(repetitions):
        rows, columns = rng.integers(seeds, size=(seeds, 1, 1)), rng.integers(problems, size=(1, problems, 1))
        means.append(samples[rows, columns, rng.integers(draws, size=samples.shape)].mean())
    return np.array(means)


def detectable(world: World, seed: int) -> float:
    """What suite.statistics.variance says that this design finds with 80 % power, from pilots of 400 seeds and 1,500
    problems.

    Six pilots, since 6 % of a detectable difference are 5 points of power. They have the effect in them (found by six
    without): near the ceiling an effect changes the noise.
    """
    rng, size = np.random.default_rng(seed), 0.0
    for effect in (False, True):
        pilot = replace(planted(world, size, seed) if effect else world, seeds=400, problems=1500)
        parts = [components({"set": pilot.differences(rng, 1)[0]}) for _ in range(PILOTS)]
        design = {"seeds": world.seeds, "samples": world.samples, "problems": world.problems}
        size = float(np.mean([minimum_detectable(*planned_error(part, **design)) for part in parts]))
    return size


def planted(world: World, difference: float, seed: int) -> World:
    """The same world with the gain in log-odds whose true difference of accuracies is the given one."""
    return replace(
        world,
        gain=brentq(
            lambda gain: replace(world, gain=gain).truth(np.random.default_rng(seed), 200_000) - difference, -1, 6
        ),
    )


def called_better(world: World, experiments: int, repetitions: int, seed: int) -> float:
    """Share of experiments whose interval lies above 0."""
    samples = world.differences(np.random.default_rng(seed), experiments)
    cells = {str(i): {"set": one.mean(axis=2)} for i, one in enumerate(samples)}
    found = bootstrap(cells, seed=seed, repetitions=repetitions).values()
    return float(np.mean([one.low > 0 for one in found]))


def power_row(world: World, experiments: int, repetitions: int, seed: int) -> dict[str, float]:
    """How often a null effect and an effect of the size found with 80 % power are called better."""
    size = detectable(world, seed)
    found = called_better(planted(world, size, seed), experiments, repetitions, seed + 1)
    return {
        "difference": size,
        "found": found,
        "called_better_at_0": called_better(world, experiments, repetitions, seed + 2),
        "error": float(np.sqrt(0.8 * 0.2 / experiments)),
    }


def main(arguments: list[str] | None = None) -> None:
    """Simulate every world and write coverage.csv, power.csv and made.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--experiments", type=int, default=EXPERIMENTS)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    rows, power = [], []
    for number, world in enumerate(WORLDS):
        for seeds in SEEDS:
            one, seed = replace(world, seeds=seeds), chosen.seed + 1000 * number + seeds
            slow = SLOW_EXPERIMENTS if one.kind != "accuracy" and seeds in (3, 10) else 0
            rows.append(asdict(one) | coverage(one, chosen.experiments, REPETITIONS, seed, slow))
            if one.kind == "methods" and seeds in (3, 5, 10):
                power.append(asdict(one) | power_row(one, chosen.experiments, REPETITIONS, seed))
            print(*rows[-1].values(), flush=True)
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_csv(chosen.out / "coverage.csv", pd.DataFrame(rows))
    write_csv(chosen.out / "power.csv", pd.DataFrame(power))
    settings = {"experiments": chosen.experiments, "seed": chosen.seed, "repetitions": REPETITIONS}
    write_provenance(chosen.out, ["python", "-m", "benchmarks.coverage", *(arguments or sys.argv[1:])], **settings)


if __name__ == "__main__":
    main()
