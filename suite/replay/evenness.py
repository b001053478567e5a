"""How evenly a method clips over response length: the numbers behind `flat` and `uneven`, with standard errors.

Everything is computed from sums per (seed, problem) cluster, for many worlds at once where the sums have leading axes.
The thresholds are those of `suite.findings.rules`; here are none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from suite.replay.resampling import FEWEST_PROBLEMS, LEVEL, Sums

ONE_SIDED = 0.95
"""Level of every one-sided limit: two of them are a 90 % interval."""

ESTIMATES = ("relative_slope", "largest_deviation")
"""What `evenness` finds without a spread."""


@dataclass(frozen=True)
class Spread:
    """Standard errors by seed and by (seed, problem): `seeds` [clusters] holds the seed's number of every cluster.

        V_problem = C / (C - 1) sum_c psi_c^2      V_seed = S / (S - 1) sum_s (sum_(c in s) psi_c)^2
        V = max(V_problem, V_seed)                 df = V^2 / (V_problem^2 / d + V_seed^2 / (S - 1)), in [S - 1, d]

    psi_c is what cluster c adds to the estimate's error (its influence). d is the number of independent clusters that
    are expected to be clipped, at most C - 1: a rate that rests on few clipped clusters is skewed, and t with so few
    degrees of freedom leaves it undecided. Which of the two spreads is the larger is not known beforehand; their larger
    one keeps its level in both kinds of worlds from three seeds on (tests/findings/test_rules_in_worlds.py). One seed
    says nothing of other seeds (V = V_problem), and two say little.

    Source: ours; degrees of freedom after Satterthwaite 1946.
    """

    seeds: np.ndarray

    def errors(self, influence: np.ndarray, clipped_clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(standard errors, degrees of freedom) [...] from influences [..., clusters] and expected clipped clusters."""
        clusters, numbers = len(self.seeds), np.unique(self.seeds)
        problem = (influence**2).sum(-1) * clusters / max(clusters - 1, 1)
        most = np.clip(clipped_clusters, 1.0, max(clusters - 1, 1))
        if len(numbers) < 2:
            return np.sqrt(problem), most
        by_seed = influence @ (self.seeds[:, None] == numbers).astype(float)
        free = len(numbers) - 1
        seed = (by_seed**2).sum(-1) * len(numbers) / free
        variance = np.maximum(problem, seed)
        with np.errstate(divide="ignore", invalid="ignore"):
            df = variance**2 / (problem**2 / most + seed**2 / free)
        return np.sqrt(variance), np.minimum(np.maximum(df, free), most)


def evenness(sums: Sums, seeds: np.ndarray) -> dict[str, np.ndarray]:
    """Slope, bend and largest deviation of the clip rate over length, as shares of the clip rate.

    `sums` per (seed, problem) cluster, over responses with a gradient: gradients, clipped, doublings (sums of log2 L)
    [..., clusters, bins]; n, x, xx, y, xy [..., clusters] with x = log2 L and y = clipped. `seeds` [clusters].

    relative_slope      least-squares slope of `clipped` per doubling of the length, divided by the clip rate p, or by
                        1 - p where that is smaller; with its 95 % interval (_low, _high) and its 90 % interval
                        (_low_90, _high_90), t from `Spread`
    largest_deviation   max over length bins of |p(l) - p| / min(p, 1 - p); _high: the largest upper limit of a bin,
                        each one-sided 95 %. All bins below a margin by these limits is a test of level 5 % that all
                        are, since the farthest one alone must pass it (intersection-union)
    p_slope, p_bend     two-sided p of the slope, and of the parabola in log2 L through the bins' rates that is
                        orthogonal to the straight line: the slope is blind to a U, the bend is not
    p_even              min(1, 2 min(p_slope, p_bend)): Bonferroni over the two

    nan where nothing is clipped, everything is, or the lengths do not vary; limits and p also where fewer than
    FEWEST_PROBLEMS clusters have a gradient. Source: ours.
    """
    spread = Spread(np.asarray(seeds))
    with np.errstate(divide="ignore", invalid="ignore"):
        n, y = sums["n"].sum(-1), sums["y"].sum(-1)
        rate = y / n
        rarer = np.minimum(rate, 1 - rate)
        influence = (sums["y"] - rate[..., None] * sums["n"]) / n[..., None]
        clipped_clusters = rarer * n**2 / (sums["n"] ** 2).sum(-1)
        slope, of_slope = _slope(sums)
        relative = slope / rarer
        sign = np.where(rate <= 0.5, 1.0, -1.0)
        error, df = spread.errors(
            (of_slope - (sign * relative)[..., None] * influence) / rarer[..., None], clipped_clusters=clipped_clusters
        )
        found = {"relative_slope": relative}
        for name, level in (("", (1 + LEVEL) / 2), ("_90", ONE_SIDED)):
            half = stdtrit(df, level) * error
            found |= {f"relative_slope_low{name}": relative - half, f"relative_slope_high{name}": relative + half}
        found |= _deviations(sums, rate, influence, spread)
        found["p_slope"] = _two_sided(slope, *spread.errors(of_slope, clipped_clusters))
        bend, of_bend = _bend(sums)
        found["p_bend"] = _two_sided(bend, *spread.errors(of_bend, clipped_clusters))
        found["p_even"] = np.minimum(1.0, 2 * np.fmin(found["p_slope"], found["p_bend"]))
        unclear = ~(rarer > 0) | np.isnan(relative)
    few = np.count_nonzero(sums["n"], axis=-1) < FEWEST_PROBLEMS
    return {
        name: np.where(unclear if name in ESTIMATES else unclear | few, np.nan, value) for name, value in found.items()
    }


