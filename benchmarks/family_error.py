"""Coverage and family-wise error of a comparison's verdicts, by how the variance of the seeds is pooled.

    python -m benchmarks.family_error --out results/family_error

family_error.csv has a row for each world, number of seeds and rule. A world is one method against its rivals, none of
which differs: all have the same expected accuracy, while their seeds may differ by different amounts. Rules:

own      what a pair's own seeds vary by, with S - 1 degrees of freedom
pooled   the mean of all pairs' seed variances, with (M - 1)(S - 1) degrees of freedom
larger   what reports do: the larger of the two, with S - 1 degrees of freedom; two methods alone, S - 1 of all

lowest and mean: coverage of the pairs' nominal 95 % intervals. decided: share of comparisons with any verdict "better"
or "worse". equal: the same with any verdict "equal within" a margin when every pair differs by just that margin. df:
the median. `larger` goes through the bootstrap and the rule that reports use; the other two through t intervals.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from benchmarks.worlds import FamilyWorld
from suite.records.provenance import write_provenance
from suite.report.markdown import write_csv
from suite.statistics.bootstrap import Estimate, bootstrap
from suite.statistics.variance import LEVEL, Cells, SeedDoubt, error_of, mean_squares, seed_doubt
from suite.statistics.verdicts import ALPHA, equivalence_p, holm

SEEDS = (2, 3, 5, 10)
WORLDS = (
    FamilyWorld((0.05,) * 4),
    FamilyWorld((0.15,) * 4),
    FamilyWorld((0.4,) * 4),
    FamilyWorld((0.15, 0.4, 0.15, 0.15)),
    FamilyWorld((0.4, 0.15, 0.15, 0.15)),
    FamilyWorld((0.4, 0.05, 0.15, 0.3, 0.05, 0.15, 0.3)),
    FamilyWorld((0.3, 0.3)),
)
RIVALS = 3
"""The declared family is the first method against at most so many that follow it; all methods are pooled over."""
EXPERIMENTS, REPETITIONS = 1500, 1000


def family_rows(world: FamilyWorld, experiments: int, repetitions: int, seed: int) -> list[dict[str, float | str]]:
    """One row a rule; all experiments share the bootstrap's draws."""
    rng = np.random.default_rng(seed)
    drawn = [world.cells(rng) for _ in range(experiments)]
    rows = []
    for rule, estimates in estimates_by_rule(drawn, repetitions, seed).items():
        made = [_verdicts(one) for one in estimates]
        covered = np.array([one["covered"] for one in made]).mean(axis=0)
        rows.append(
            {
                "rule": rule,
                "lowest": float(covered.min()),
                "mean": float(covered.mean()),
                "decided": float(np.mean([min(holm(one["p"])) < ALPHA for one in made])),
                "equal": float(np.mean([min(holm(one["p_equal"])) < ALPHA for one in made])),
                "df": float(np.median([one["df"] for one in made])),
                "error": float(np.sqrt(ALPHA * (1 - ALPHA) / experiments)),
            }
        )
    return rows


def estimates_by_rule(drawn: Sequence[np.ndarray], repetitions: int, seed: int) -> dict[str, list[list[Estimate]]]:
    """Of each rule, for every comparison (accuracies [methods, seeds, problems]), its declared pairs' estimates."""
    quantities: dict[str, Cells] = {}
    doubts: dict[str, SeedDoubt] = {}
    own, pooled = [], []
    for number, cells in enumerate(drawn):
        methods, seeds, _ = cells.shape
        pairs: list[Cells] = [{"set": cells[a] - cells[b]} for a, b in combinations(range(methods), 2)]
        variances = [float(pair["set"].mean(axis=1).var(ddof=1)) for pair in pairs]
        declared = range(min(RIVALS, methods - 1))
        names = [f"{number}: {place}" for place in declared]
        quantities |= dict(zip(names, pairs, strict=False))
        doubts |= dict.fromkeys(names, seed_doubt(pairs))
        mean = float(np.mean(variances))
        own.append([_t(pairs[place]["set"], variances[place], seeds - 1) for place in declared])
        pooled.append([_t(pairs[place]["set"], mean, (methods - 1) * (seeds - 1)) for place in declared])
    found = iter(bootstrap(quantities, seed=seed, repetitions=repetitions, doubts=doubts).values())
    return {"own": own, "pooled": pooled, "larger": [[next(found) for _ in each] for each in own]}


def _verdicts(made: Sequence[Estimate]) -> dict[str, list[float]]:
    """Coverage of 0, p, p of the margin with every difference moved to it, degrees of freedom; a list over pairs each.

    The margin is ten points: it has to be wide for these small worlds to ever call something equal.
    """
    margin = 0.1
    return {
        "covered": [float(one.low <= 0 <= one.high) for one in made],
        "p": [one.p for one in made],
        "p_equal": [
            equivalence_p(one.value + margin, one.low_90 + margin, one.high_90 + margin, one.df, margin) for one in made
        ],
        "df": [one.df for one in made],
    }


def _t(matrix: np.ndarray, variance: float, seed_df: float) -> Estimate:
    """A t interval with that variance of a seed's mean and its degrees of freedom in place of the pair's own."""
    seeds, problems = matrix.shape
    between, both = float(matrix.mean(axis=0).var(ddof=1)) / problems, mean_squares(matrix)[1] / matrix.size
    error, _ = error_of(variance / seeds, [between], [both], seeds, [problems])
    doubt = (variance / seeds) ** 2 / seed_df + between**2 / (problems - 1) + both**2 / (seeds - 1) / (problems - 1)
    df, value = error**4 / doubt, float(matrix.mean())
    wide, inner = error * stdtrit(df, (1 + LEVEL) / 2), error * stdtrit(df, 0.95)
    p = float(2 * stdtr(df, -abs(value) / error))
    return Estimate(value, value - wide, value + wide, value - inner, value + inner, error, float("nan"), p, df, seeds)


def main(arguments: list[str] | None = None) -> None:
    """Simulate every world and write family_error.csv and made.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--experiments", type=int, default=EXPERIMENTS)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    rows = []
    for number, world in enumerate(WORLDS):
        for seeds in SEEDS:
            one = replace(world, seeds=seeds)
            named = {"seed_sds": " ".join(f"{sd:g}" for sd in one.seed_sds), "seeds": seeds}
            found = family_rows(one, chosen.experiments, REPETITIONS, chosen.seed + 100_000 * number + 10_000 * seeds)
            rows += [named | row for row in found]
            for row in found:
                print(*named.values(), *row.values(), flush=True)
    chosen.out.mkdir(parents=True, exist_ok=True)
    write_csv(chosen.out / "family_error.csv", pd.DataFrame(rows))
    settings = {"experiments": chosen.experiments, "seed": chosen.seed, "repetitions": REPETITIONS}
    write_provenance(chosen.out, ["python", "-m", "benchmarks.family_error", *(arguments or sys.argv[1:])], **settings)


if __name__ == "__main__":
    main()
