"""How the sequence log ratio S grows with length, and what a band then clips if S is Gaussian."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from suite.replay.resampling import (
    Sums,
    bin_labels,
    bin_of,
    bootstrap_sums,
    cluster_ids,
    interval,
    quantile_edges,
    without_truncated,
)
from suite.statistics.frames import Number

Band = tuple[np.ndarray, np.ndarray]
QUANTILES = ["sign", "bin", "normal", "measured"]
SIGNS = {"all": None, "A > 0": 1, "A < 0": -1}
ROUNDING = 1e-14
"""Values are alike that differ from their mean by less than this share of it: their moments are rounding."""


# --- the normal prediction ------------------------------------------------------------------------


def sqrt_band(length: np.ndarray, c_low: float, c_high: float, drift: float = 0.0) -> Band:
    """FSPO's band on S in nats: L drift - c_low sqrt(L), L drift + c_high sqrt(L)."""
    length = np.asarray(length, float)
    return length * drift - c_low * np.sqrt(length), length * drift + c_high * np.sqrt(length)


def constant_band(length: np.ndarray, eps_low: float, eps_high: float) -> Band:
    """Sequence RLOO's band on S in nats, the same at every length: ln(1 - eps_low), ln(1 + eps_high)."""
    one = np.ones_like(np.asarray(length, float))
    return np.log1p(-eps_low) * one, np.log1p(eps_high) * one


def linear_band(length: np.ndarray, eps_low: float, eps_high: float) -> Band:
    """GSPO's band on S in nats: L ln(1 - eps_low), L ln(1 + eps_high)."""
    length = np.asarray(length, float)
    return length * np.log1p(-eps_low), length * np.log1p(eps_high)


def expected_outside_share(
    sigma: float, length: np.ndarray, low: np.ndarray, high: np.ndarray, drift: float = 0.0
) -> np.ndarray:
    """Share of responses outside the band if S is Gaussian with mean L drift and variance L sigma^2.

        Phi((low - L drift) / (sigma sqrt(L))) + 1 - Phi((high - L drift) / (sigma sqrt(L)))

    low and high are the band's edges on S at each length, in nats; drift is the mean log ratio per token (-KL per
    token for samples of the old policy). Raises ValueError unless sigma and length are positive.

    >>> float(expected_outside_share(0.02, 2048, *sqrt_band(2048, 0.03, 0.03)).round(3))
    0.134

    Source: arXiv 2509.09177 for the Gaussian limit; the formula is ours.
    """
    length = np.asarray(length, float)
    if sigma <= 0 or np.any(length <= 0):
        raise ValueError("sigma and length must be positive")
    scale, middle = sigma * np.sqrt(length), length * drift
    return stats.norm.cdf((low - middle) / scale) + stats.norm.sf((high - middle) / scale)


# --- what was measured ----------------------------------------------------------------------------


def growth_by_length(responses: pd.DataFrame, *, edges: np.ndarray | None = None, bins: int = 6) -> pd.DataFrame:
    """Moments of S by length bin and sign of the advantage: one row per sign ("all", "A > 0", "A < 0") and bin.

    mean_s in nats, var_s in nats^2 (ddof 1), spread = std(S / sqrt(L)) (flat if the variance grows as L), skewness and
    excess_kurtosis of S / sqrt(L) within the bin (0 for a Gaussian; nan below 3 responses, and where all are alike).
    Truncated responses are left out. `responses` has one row per response: length, truncated, sign, log_ratio.
    Source: ours.
    """
    frame = without_truncated(responses)
    if edges is None:
        edges = quantile_edges(np.asarray(frame["length"]), bins)
    labels = bin_labels(edges)
    rows = []
    for sign, part in _by_sign(frame):
        where = bin_of(part["length"].to_numpy(), edges)
        for i, label in enumerate(labels):
            s, length = part.loc[where == i, ["log_ratio", "length"]].to_numpy(float).T
            if len(s):
                scaled = s / np.sqrt(length)
                skewness, excess_kurtosis = shape(scaled)
                rows.append(
                    {
                        "sign": sign,
                        "bin": label,
                        "responses": len(s),
                        "mean_length": length.mean(),
                        "mean_s": s.mean(),
                        "var_s": np.nan if len(s) < 2 else s.var(ddof=1),
                        "spread": np.nan if len(s) < 2 else scaled.std(ddof=1),
                        "skewness": skewness,
                        "excess_kurtosis": excess_kurtosis,
                    }
                )
    return pd.DataFrame(rows)