def _two_sided(value: np.ndarray, error: np.ndarray, df: np.ndarray) -> np.ndarray:
    """p of an estimate being 0; nan without a spread."""
    return np.where(error > 0, 2 * stdtr(df, -np.abs(value) / error), np.nan)


def _slope(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares slope of y on x, and every cluster's influence on it."""
    n, x, xx, y, xy = (sums[name].sum(-1) for name in ("n", "x", "xx", "y", "xy"))
    middle, spread = x / n, xx - x * x / n
    spread = np.where(spread > 1e-12 * xx, spread, np.nan)
    slope = (xy - x * y / n) / spread
    start = y / n - slope * middle
    m, a, b = middle[..., None], start[..., None], slope[..., None]
    residual = (
        (sums["xy"] - m * sums["y"]) - a * (sums["x"] - m * sums["n"]) - b * (sums["xx"] - m * sums["x"])
    )  # sum over a cluster's responses of (x - mean x) (y - a - b x)
    return slope, residual / spread[..., None]


def _deviations(sums: Sums, rate: np.ndarray, influence: np.ndarray, spread: Spread) -> dict[str, np.ndarray]:
    """The largest |p(l) - p| / min(p, 1 - p) over the bins, and the largest one-sided upper limit of one."""
    n, y = sums["gradients"].sum(-2), sums["clipped"].sum(-2)
    rarer = np.minimum(rate, 1 - rate)
    off, largest, highest = (y / n - rate[..., None]) / rarer[..., None], np.zeros(rate.shape), np.zeros(rate.shape)
    sign = np.where(rate <= 0.5, 1.0, -1.0)[..., None]  # how min(p, 1 - p) moves with p
    for i in range(n.shape[-1]):
        mine = sums["clipped"][..., i] - (y / n)[..., i, None] * sums["gradients"][..., i]
        own = (mine / n[..., i, None] - influence - sign * off[..., i, None] * influence) / rarer[..., None]
        independent = n[..., i] ** 2 / (sums["gradients"][..., i] ** 2).sum(-1)
        error, df = spread.errors(own, independent * rarer)
        size = np.abs(off[..., i])
        used = n[..., i] > 0
        largest = np.where(used, np.fmax(largest, size), largest)
        half = np.where(error > 0, stdtrit(df, ONE_SIDED) * error, 0.0)  # a bin without a spread is as far off as it is
        highest = np.where(used, np.fmax(highest, size + half), highest)
    return {"largest_deviation": largest, "largest_deviation_high": highest}


def _bend(sums: Sums) -> tuple[np.ndarray, np.ndarray]:
    """The coefficient of a parabola in the bins' mean log2 length, orthogonal to the straight line; influences.

    It is a contrast of the bins' rates with weights that only lengths decide.
    """
    n, y = sums["gradients"].sum(-2), sums["clipped"].sum(-2)
    used = n > 0
    x = np.where(used, sums["doublings"].sum(-2) / n, 0.0)
    total = n.sum(-1, keepdims=True)
    x = np.where(used, x - (n * x).sum(-1, keepdims=True) / total, 0.0)
    square = x**2 - (n * x**2).sum(-1, keepdims=True) / total
    square -= x * (n * square * x).sum(-1, keepdims=True) / (n * x**2).sum(-1, keepdims=True)
    size = (n * square**2).sum(-1, keepdims=True)
    weight = np.where(used & (size > 1e-9 * (n * x**4).sum(-1, keepdims=True)), square / size, np.nan)
    p = np.where(used, y / n, 0.0)
    weight = np.where(used, weight, 0.0)
    of_clusters = weight[..., None, :] * (sums["clipped"] - p[..., None, :] * sums["gradients"])
    return (weight * n * p).sum(-1), of_clusters.sum(-1)
