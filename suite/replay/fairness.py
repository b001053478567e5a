"""Length fairness: who is clipped, by response length. Tables with intervals, and LRE.

A frame of responses has one row per response and method: method, range, seed, problem_id, length, truncated, sign (of
the advantage), outside_band and clipped (0 or 1, or the share of the response's tokens for a token ratio). What a
method does to short and long responses is said by `clipped`, where the clip cuts a gradient; `outside_band` also counts
the side that the min ignores and responses without a gradient, and decides nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from suite.replay.evenness import evenness
from suite.replay.resampling import (
    FEWEST_PROBLEMS,
    LEVEL,
    Sums,
    bin_labels,
    bin_of,
    bootstrap_sums,
    cluster_ids,
    interval,
    quantile_edges,
    slope,
    without_truncated,
)

GROUP = ["method", "range"]
COUNTED = {
    "outside_band": "responses",
    "mean_outside_band": "responses",
    "outside_slope": "outside_n",
    "clipped": "gradients",
    "acceptance": "gradients",
    "mean_clipped": "gradients",
    "all_clipped_slope": "gradients",
}
"""Sums of the responses that a number is about; of the others those that finished and have a gradient."""
TRUNCATED = "truncated"
"""Label of the bin of responses that were cut at the token limit."""


# --- the numbers ----------------------------------------------------------------------------------


def length_reweighting_error(acceptance: np.ndarray, responses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """LRE, in its largest and its response-weighted mean form; 0 means that clipping treats all lengths alike.

        max_l |a(l) / abar - 1|,     sum_l p(l) |a(l) / abar - 1|,     abar = sum_l p(l) a(l)

    Both arguments [..., bins]; empty bins do not count; nan where nothing is accepted at all.
    The largest form is biased upwards by noise in thin bins: compare it with `lre_noise` of `fairness_summary`.

    >>> [x.round(3).item() for x in length_reweighting_error(np.array([0.9, 0.6]), np.array([100, 50]))]
    [0.25, 0.167]

    Source: the paper defines an LRE; this form is ours.
    """
    acceptance, responses = np.broadcast_arrays(np.asarray(acceptance, float), np.asarray(responses, float))
    counts = responses > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = responses / responses.sum(-1, keepdims=True)
        mean = np.where(counts, weights * acceptance, 0.0).sum(-1, keepdims=True)
        errors = np.where(counts, np.abs(acceptance / mean - 1), 0.0)
        largest = np.where(counts.any(-1), errors.max(-1), np.nan)[()]
    return largest, (weights * errors).sum(-1)


# --- the tables -----------------------------------------------------------------------------------


def _cluster_sums(frame: pd.DataFrame, edges: np.ndarray, count: int) -> Sums:
    """Per cluster: counts and flag sums of every length bin (truncated responses last), and the sums of the slopes."""
    finished = ~frame["truncated"].to_numpy(bool)
    length = frame["length"].to_numpy(float)
    where = np.full(len(frame), len(edges) - 1)
    where[finished] = bin_of(length[finished], edges)
    gradient = frame["sign"].to_numpy() != 0
    outside, clipped = frame["outside_band"].to_numpy(float), frame["clipped"].to_numpy(float)
    cluster = frame["cluster"].to_numpy()

    def add(values: np.ndarray, place: np.ndarray, width: int) -> np.ndarray:
        return np.bincount(cluster * width + place, values, count * width).reshape(count, width)

    bins, one, doublings = len(edges), np.zeros(len(frame), int), np.log2(length)
    sums = {
        "responses": add(np.ones(len(frame)), where, bins),
        "length": add(length, where, bins),
        "outside": add(outside, where, bins),
        "gradients": add(gradient, where, bins),
        "clipped": add(clipped * gradient, where, bins),
        "doublings": add(doublings * gradient, where, bins),
    }
    columns = (("outside_", outside, finished), ("clipped_", clipped, finished & gradient), ("all_", clipped, gradient))
    for name, y, rows in columns:
        parts = {"n": rows, "x": doublings, "xx": doublings**2, "y": y, "xy": doublings * y}
        sums |= {name + key: add(np.where(rows, value, 0.0), one, 1) for key, value in parts.items()}
    return sums


def _shares(sums: Sums) -> dict[str, np.ndarray]:
    """Every number of the two tables, from summed clusters [..., width]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        outside, clipped = sums["outside"] / sums["responses"], sums["clipped"] / sums["gradients"]
        accepted, gradients = 1 - clipped[..., :-1], sums["gradients"][..., :-1]
        mean = np.nansum(accepted * gradients, axis=-1, keepdims=True) / gradients.sum(-1, keepdims=True)
        relative = (1 - clipped) / mean
        largest, average = length_reweighting_error(accepted, gradients)
        return {
            "outside_band": outside,
            "clipped": clipped,
            "acceptance": 1 - clipped,
            "relative_acceptance": relative,
            "mean_outside_band": sums["outside"].sum(-1) / sums["responses"].sum(-1),
            "mean_clipped": sums["clipped"].sum(-1) / sums["gradients"].sum(-1),
            "outside_slope": slope(sums, "outside_"),
            "clipped_slope": slope(sums, "clipped_"),
            "all_clipped_slope": slope(sums, "all_"),
            "lre_max": largest,
            "lre_mean": average,
        }


