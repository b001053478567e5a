"""Tables that people read: accuracies, differences, clipping, stability, with intervals in the cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from suite.config import MEAN
from suite.findings.comparison import Comparison
from suite.records.result import BASE
from suite.statistics.frames import ABSENT, NOTHING, Number, heading, overall, percent, records
from suite.types import EvalResult

FAIRNESS = ("clipped", "outside band", "slope per doubling", "LRE max", "LRE noise", "LRE mean", "supported")


# --- accuracies and differences -------------------------------------------------------------------


def accuracy_table(
    accuracies: pd.DataFrame,
    cards: Mapping[str, str] | None = None,
    noise: Mapping[str, float] | None = None,
    canaries: Mapping[str, str] | None = None,
    published: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Rows the base model and the methods, columns the sets and their mean; cells like "47.3 [44.1, 50.2]" in per cent.

    `accuracies` as `compare.compare` returns them. The last columns are the
    seeds behind a row, the digest of the method's card where `cards` are given, what `noise` alone puts outside the
    method's band (per cent, `suite.replay.null_update`), responses cut at the token limit and, where there are any,
    those without an answer and undecided ones (per cent, mean over the sets). `published` has public numbers by method.
    `canaries` names the models whose rows are not comparable, and since which runs (`suite.evaluation.canary`); where
    there are any, a column says so.
    """
    rows = []
    for method, part in accuracies.groupby("method", sort=False):
        row = {"model": str(method)}
        row |= {heading(r["task"]): Number.percent(r["accuracy"], r["low"], r["high"]) for r in records(part)}
        whole = overall(part)
        row["seeds"] = ABSENT if method == BASE else Number(str(whole["seeds"]))
        if cards is not None:
            row["card"] = cards.get(str(method), NOTHING)
        if noise:
            row["null update"] = Number.percent(noise.get(str(method), math.nan))
        for kind in ("truncated", "no_answer", "undecided"):
            if kind == "truncated" or np.any(np.asarray(accuracies[f"{kind}_share"]) > 0):
                row[kind.replace("_", " ")] = Number.percent(whole[f"{kind}_share"])
        if published is not None:
            row["published"] = published.get(str(method), "not public")
        if canaries:
            row["comparable"] = f"no: {canaries[str(method)]}" if method in canaries else "yes"
        rows.append(row)
    return pd.DataFrame(rows)


def evaluation_table(accuracies: pd.DataFrame, evals: Sequence[EvalResult]) -> pd.DataFrame:
    """One model, rows the sets and their mean: counts, avg@k with its interval, pass@k, shares in per cent, length.

    `accuracies` as `compare.compare` returns them for `evals` alone; k is the number of samples. Lengths in tokens.
    """
    means = {e.task: np.mean([length for row in e.lengths for length in row]) for e in evals}
    rows = []
    for r in records(accuracies):
        length = np.mean(list(means.values())) if r["task"] == MEAN else means[r["task"]]
        rows.append(
            {
                "set": heading(r["task"]),
                "problems x samples": Number(f"{r['problems']} x {r['samples']}"),
                f"avg@{r['samples']}": Number.percent(r["accuracy"], r["low"], r["high"]),
                f"pass@{r['samples']}": Number.percent(r["pass_at_samples"]),
                "undecided": Number.percent(r["undecided_share"]),
                "no answer": Number.percent(r["no_answer_share"]),
                "truncated": Number.percent(r["truncated_share"]),
                "mean length": Number.of(float(length), ".1f"),
            }
        )
    return pd.DataFrame(rows)


def sample_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """`sample_metrics.sample_metrics` for people: shares in per cent, lengths in tokens."""
    shares = {"avg_at_k": "avg@k", "pass_at_k": "pass@k", "pass_hat_k": "pass^k", "maj_at_k": "maj@k"}
    shares |= {f"{kind}_share": kind.replace("_", " ") for kind in ("undecided", "no_answer", "truncated")}
    return pd.DataFrame(
        [
            {"set": r["task"], "problems x samples": Number(f"{r['problems']} x {r['samples']}"), "k": r["k"]}
            | {title: Number.percent(r[name]) for name, title in shares.items()}
            | {"mean length": Number.of(r["mean_length"], ".1f")}
            for r in records(metrics)
        ]
    )


def difference_table(differences: pd.DataFrame, reference: str = BASE) -> pd.DataFrame:
    """Rows the methods, columns the sets: difference to `reference` in points with its interval, then the verdict.

    p (Holm) and the verdict belong to the mean over the sets (to the one set, if there is one); "detectable" is the
    true difference in points that would be found with 80 % power.
    """
    rows = []
    for method, part in differences.take(np.flatnonzero(differences["reference"] == reference)).groupby(
        "method", sort=False
    ):
        row = {"model": f"{method} − {reference}"}
        row |= _points(part)
        whole = overall(part)
        row["p (Holm)"] = Number.of(whole["p_holm"], ".4f")
        row["detectable"] = Number.percent(whole["minimum_detectable"])
        rows.append(row | {"verdict": whole["verdict"]})
    return pd.DataFrame(rows)


def _points(part: pd.DataFrame) -> dict[str, Number]:
    """Differences in points with their intervals, by set."""
    return {heading(r["task"]): Number.percent(r["difference"], r["low"], r["high"], sign=True) for r in records(part)}


