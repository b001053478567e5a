"""Simulated worlds of clipping: many at once, as sums per (seed, problem) cluster, with a known clip rate by length."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

SHORTEST, LONGEST, BINS = 2.0, 7.0, 6
"""log2 of the lengths: 4 to 128 tokens, in equal bins of log2 L."""
EDGES = np.linspace(SHORTEST, LONGEST, BINS + 1)
MIDDLE, HALF = (SHORTEST + LONGEST) / 2, (LONGEST - SHORTEST) / 2
RATE = 0.08
Truth = Callable[[np.ndarray], np.ndarray]


def sloped(share: float) -> Truth:
    """A clip rate that changes by this share of its mean with every doubling."""
    return lambda x: RATE * (1 + share * (x - MIDDLE))


def curved(share: float) -> Truth:
    """A U (a hump for a negative share) without slope; `share` is what lies between its middle and its ends."""
    return lambda x: RATE * (1 + share * (((x - MIDDLE) / HALF) ** 2 - 1 / 3))


def largest_bin_deviation(truth: Truth) -> float:
    """How far the farthest bin is off the mean, as a share of the mean, where all lengths are equally many."""
    rates = truth(np.linspace(SHORTEST, LONGEST, 600 * BINS + 1)[:-1]).reshape(BINS, -1).mean(axis=1)
    return float(np.abs(rates / rates.mean() - 1).max())


@dataclass(frozen=True)
class Worlds:
    """`count` worlds of `seeds` x `problems` clusters of `each` responses with a gradient, clipped as `truth` says.

    A response is clipped where a normal number is below the quantile of its chance. That number is the sum of a part
    of its own (variance 1), one of its problem (`by_problem`^2), and two of its seed, level and slope in x
    (`by_seed`^2 each), scaled to variance 1 at every length: so the chance of being clipped is exactly truth(x) however
    much depends on problem and seed. A problem has a typical length; its responses lie around it.
    """

    truth: Truth
    seeds: int
    problems: int
    each: int
    by_seed: float = 0.0
    by_problem: float = 0.7
    count: int = 400
    chunk: int = 50

    def sums(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """What `suite.replay.evenness.evenness` takes: sums with the worlds as first axis, and every cluster's seed."""
        rng = np.random.default_rng(1)
        parts = [self._some(rng, min(self.chunk, self.count - i)) for i in range(0, self.count, self.chunk)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}, self._seeds

    @property
    def _seeds(self) -> np.ndarray:
        return np.repeat(np.arange(self.seeds), self.problems)

    def _some(self, rng: np.random.Generator, worlds: int) -> dict[str, np.ndarray]:
        clusters, seeds = self.seeds * self.problems, self._seeds
        typical = rng.uniform(SHORTEST, LONGEST, (worlds, clusters, 1))
        x = typical + 0.5 * rng.normal(size=(worlds, clusters, self.each))
        x = np.abs(x - SHORTEST) + SHORTEST  # reflected at both ends
        x = np.minimum(x, 2 * LONGEST - x).clip(SHORTEST, LONGEST - 1e-9)
        level, tilt = (rng.normal(size=(worlds, self.seeds))[:, seeds, None] for _ in range(2))
        scaled = (x - MIDDLE) / 1.44
        latent = self.by_seed * (level + tilt * scaled) + self.by_problem * rng.normal(size=(worlds, clusters, 1))
        latent += rng.normal(size=x.shape)
        latent /= np.sqrt(self.by_seed**2 * (1 + scaled**2) + self.by_problem**2 + 1)
        y = (latent < ndtri(self.truth(x))).astype(float)
        where = np.searchsorted(EDGES, x, side="right") - 1
        place = (np.arange(worlds * clusters).reshape(worlds, clusters, 1) * BINS + where).ravel()

        def add(values: np.ndarray) -> np.ndarray:
            return np.bincount(place, values.ravel(), worlds * clusters * BINS).reshape(worlds, clusters, BINS)

        sums = {"gradients": add(np.ones_like(x)), "clipped": add(y), "doublings": add(x)}
        sums |= {"n": np.full((worlds, clusters), float(self.each)), "x": x.sum(-1), "xx": (x**2).sum(-1)}
        return sums | {"y": y.sum(-1), "xy": (x * y).sum(-1)}