def shape(values: np.ndarray) -> tuple[float, float]:
    """Skewness and excess kurtosis; nan for fewer than 3 values, infinite ones, and values alike but for rounding.

    >>> shape(np.array([0.0, 1.0, 2.0]))
    (0.0, -1.5)
    >>> shape(np.full(5, 0.1) + 1e-17)
    (nan, nan)
    """
    if len(values) < 3 or not np.isfinite(values).all():
        return np.nan, np.nan
    centred = values - values.mean()
    if np.abs(centred).max() <= ROUNDING * np.abs(values.mean()):
        return np.nan, np.nan
    return float(stats.skew(values)), float(stats.kurtosis(values))


def growth_summary(responses: pd.DataFrame, *, rng: np.random.Generator, repetitions: int = 2000) -> pd.DataFrame:
    """Growth of S with length, by sign of the advantage, with 95 % cluster-bootstrap intervals (`_low`, `_high`).

        drift = sum S / sum L                               nats per token
        sigma^2 = mean (S - L drift)^2 / L                  nats^2 per token
        mean_slope: least-squares slope of S on L           equals the drift if the mean grows as L
        var_slope: least-squares slope of (S - L drift)^2 on L   equals sigma^2 if the variance grows as L

    and, without interval, skewness and excess kurtosis of (S - L drift) / (sigma sqrt(L)), which are 0 for a Gaussian.
    Truncated responses are left out; one row per sign that has responses. Columns as `growth_by_length`, and seed and
    problem_id. Source: ours.
    """
    frame = without_truncated(responses)
    rows = []
    for sign, part in _by_sign(frame):
        sums = _moment_sums(part)
        point = _growth({key: block.sum(axis=0) for key, block in sums.items()})
        drawn = _growth(bootstrap_sums([sums], rng, repetitions)[0])
        row: dict[str, object] = {"sign": sign, "responses": len(part)}
        for key, value in point.items():
            low, high = interval(drawn[key])
            row |= {key: float(value), f"{key}_low": float(low), f"{key}_high": float(high)}
        z = standard_scores(part, float(point["drift"]), float(point["sigma"]))
        skewness, excess_kurtosis = shape(z)
        rows.append(row | {"skewness": skewness, "excess_kurtosis": excess_kurtosis})
    return pd.DataFrame(rows)


def growth_by_update(responses: pd.DataFrame, *, rng: np.random.Generator, repetitions: int = 2000) -> pd.DataFrame:
    """`growth_summary` over both signs at every optimizer step of a rollout: one row per `update` that has responses.

    drift and sigma grow from update to update, as the policy leaves the one that drew the responses.
    """
    rows = []
    for update, part in responses.groupby("update", sort=True):
        if not without_truncated(part).empty:
            found = growth_summary(part, rng=rng, repetitions=repetitions).iloc[:1].drop(columns="sign")
            rows.append(found.assign(update=update).set_index("update").reset_index())
    return pd.concat(rows, ignore_index=True)


def growth_sentence(row: Mapping[str, Any]) -> str:
    """What one row of `growth_summary` supports: how mean and variance of S move with length, and how Gaussian S is.

    >>> ends = {"mean_slope_low": -2e-4, "mean_slope_high": 1e-4, "var_slope_low": 3e-4, "var_slope_high": 5e-4}
    >>> growth_sentence({"sign": "all", "mean_slope": -1e-4, "var_slope": 4e-4, "excess_kurtosis": 2.5, **ends})
    'all: no slope found in the mean of S, its variance rises with length, excess kurtosis 2.5 (a Gaussian has 0)'
    """

    def moves(name: str) -> str:
        if row[f"{name}_low"] > 0:
            return "rises with length"
        return "falls with length" if row[f"{name}_high"] < 0 else ""

    mean, variance = moves("mean_slope"), moves("var_slope")
    first = f"the mean of S {mean}" if mean else "no slope found in the mean of S"
    second = f"its variance {variance}" if variance else "no slope found in its variance"
    kurtosis = Number.of(row["excess_kurtosis"], ".1f")
    return f"{row['sign']}: {first}, {second}, excess kurtosis {kurtosis} (a Gaussian has 0)"


