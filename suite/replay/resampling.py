"""Length bins and the bootstrap over (seed, problem) clusters that every length diagnostic shares."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

LEVEL = 0.95
FEWEST_PROBLEMS = 5
"""With fewer (seed, problem) clusters there is no interval: four have 35 different resamples, so that the ends of one
are single resamples, and an interval of one cluster has width 0. Fixed on 2026-11-30."""
Sums = dict[str, np.ndarray]


# --- bins -----------------------------------------------------------------------------------------


def quantile_edges(lengths: np.ndarray, bins: int) -> np.ndarray:
    """Whole-number bin edges that hold about equally many lengths: bin i is edges[i] <= L < edges[i + 1].

    Ties merge bins, so there may be fewer than asked. Raises ValueError for no lengths or bins < 1.

    >>> quantile_edges(np.array([2, 3, 5, 8, 8, 40]), 3).tolist()
    [2, 5, 8, 41]
    """
    lengths = np.asarray(lengths)
    if bins < 1 or not lengths.size:
        raise ValueError("quantile edges need at least one length and one bin")
    inner = np.ceil(np.quantile(lengths, np.arange(1, bins) / bins))
    return np.unique(np.concatenate([[lengths.min()], inner, [lengths.max() + 1]])).astype(np.int64)


def power_edges(longest: int) -> np.ndarray:
    """Bins that are the same whatever the data: 1, 2 to 3, 4 to 7, ... up to the one that holds `longest`.

    >>> power_edges(5).tolist()
    [1, 2, 4, 8]
    """
    return 2 ** np.arange(int(longest).bit_length() + 1)


def bin_labels(edges: np.ndarray) -> list[str]:
    """What the bins hold, in whole tokens.

    >>> bin_labels(np.array([2, 4, 5, 41]))
    ['2–3', '4', '5–40']
    """
    pairs = zip(edges[:-1], edges[1:] - 1, strict=True)
    return [f"{low}" if low == high else f"{low}–{high}" for low, high in pairs]


def bin_of(lengths: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Bin number of every length. Raises ValueError for edges that do not rise or do not cover every length."""
    edges = np.asarray(edges)
    if len(edges) < 2 or np.any(np.diff(edges) <= 0):
        raise ValueError(f"bin edges must rise: {edges.tolist()}")
    where = np.searchsorted(edges, lengths, side="right") - 1
    if np.any(where < 0) or np.any(where >= len(edges) - 1):
        raise ValueError(f"bin edges {edges.tolist()} do not cover lengths {min(lengths)} to {max(lengths)}")
    return where


# --- cluster bootstrap ----------------------------------------------------------------------------


def bootstrap_sums(clusters: list[Sums], rng: np.random.Generator, repetitions: int) -> list[Sums]:
    """Sums over resampled clusters, [repetitions, width], from sums per cluster, [clusters, width].

    All entries share one draw of clusters, so differences between methods keep their pairing. No row of fewer than
    FEWEST_PROBLEMS clusters.
    """
    count = len(next(iter(clusters[0].values())))
    if repetitions == 0 or count < FEWEST_PROBLEMS:
        return [{name: block[:0] for name, block in sums.items()} for sums in clusters]
    drawn: list[Mapping[str, list[np.ndarray]]] = [{name: [] for name in sums} for sums in clusters]
    chunk = max(1, 4_000_000 // count)
    for start in range(0, repetitions, chunk):
        size = min(chunk, repetitions - start)
        weights = rng.multinomial(count, np.full(count, 1 / count), size=size).astype(float)
        for sums, into in zip(clusters, drawn, strict=True):
            for name, block in sums.items():
                into[name].append(weights @ block)
    return [{name: np.concatenate(parts) for name, parts in into.items()} for into in drawn]


def interval(replicates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over the first axis at the 95 % level; nan replicates do not count, none at all gives nan."""
    tail = (1 - LEVEL) / 2
    replicates = np.asarray(replicates, float)
    if not len(replicates):
        return np.full(replicates.shape[1:], np.nan), np.full(replicates.shape[1:], np.nan)
    empty = np.isnan(replicates).all(axis=0)
    low, high = np.nanquantile(np.where(empty, 0.0, replicates), [tail, 1 - tail], axis=0)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def without_truncated(responses: pd.DataFrame) -> pd.DataFrame:
    """The responses that were not truncated."""
    return responses.take(np.flatnonzero(~np.asarray(responses["truncated"], bool)))


def cluster_ids(frame: pd.DataFrame) -> np.ndarray:
    """Number of the (seed, problem) pair that a row belongs to: rows of one pair are resampled together."""
    return frame.groupby(["seed", "problem_id"], sort=True).ngroup().to_numpy()


def slope(sums: Sums, prefix: str) -> np.ndarray:
    """Least-squares slope of y on x from the sums prefix + n, x, xx, y, xy; nan where x does not vary."""
    n, x, xx, y, xy = (sums[prefix + name][..., 0] for name in ("n", "x", "xx", "y", "xy"))
    spread = n * xx - x * x
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 1e-12 * n * xx, (n * xy - x * y) / spread, np.nan)