def verdict_lines(differences: pd.DataFrame) -> list[str]:
    """One computed sentence for every pair of models, on the mean over the sets.

    For instance "fspo against base: better, few seeds (+12.1 [+9.0, +15.2] points, 3 seeds)".
    """
    lines = []
    for _, part in differences.groupby(["method", "reference"], sort=False):
        row = overall(part)
        points = percent(row["difference"], row["low"], row["high"], sign=True)
        power = f"; a true difference of {percent(row['minimum_detectable'])} points would be found with 80 % power"
        lines.append(
            f"{row['method']} against {row['reference']}: {row['verdict']} "
            f"({points} points, {row['seeds']} seed{'s' if row['seeds'] != 1 else ''})"
            + (power if row["verdict"].startswith("under-powered") else "")
        )
    return lines


# --- fairness -------------------------------------------------------------------------------------


def fairness_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Rows method and range: clipped and outside-band share in per cent, slope per doubling in points, LRE, sentence.

    `summary` as `suite.replay.fairness.fairness_summary` returns it. LRE cells are no percentages; "LRE noise" is what
    equal acceptance would show by chance.
    """
    rows = []
    for r in records(summary):
        row = {"method": r["method"], "range": r["range"]}
        if not r.get("band", True):
            rows.append(row | dict.fromkeys(FAIRNESS[:-1], ABSENT) | {FAIRNESS[-1]: "no band"})
            continue
        cells = (
            _share(r, "mean_clipped"),
            _share(r, "mean_outside_band"),
            _share(r, "outside_slope", sign=True),
            _plain(r, "lre_max"),
            Number.of(r["lre_noise"], ".3f"),
            _plain(r, "lre_mean"),
            r["sentence"].split(":")[0],
        )
        rows.append(row | dict(zip(FAIRNESS, cells, strict=True)))
    return pd.DataFrame(rows)


def noise_cells(noise: pd.DataFrame) -> pd.DataFrame:
    """Rows precision and change: noise of a token and of a response, three digits. As
    `suite.replay.null_update.noise_by_change`.

    sigma is what the noise adds to the spread of S, in nats per square root of a token.
    """
    names = {
        "token_mean": "token mean",
        "token_rms": "token rms",
        "token_max": "token max",
        "sequence_rms": "S rms",
        "sequence_max": "S max",
        "per_root_token": "sigma",
    }
    shown = noise.rename(columns=names)
    return shown.assign(**{name: [Number.of(x, ".3g") for x in shown[name]] for name in names.values()})


def _share(row: Mapping[str, Any], key: str, *, sign: bool = False) -> Number:
    return Number.percent(row[key], row[f"{key}_low"], row[f"{key}_high"], sign=sign)


def _plain(row: Mapping[str, Any], key: str) -> Number:
    value, low, high = (Number.of(row[name], ".3f") for name in (key, f"{key}_low", f"{key}_high"))
    return Number(f"{value} [{low}, {high}]")


def interquartile_table(means: pd.DataFrame) -> pd.DataFrame:
    """Rows the models: interquartile mean in per cent with its interval, and how many scores it is taken over."""
    rows = [
        {"model": r["method"], "interquartile mean": Number.percent(r["iqm"], r["low"], r["high"])}
        | {"scores": Number(f"{r['seeds'] * r['sets']} = {r['seeds']} x {r['sets']}")}
        for r in records(means)
    ]
    return pd.DataFrame(rows)


def pairing_table(pairing: pd.DataFrame) -> pd.DataFrame:
    """Rows the pairs of models, on the mean over the sets: correlations, and the variance that pairing took out."""
    rows = []
    for _, part in pairing.groupby(["method", "reference"], sort=False):
        whole = overall(part)
        rows.append(
            {
                "pair": f"{whole['method']} − {whole['reference']}",
                "correlation": Number.of(whole["correlation"], "+.2f"),
                "of samples": Number.of(whole["sample_correlation"], "+.2f"),
                "variance without": f"x {Number.of(whole['variance_factor'], '.2f')}",
            }
        )
    return pd.DataFrame(rows)


def changes_table(changes: pd.DataFrame) -> pd.DataFrame:
    """`before_after.changes_between` for people: points after minus before with intervals."""
    rows = []
    for method, part in changes.groupby("method", sort=False):
        row = {"method": str(method)}
        row |= _points(part)
        whole = overall(part)
        row |= {"detectable": Number.percent(whole["minimum_detectable"]), "same runs": Number(whole["same_runs"])}
        row["clipped"] = Number(f"{percent(whole['clipped_before'])} → {percent(whole['clipped_after'])}")
        rows.append(row | {"verdict": whole["verdict"]})
    return pd.DataFrame(rows)


def stability_table(summary: pd.DataFrame) -> pd.DataFrame:
    """`stability.stability_summary` for people: shares in per cent, falls and spreads in points."""
    rows = [
        {
            "method": r["method"],
            "runs": r["runs"],
            "collapsed": Number.percent(r["collapsed"], r["collapsed_low"], r["collapsed_high"]),
            "probe fall": Number.percent(r["probe_fall"]),
            "spread": Number.percent(r["spread"], r["spread_low"], r["spread_high"]),
            "spikes": Number.percent(r["spike_share"]),
            "entropy": Number.of(r["entropy_drift"], "+.3f"),
            "length": f"x {r['length_ratio']:.2f}",
            "rates above base": Number(r["rates_above_base"]),
        }
        for r in records(summary)
    ]
    return pd.DataFrame(rows)


def accuracies_of(report: Comparison) -> pd.DataFrame:
    """Accuracies as people read them, with cards, the null update and, where it was not the same, the canary."""
    return accuracy_table(
        report.statistics.accuracies,
        cards=report.cards,
        noise=report.null_outside,
        canaries=report.canaries,
        published=report.published,
    )