def _evenness(clusters: Sums, seeds: np.ndarray) -> dict[str, float]:
    """`evenness` of finished responses; and of all of them by name all_..., the truncated ones a bin of their own."""
    found = {}
    for name, prefix, bins in (("", "clipped_", slice(None, -1)), ("all_", "all_", slice(None))):
        sums = {key: clusters[key][..., bins] for key in ("gradients", "clipped", "doublings")}
        sums |= {key: clusters[prefix + key][..., 0] for key in ("n", "x", "xx", "y", "xy")}
        found |= {name + key: float(value) for key, value in evenness(sums, seeds).items()}
    return found


Measured = tuple[tuple[str, str], np.ndarray, Sums, dict[str, np.ndarray], dict[str, np.ndarray]]


def _measure(
    frame: pd.DataFrame, edges: np.ndarray | None, bins: int, rng: np.random.Generator, repetitions: int
) -> Iterator[Measured]:
    """(method, range), bin edges, sums by cluster, numbers and their replicates, for every method and range."""
    if frame.empty:
        raise ValueError("no responses to measure: were all updates the first of their rollout?")
    if edges is None:
        binned = without_truncated(frame)
        edges = quantile_edges(np.asarray((frame if binned.empty else binned)["length"]), bins)
    edges = np.asarray(edges)
    clusters_of = cluster_ids(frame)
    frame, count = frame.assign(cluster=clusters_of), int(clusters_of.max()) + 1
    groups: list[tuple[Any, pd.DataFrame]] = list(frame.groupby(GROUP, sort=False))
    clusters = [_cluster_sums(part, edges, count) for _, part in groups]
    replicates = bootstrap_sums(clusters, rng, repetitions)
    for (name, _), sums, drawn in zip(groups, clusters, replicates, strict=True):
        yield name, edges, sums, _shares(_total(sums)), _with_enough(sums, _shares(drawn))


