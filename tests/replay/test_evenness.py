"""The numbers behind `flat` and `uneven`: against loops over responses, and what they must not see."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t

from suite.replay.evenness import Spread, evenness

EDGES = np.array([1, 8, 32, 129])


def made(rows: int = 3000, seeds: int = 4, seed: int = 0, rate=lambda x: 0.1 + 0.05 * x) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    length = np.exp2(rng.uniform(0.5, 7, rows)).astype(int).clip(1, 128)
    x = np.log2(length)
    cluster = rng.integers(0, 60, rows)
    return {
        "length": length,
        "x": x,
        "y": (rng.random(rows) < rate(x)).astype(float),
        "cluster": cluster,
        "seed": np.arange(60) % seeds,
    }


def sums_of(data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Sums by cluster with loops."""
    bins = np.searchsorted(EDGES, data["length"], side="right") - 1
    sums = {name: np.zeros((60, 3)) for name in ("gradients", "clipped", "doublings")}
    sums |= {name: np.zeros(60) for name in ("n", "x", "xx", "y", "xy")}
    for c, b, x, y in zip(data["cluster"], bins, data["x"], data["y"], strict=True):
        for name, value in (("gradients", 1), ("clipped", y), ("doublings", x)):
            sums[name][c, b] += value
        for name, value in (("n", 1), ("x", x), ("xx", x * x), ("y", y), ("xy", x * y)):
            sums[name][c] += value
    return sums


def test_estimates_are_least_squares_and_bin_rates() -> None:
    data = made()
    found = evenness(sums_of(data), data["seed"])
    rate = data["y"].mean()
    assert found["relative_slope"] == pytest.approx(np.polyfit(data["x"], data["y"], 1)[0] / rate, rel=1e-9)
    bins = np.searchsorted(EDGES, data["length"], side="right") - 1
    off = max(abs(data["y"][bins == i].mean() / rate - 1) for i in range(3))
    assert found["largest_deviation"] == pytest.approx(off, rel=1e-9)
    assert found["largest_deviation_high"] > off
    assert found["relative_slope_low"] < found["relative_slope_low_90"] < found["relative_slope"]


def without_cluster(data: dict[str, np.ndarray], cluster: int) -> dict[str, np.ndarray]:
    kept = data["cluster"] != cluster
    return {name: value[kept] if len(value) == len(kept) else value for name, value in data.items()}


def test_standard_errors_are_those_of_leaving_clusters_out() -> None:
    """The jackknife over clusters and that over seeds, an independent way to the same two variances."""
    data = made(seeds=6)
    found = evenness(sums_of(data), data["seed"])
    slopes = []
    for cluster in range(60):
        rest = without_cluster(data, cluster)
        slopes.append(np.polyfit(rest["x"], rest["y"], 1)[0] / rest["y"].mean())
    problem = 59 / 60 * np.sum((np.array(slopes) - np.mean(slopes)) ** 2)
    by_seed = []
    for seed in range(6):
        kept = data["seed"][data["cluster"]] != seed
        by_seed.append(np.polyfit(data["x"][kept], data["y"][kept], 1)[0] / data["y"][kept].mean())
    seeds = 5 / 6 * np.sum((np.array(by_seed) - np.mean(by_seed)) ** 2)
    count = np.bincount(data["cluster"], minlength=60)
    rare = min(data["y"].mean(), 1 - data["y"].mean())
    most = min(59, rare * count.sum() ** 2 / (count**2).sum())
    df = max(problem, seeds) ** 2 / (problem**2 / most + seeds**2 / 5)
    half = t.ppf(0.975, min(max(df, 5), most)) * math.sqrt(max(problem, seeds))
    measured = (found["relative_slope_high"] - found["relative_slope_low"]) / 2
    assert measured == pytest.approx(half, rel=0.05)  # the jackknife has terms of order 1 / clusters more