def standard_scores(responses: pd.DataFrame, drift: float, sigma: float) -> np.ndarray:
    """(S - L drift) / (sigma sqrt(L)) of every response: standard normal if the theory holds; nan for sigma = 0."""
    length = responses["length"].to_numpy(float)
    spread = sigma * np.sqrt(length) if sigma > 0 else np.full(len(length), np.nan)
    return (responses["log_ratio"].to_numpy(float) - length * drift) / spread


def normal_quantiles(scores: np.ndarray, points: int = 99) -> tuple[np.ndarray, np.ndarray]:
    """The two axes of a QQ plot: quantiles of the standard normal and of the scores, at (i - 1/2) / points."""
    levels = (np.arange(points) + 0.5) / points
    return stats.norm.ppf(levels), np.quantile(scores, levels)


def quantile_table(responses: pd.DataFrame, *, edges: np.ndarray | None = None, points: int = 99) -> pd.DataFrame:
    """QQ plots of (S - L drift) / (sigma sqrt(L)) against the normal: sign, bin, normal, measured.

    One for each sign of the advantage (bin "all", its own drift and sigma) and, over both signs, one for each length
    bin of `edges` (the drift and sigma of all lengths, so that a bin's own spread shows). Truncated responses are left
    out, and bins of fewer than 3, and what has no spread.
    """
    frame, tables = without_truncated(responses), []

    def add(sign: str, label: str, part: pd.DataFrame, drift: float, sigma: float) -> None:
        scores = standard_scores(part, drift, sigma)
        if not np.isfinite(scores).all():
            return
        normal, measured = normal_quantiles(scores, points)
        tables.append(pd.DataFrame({"sign": sign, "bin": label, "normal": normal, "measured": measured}))

    for sign, part in _by_sign(frame):
        point = _growth({key: block.sum(axis=0) for key, block in _moment_sums(part).items()})
        drift, sigma = float(point["drift"]), float(point["sigma"])
        add(sign, "all", part, drift, sigma)
        if sign == "all" and edges is not None:
            where = bin_of(part["length"].to_numpy(), edges)
            for i, label in enumerate(bin_labels(edges)):
                if (where == i).sum() >= 3:
                    add(sign, label, part.take(np.flatnonzero(where == i)), drift, sigma)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=QUANTILES)


def _by_sign(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for name, sign in SIGNS.items():
        part = frame if sign is None else frame.take(np.flatnonzero(frame["sign"] == sign))
        if len(part):
            yield name, part


def _moment_sums(frame: pd.DataFrame) -> Sums:
    """Per (seed, problem) cluster: the sums of products of S and L that every number of `_growth` is made of."""
    s, length = frame["log_ratio"].to_numpy(float), frame["length"].to_numpy(float)
    cluster = cluster_ids(frame)
    products = {
        "n": np.ones_like(s),
        "S": s,
        "L": length,
        "LL": length**2,
        "LLL": length**3,
        "SL": s * length,
        "SS": s**2,
        "SSL": s**2 * length,
        "SLL": s * length**2,
        "SS/L": s**2 / length,
    }
    return {name: np.bincount(cluster, value)[:, None] for name, value in products.items()}


def _growth(sums: Sums) -> dict[str, np.ndarray]:
    """drift, sigma, mean_slope and var_slope from the product sums; slopes are nan where L does not vary."""
    t = {name: block[..., 0] for name, block in sums.items()}
    n, drift = t["n"], t["S"] / t["L"]
    squares = t["SS"] - 2 * drift * t["SL"] + drift**2 * t["LL"]
    squares_length = t["SSL"] - 2 * drift * t["SLL"] + drift**2 * t["LLL"]
    per_token = (t["SS/L"] - 2 * drift * t["S"] + drift**2 * t["L"]) / n
    spread = n * t["LL"] - t["L"] ** 2
    spread = np.where(spread > 1e-12 * n * t["LL"], spread, np.nan)
    return {
        "drift": drift,
        "sigma": np.sqrt(np.maximum(per_token, 0.0)),
        "mean_slope": (n * t["SL"] - t["S"] * t["L"]) / spread,
        "var_slope": (n * squares_length - squares * t["L"]) / spread,
    }
