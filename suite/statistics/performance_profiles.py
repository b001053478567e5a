"""Interquartile means and performance profiles over the (seed, set) scores of each model, by the common bootstrap."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from suite.statistics.bootstrap import REPETITIONS, draws, scaling
from suite.statistics.variance import LEVEL, Cells
from suite.statistics.verdict_counts import Scores

TAUS = tuple(np.linspace(0, 1, 101).round(2).tolist())
TAILS = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]


def interquartile_mean(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean of n weighted scores without the lowest and highest floor(n / 4), along the last axis, as rliable has it
    (scipy's trim_mean); weights of each row sum to 1, and are multiples of 1 / n where scores were drawn again.

    >>> interquartile_mean(np.array([0.9, 0.1, 0.4, 0.6]), np.full(4, 0.25)).round(3).item()
    0.5

    Source: arXiv 2108.13264 section 4.3.
    """
    count = scores.shape[-1]
    cut = count // 4 / count
    order = np.argsort(scores, axis=-1, kind="stable")
    values, shares = np.take_along_axis(scores, order, -1), np.take_along_axis(weights, order, -1)
    upper = np.cumsum(shares, axis=-1)
    inside = np.clip(np.minimum(upper, 1 - cut) - np.maximum(upper - shares, cut), 0, None)
    return (values * inside).sum(axis=-1) / inside.sum(axis=-1)


def profiles(
    models: Mapping[str, Mapping[str, Scores]], *, seed: int, repetitions: int = REPETITIONS
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Interquartile means (method, iqm, low, high, seeds, sets) and profiles (method, tau, share, low, high).

    A score is avg@k of one seed on one set; share(tau) is that of the scores above tau. Draws of seeds and problems are
    those of `suite.statistics.bootstrap` with the same `seed`. The interval of the interquartile mean is widened by the
    factor that the plain mean of the same scores needs [ours]; the bands of a profile hold point by point and are not
    widened.
    """
    quantities = {name: {task: each.means for task, each in sets.items()} for name, sets in models.items()}
    parts: dict[str, list[list[np.ndarray]]] = {name: [] for name in quantities}
    for by_seed, by_task in draws(quantities, seed, repetitions):
        for name, cells in quantities.items():
            parts[name].append(_replicates(cells, by_seed[_seeds(cells)], by_task))
    means, shares = [], []
    for name, cells in quantities.items():
        drawn_mean, drawn_iqm, drawn_share = (np.concatenate(each) for each in zip(*parts[name], strict=True))
        scores = np.stack([matrix.mean(axis=1) for matrix in cells.values()], axis=1)
        value = float(interquartile_mean(scores.ravel(), np.full(scores.size, 1 / scores.size)))
        factor = scaling(cells, drawn_mean)[0]
        low, high = np.quantile(value + factor * (drawn_iqm - value), TAILS)
        row = {"method": name, "iqm": value, "low": float(low), "high": float(high)}
        means.append(row | {"seeds": len(scores), "sets": len(cells)})
        bands = np.quantile(drawn_share, TAILS, axis=0)
        for tau, below, above in zip(TAUS, *bands, strict=True):
            shares.append(
                {"method": name, "tau": tau, "share": float((scores > tau).mean()), "low": below, "high": above}
            )
    return pd.DataFrame(means), pd.DataFrame(shares)


def _replicates(cells: Cells, by_seed: np.ndarray, by_task: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Of every draw: the mean of the scores, their interquartile mean, the share above each tau."""
    scores = np.stack([by_task[task] @ matrix.T for task, matrix in cells.items()], axis=2)
    weights = np.broadcast_to(by_seed[:, :, None] / len(cells), scores.shape)
    flat, shares = scores.reshape(len(scores), -1), weights.reshape(len(scores), -1)
    above = np.stack([(shares * (flat > tau)).sum(axis=1) for tau in TAUS], axis=1)
    return [(flat * shares).sum(axis=1), interquartile_mean(flat, shares), above]


def _seeds(cells: Cells) -> int:
    return len(next(iter(cells.values())))