def test_a_u_has_no_slope_but_a_bend_and_a_line_no_bend() -> None:
    x = made(rows=20_000)["x"]
    middle = np.cov(x, x**2)[0, 1] / (2 * x.var(ddof=1))  # where a parabola has no slope on these lengths
    bent = made(rows=20_000, rate=lambda x: 0.05 + 0.04 * (x - middle) ** 2)
    found = evenness(sums_of(bent), bent["seed"])
    assert found["p_bend"] < 1e-4 < 0.01 < found["p_slope"]
    assert found["p_even"] == pytest.approx(2 * found["p_bend"])
    line = made(rows=20_000)
    found = evenness(sums_of(line), line["seed"])
    assert found["p_slope"] < 1e-3 < 0.01 < found["p_bend"]  # t with three degrees of freedom: four seeds
    assert found["p_even"] == pytest.approx(2 * found["p_slope"])


def test_seeds_that_disagree_widen_the_interval_and_one_seed_cannot() -> None:
    data = made()
    tilted = data | {"y": np.where(data["seed"][data["cluster"]] % 2 == 0, data["x"] > 4, data["x"] <= 4).astype(float)}
    width = {}
    for name, seeds in (("four", data["seed"]), ("one", np.zeros(60, int))):
        found = evenness(sums_of(tilted), seeds)
        width[name] = found["relative_slope_high"] - found["relative_slope_low"]
    assert width["four"] > 2 * width["one"]


def test_few_clipped_clusters_leave_few_degrees_of_freedom() -> None:
    spread, influence = Spread(np.zeros(50, int)), np.random.default_rng(0).normal(size=50)
    errors, df = spread.errors(influence, np.array(3.0))
    assert df == 3
    assert errors == pytest.approx(math.sqrt((influence**2).sum() * 50 / 49))
    assert spread.errors(influence, np.array(80.0))[1] == 49


@pytest.mark.parametrize("y", [0.0, 1.0])
def test_nothing_clipped_or_everything_is_not_a_number(y: float) -> None:
    data = made()
    found = evenness(sums_of(data | {"y": np.full(3000, y)}), data["seed"])
    assert all(math.isnan(value) for value in found.values())


def test_one_length_is_not_a_number() -> None:
    data = made()
    data |= {"length": np.full(3000, 5), "x": np.full(3000, math.log2(5))}
    assert math.isnan(evenness(sums_of(data), data["seed"])["relative_slope"])


def test_worlds_side_by_side_are_the_worlds_alone() -> None:
    parts = [sums_of(made(seed=i)) for i in range(3)]
    seeds = made()["seed"]
    together = evenness({name: np.stack([part[name] for part in parts]) for name in parts[0]}, seeds)
    for i, part in enumerate(parts):
        for name, value in evenness(part, seeds).items():
            assert together[name][i] == pytest.approx(float(value), rel=1e-9), name


def test_what_is_said_of_clipping_is_said_of_accepting() -> None:
    """Shares are of the rarer of the two: y and 1 - y have mirrored slopes, and equal deviations, limits and p."""
    data = made()
    one, other = (evenness(sums_of(part), data["seed"]) for part in (data, {**data, "y": 1 - data["y"]}))
    assert other["relative_slope"] == pytest.approx(-one["relative_slope"], rel=1e-9)
    assert other["relative_slope_high_90"] == pytest.approx(-one["relative_slope_low_90"], rel=1e-9)
    for name in ("largest_deviation", "largest_deviation_high", "p_slope", "p_bend", "p_even"):
        assert other[name] == pytest.approx(one[name], rel=1e-9), name


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_bin_in_which_nothing_is_clipped_is_as_far_off_as_it_is(seeds: int) -> None:
    data = made(seeds=seeds, rate=lambda x: np.where((x >= 3) & (x < 5), 0.0, 0.36))
    found = evenness(sums_of(data), data["seed"])
    assert found["largest_deviation"] == 1.0
    assert found["largest_deviation_high"] >= 1.0