def _with_enough(clusters: Sums, drawn: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The replicates, none of a number whose responses are those of fewer than FEWEST_PROBLEMS clusters."""
    problems = {name: np.count_nonzero(clusters[name].sum(-1)) for name in {"clipped_n", *COUNTED.values()}}
    return {
        name: values if problems[COUNTED.get(name, "clipped_n")] >= FEWEST_PROBLEMS else values[:0]
        for name, values in drawn.items()
    }


def too_few_problems(per_response: pd.DataFrame) -> str:
    """That fewer than FEWEST_PROBLEMS problems have a gradient, and what follows for intervals and words; else ""."""
    informative = per_response.take(np.flatnonzero(per_response["sign"] != 0))
    count = len(informative[["seed", "problem_id"]].drop_duplicates())
    if count >= FEWEST_PROBLEMS:
        return ""
    return f"Too few problems with a gradient ({count}): no intervals of clip rates, and no method is flat or uneven."


def _total(clusters: Sums) -> Sums:
    return {key: block.sum(axis=0) for key, block in clusters.items()}


def clip_by_length(
    per_response: pd.DataFrame,
    *,
    rng: np.random.Generator,
    edges: np.ndarray | None = None,
    bins: int = 6,
    repetitions: int = 2000,
) -> pd.DataFrame:
    """Clip shares by response length: one row per method, range and length bin, truncated responses in the last bin.

    `outside_band` counts all responses. `clipped` and `acceptance` = 1 - clipped count those with a gradient (advantage
    not 0): easy problems are short and all-equal rewards have no gradient to clip, which would pass for fairness.
    `relative_acceptance` is a(l) / abar. Each with a 95 % interval (`_low`, `_high`): percentiles of a bootstrap over
    (seed, problem) clusters; nan for fewer than FEWEST_PROBLEMS, or where `repetitions` is 0. `edges` fixes the bins;
    otherwise `bins` quantiles of the lengths. Raises ValueError for an empty frame. Source: ours.
    """
    rows = []
    for name, cuts, clusters, shares, drawn in _measure(per_response, edges, bins, rng, repetitions):
        total, labels = _total(clusters), [*bin_labels(cuts), TRUNCATED]
        limits = {key: interval(drawn[key]) for key in ("outside_band", "clipped", "acceptance", "relative_acceptance")}
        for i, label in enumerate(labels):
            if total["responses"][i] == 0:
                continue
            row = dict(zip(GROUP, name, strict=True)) | {"bin": label, "truncated": label == TRUNCATED}
            row |= {"responses": int(total["responses"][i]), "with_gradient": int(total["gradients"][i])}
            row["mean_length"] = total["length"][i] / total["responses"][i]
            for key, (low, high) in limits.items():
                row |= {key: shares[key][i], f"{key}_low": low[i], f"{key}_high": high[i]}
            rows.append(row)
    return pd.DataFrame(rows)


def fairness_summary(
    per_response: pd.DataFrame,
    *,
    rng: np.random.Generator,
    edges: np.ndarray | None = None,
    bins: int = 6,
    repetitions: int = 2000,
) -> pd.DataFrame:
    """How evenly each method clips: one row per method and range, with 95 % intervals and a computed sentence.

    mean_outside_band, mean_clipped over all responses (clipped: over those with a gradient); outside_slope and
    clipped_slope per doubling of the length; lre_max and lre_mean of the acceptance. Slopes and LRE leave truncated
    responses out; intervals of LRE are those of `lre_intervals`. `lre_noise` is the 95th percentile of the largest LRE
    that equal acceptance would show with this many responses: an lre_max below it is no evidence of unfairness, so it
    stands before lre_max. all_clipped_slope takes truncated responses in at the length at which they were cut.

    `seeds`, and the columns of `suite.replay.evenness.evenness`, on which `suite.findings.rules` decides: of finished
    responses, and by name all_... with the truncated ones. Arguments as `clip_by_length`. Source: ours.
    """
    rows = []
    seed_of = per_response.assign(cluster=cluster_ids(per_response)).groupby("cluster")["seed"].first().to_numpy()
    for name, _, clusters, shares, drawn in _measure(per_response, edges, bins, rng, repetitions):
        total = _total(clusters)
        row: dict[str, Any] = dict(zip(GROUP, name, strict=True)) | {"responses": int(total["responses"].sum())}
        row["truncated_share"] = total["responses"][-1] / total["responses"].sum()
        plain = ("mean_outside_band", "mean_clipped", "outside_slope", "clipped_slope", "all_clipped_slope")
        limits: dict[str, tuple[Any, Any]] = {key: interval(drawn[key]) for key in plain}
        for key, (low, high) in limits.items():
            row |= {key: float(shares[key]), f"{key}_low": float(low), f"{key}_high": float(high)}
        centred = drawn["relative_acceptance"] - shares["relative_acceptance"]
        largest = np.nan_to_num(np.abs(centred[:, :-1])).max(axis=1)
        defined = len(largest) and not math.isnan(shares["lre_max"])
        row["lre_noise"] = float(np.quantile(largest, LEVEL)) if defined else math.nan
        limits = lre_intervals(
            shares["relative_acceptance"][:-1], drawn["relative_acceptance"][:, :-1], total["gradients"][:-1]
        )
        for key, (low, high) in limits.items():
            row |= {key: float(shares[key]), f"{key}_low": float(low), f"{key}_high": float(high)}
        seeds = seed_of[clusters["responses"].sum(-1) > 0]
        kept = {key: block[clusters["responses"].sum(-1) > 0] for key, block in clusters.items()}
        row |= {"seeds": len(np.unique(seeds))} | _evenness(kept, seeds)
        rows.append(row | {"sentence": slope_sentence(row)})
    return pd.DataFrame(rows)


def lre_intervals(relative: np.ndarray, drawn: np.ndarray, responses: np.ndarray) -> dict[str, tuple[float, float]]:
    """95 % intervals of both forms of LRE, by name, from a(l) / abar [bins] and its replicates [repetitions, bins].

        |r(l) - measured r(l)| <= w se(l) for all l at once in 95 % of replicates,     r = a / abar
        LRE between the largest (mean) of max(|r(l) - 1| - w se(l), 0) and that of |r(l) - 1| + w se(l)

    A percentile interval would lie above its estimate: resampling adds noise to every bin, and a largest deviation
    only grows with noise. This one contains its estimate and reaches 0 where no bin stands out. In simulations it
    covers more than 99 % where acceptance differs as FSPO's does on the demo; where all bins have one acceptance and
    8 % are clipped, 95 % with 1,000 independent responses a bin, 93 % with 150, 86 % with 60 (six bins, 1,000 worlds
    each): no rule decides by it. Empty bins do not count; nan without replicates, and
    where nothing is accepted. Source: ours.
    """
    used = np.asarray(responses) > 0
    if not len(drawn) or not used.any() or np.isnan(relative[used]).any():
        return dict.fromkeys(("lre_max", "lre_mean"), (math.nan, math.nan))
    found, replicates = relative[used], drawn[:, used]
    error = np.nanstd(replicates, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        furthest = np.nan_to_num(np.abs(replicates - found) / error).max(axis=1)
    width = np.quantile(furthest, LEVEL) * error
    low, high = np.maximum(np.abs(found - 1) - width, 0.0), np.abs(found - 1) + width
    share = responses[used] / responses[used].sum()
    return {"lre_max": (float(low.max()), float(high.max())), "lre_mean": (float(share @ low), float(share @ high))}


def slope_sentence(row: Mapping[str, Any]) -> str:
    """What the slope of the clip rate is: it rises, it falls, or none was found. Whether that is even, rules decide.

    >>> slope_sentence({"clipped_slope": 0.05, "clipped_slope_low": 0.04, "clipped_slope_high": 0.06})
    'clip rate rises with length: +5.0 points per doubling [+4.0, +6.0]'
    >>> slope_sentence({"clipped_slope": 0.05, "clipped_slope_low": math.nan, "clipped_slope_high": math.nan})
    'no interval: +5.0 points per doubling'
    """
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    middle, low, high = (round(100 * row[f"clipped_slope{end}"], 1) + 0.0 for end in ("", "_low", "_high"))
    if row.get("mean_clipped") in (0, 1):
        return f"no slope found: {'every' if row['mean_clipped'] else 'no'} response was clipped"
    if math.isnan(middle):
        return "no slope found: the lengths do not vary"
    if math.isnan(low):
        return f"no interval: {middle:+.1f} points per doubling"
    rises, falls = row["clipped_slope_low"] > 0, row["clipped_slope_high"] < 0
    head = f"clip rate {'rises' if rises else 'falls'} with length" if rises or falls else "no slope found"
    return f"{head}: {middle:+.1f} points per doubling [{low:+.1f}, {high:+.1f}]"
