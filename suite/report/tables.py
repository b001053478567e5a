"""Tables that people read: accuracies, differences, clipping, stability, with intervals in the cells."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from suite.config import MEAN
from suite.findings import rules
from suite.findings.comparison import Comparison
from suite.findings.costs import NOT_RECORDED
from suite.records.result import BASE
from suite.statistics.frames import ABSENT, NOTHING, Number, heading, names_of, overall, p_text, percent, records
from suite.statistics.verdicts import EXPLORATORY, NO_VARIATION, PRIMARY, SETS, UNDECIDED
from suite.types import EvalResult

FAIRNESS = ("clipped", "slope", "slope, all", "evenness", "LRE", "LRE by chance", "outside band", "its slope")
EMPTY = {NOTHING, "not public", NOT_RECORDED}
"""Cells that say nothing: a column of nothing else is left out."""


KINDS = ("truncated", "no answer", "undecided")


# --- accuracies and differences -------------------------------------------------------------------


def accuracy_table(
    accuracies: pd.DataFrame,
    noise: Mapping[str, float] | None = None,
    canaries: Mapping[str, str] | None = None,
    published: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Rows the base model and the methods, columns the sets and their mean; cells like "47.3 [44.1, 50.2]" in per cent.

    `accuracies` as `compare.compare` returns them. Beside the mean stand, over the sets, the mean length in tokens and
    the shares of responses cut at the token limit, without an answer and undecided (per cent); then the seeds behind
    the row and what `noise` alone puts outside the method's band (per cent, `suite.replay.null_update`). `published`
    has public numbers by method. `canaries` names the models whose rows are not comparable, and since which runs
    (`suite.evaluation.canary`). Columns that say nothing of any model are left out.
    """
    rows = []
    for method, part in accuracies.groupby("method", sort=False):
        row: dict[str, Any] = {"model": str(method)}
        row |= {heading(r["task"]): Number.percent(r["accuracy"], r["low"], r["high"]) for r in records(part)}
        whole = overall(part)
        row |= answer_cells(whole)
        row["seeds"] = ABSENT if method == BASE else Number(str(whole["seeds"]))
        row["null update"] = Number.percent((noise or {}).get(str(method), math.nan))
        row["published"] = (published or {}).get(str(method), "not public")
        row["comparable"] = f"no: {canaries[str(method)]}" if canaries and method in canaries else "yes"
        rows.append(row)
    silent = {"undecided": {"0.0"}, "no answer": {"0.0"}, "null update": {"0.0"}, "comparable": {"yes"}}
    return informative(pd.DataFrame(rows), silent)


def answer_cells(row: Mapping[str, Any]) -> dict[str, Any]:
    """Of one row of accuracies: mean length, and the shares of cut, missing and undecided answers in per cent."""
    length = row["mean_length"]
    shares = {kind: Number.percent(row[f"{kind.replace(' ', '_')}_share"]) for kind in KINDS}
    return {"length": NOT_RECORDED if math.isnan(length) else Number.of(length, ".1f"), **shares}


def informative(table: pd.DataFrame, silent: Mapping[str, set[str]] | None = None) -> pd.DataFrame:
    """The table without columns that say nothing: all dashes, "not public", or its `silent` texts."""
    kept = [
        name
        for name in table
        if not set(map(str, table[name])) <= EMPTY | (silent or {}).get(str(name), set()) or table.empty
    ]
    return pd.DataFrame(table, columns=pd.Index(kept))


def by_set_table(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Rows every model on every single set, sets in order: accuracy, mean length, cut, missing, undecided answers."""
    rows = [
        {
            "set": heading(str(task)),
            "model": r["method"],
            "accuracy": Number.percent(r["accuracy"], r["low"], r["high"]),
        }
        | answer_cells(r)
        for task, part in accuracies.groupby("task", sort=False)
        if task != MEAN
        for r in records(part)
    ]
    return informative(pd.DataFrame(rows), {"undecided": {"0.0"}})


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


def sample_tables(metrics: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`sample_metrics.sample_metrics` for people, what depends on k and what does not: shares in per cent, lengths in
    tokens."""
    by_k = {"avg_at_k": "avg@k", "pass_at_k": "pass@k", "pass_hat_k": "pass^k", "maj_at_k": "maj@k"}
    shares = {f"{kind}_share": kind.replace("_", " ") for kind in ("undecided", "no_answer", "truncated")}
    return pd.DataFrame(
        [
            {"set": r["task"], "problems x samples": Number(f"{r['problems']} x {r['samples']}"), "k": r["k"]}
            | {title: Number.percent(r[name]) for name, title in by_k.items()}
            for r in records(metrics)
        ]
    ), pd.DataFrame(
        [
            {"set": r["task"]}
            | {title: Number.percent(r[name]) for name, title in shares.items()}
            | {"mean length": Number.of(r["mean_length"], ".1f")}
            for r in records(metrics.drop_duplicates("task"))
        ]
    )


def declared_table(differences: pd.DataFrame) -> pd.DataFrame:
    """Rows the declared pairs; columns the verdict, then the single sets before their mean: points, interval, verdict
    where there is one.

    p-values are Holm's over the family of the primary outcome: that the difference is 0, and that it is one point or
    more. "detectable" is the true difference in points that the design finds with 80 % power after the correction.
    """
    rows = []
    for _, part in _pairs(declared_rows(differences)):
        first = next((row for row in records(part) if row["family"] == PRIMARY), records(part)[0])
        row: dict[str, Any] = {"difference": f"{first['method']} − {first['reference']}", "verdict": first["verdict"]}
        for r in records(part):
            said = "" if r["verdict"] == UNDECIDED else f" {r['verdict']}"
            row[heading(r["task"])] = Number(
                percent(r["difference"], r["low"], r["high"], sign=True) + ("" if r is first else said)
            )
        row["p (Holm)"] = Number(p_text(first["p_holm"]))
        row["p equal (Holm)"] = Number(p_text(first["p_equal_holm"]))
        found = first["minimum_detectable"]
        row["detectable"] = Number("none") if found > 1 else Number.percent(found)
        rows.append(row)
    return pd.DataFrame(rows)


def declared_rows(differences: pd.DataFrame) -> pd.DataFrame:
    """The differences of the declared pairs, on all outcomes."""
    return differences.take(np.flatnonzero(differences["family"] != EXPLORATORY))


def exploratory_table(differences: pd.DataFrame) -> pd.DataFrame:
    """Rows the differences to the base model and of the declared methods to all others: points with intervals.

    No verdicts: nothing was declared about them, and nothing is corrected. Pairs of two rivals stay in the CSV file.
    """
    declared = declared_rows(differences)
    shown = np.flatnonzero(
        (differences["family"] == EXPLORATORY)
        & ((differences["reference"] == BASE) | differences["method"].isin(names_of(declared, "method")))
    )
    rows = []
    for (method, reference), part in _pairs(differences.take(shown)):
        rows.append({"difference": f"{method} − {reference}"} | _points(part))
    return pd.DataFrame(rows)


def _pairs(differences: pd.DataFrame) -> Iterable[tuple[Any, pd.DataFrame]]:
    return differences.groupby(["method", "reference"], sort=False)


def _points(part: pd.DataFrame) -> dict[str, Number]:
    """Differences in points with their intervals, by set."""
    return {heading(r["task"]): Number.percent(r["difference"], r["low"], r["high"], sign=True) for r in records(part)}


def verdict_lines(differences: pd.DataFrame) -> list[str]:
    """One computed sentence for every declared pair on the primary outcome, then one for all single sets.

    For instance "fspo against rloo: undecided (+0.2 [-2.0, +2.4] points, p .6900 after Holm, 3 seeds); a true
    difference of 4.1 points would be found with 80 % power".
    """
    lines = [
        f"{r['method']} against {r['reference']}: {r['verdict']} ({_measured(r)}, {counted(r['seeds'], 'seed')})"
        + (f"; {detectable_words(r['minimum_detectable'])}" if r["verdict"] == UNDECIDED else "")
        for r in records(differences.take(np.flatnonzero(differences["family"] == PRIMARY)))
    ]
    sets = records(differences.take(np.flatnonzero(differences["family"] == SETS)))
    if not sets:
        return lines
    decided = [
        f"{r['method']} against {r['reference']} on {heading(r['task'])} {r['verdict']} ({_measured(r)})"
        for r in sets
        if r["verdict"] not in (UNDECIDED, NO_VARIATION)
    ]
    found = [r["minimum_detectable"] for r in sets if not math.isnan(r["minimum_detectable"])]
    said = "; ".join(decided) or f"no difference survives the correction; {detectable_words(*spanned(found))}"
    return [*lines, f"single sets, a family of {len(sets)}: {said}"]


def spanned(values: Sequence[float]) -> tuple[float, ...]:
    """The smallest and the largest, once where they are shown alike; nan alone for nothing.

    >>> spanned([0.2, 0.1, 0.3]), spanned([0.1001, 0.1]), spanned([])
    ((0.1, 0.3), (0.1,), (nan,))
    """
    low, high = min(values, default=math.nan), max(values, default=math.nan)
    return (low,) if not values or percent(low) == percent(high) else (low, high)


def detectable_words(points: float, most: float | None = None) -> str:
    """What the design could have found, or that one seed cannot say it; `most` on the set that needs most."""
    if most is not None and most <= 1:
        return (
            f"a true difference of {percent(points)} to {percent(most)} points, by set, would be found with 80 % power"
        )
    if math.isnan(points):
        return "one seed does not show how much seeds differ"
    if points > 1:
        return "with so few seeds no difference would be found with 80 % power"
    return f"a true difference of {percent(points)} points would be found with 80 % power"


def _measured(row: Mapping[str, Any]) -> str:
    points = percent(row["difference"], row["low"], row["high"], sign=True)
    said = p_text(row["p_holm"])
    return f"{points} points" + ("" if said == NOTHING else f", p {said} after Holm")


def counted(count: int, what: str) -> str:
    """The count with its noun.

    >>> counted(1, "seed"), counted(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{count} {what}{'s' if count != 1 else ''}"


# --- fairness -------------------------------------------------------------------------------------


def fairness_table(summary: pd.DataFrame) -> pd.DataFrame:
    """Rows method and range: clipped and outside-band share in per cent, each with its slope in points per doubling of
    length, the word of the rules, LRE.

    `summary` as `suite.findings.rules.with_words` returns it. LRE cells are no percentages; "LRE by chance" is what
    equal acceptance would show.
    """
    rows = []
    for r in records(summary):
        row = {"method": r["method"], "range": r["range"]}
        if not r.get("band", True):
            rows.append(row | dict.fromkeys(FAIRNESS, ABSENT) | {"evenness": "no band"})
            continue
        cells = (
            _share(r, "mean_clipped"),
            _share(r, "clipped_slope", sign=True),
            _share(r, "all_clipped_slope", sign=True),
            rules.shown_word(r),
            _plain(r, "lre_max"),
            Number.of(r["lre_noise"], ".3f"),
            _share(r, "mean_outside_band"),
            _share(r, "outside_slope", sign=True),
        )
        rows.append(row | dict(zip(FAIRNESS, cells, strict=True)))
    return pd.DataFrame(rows)


def growth_table(growth: pd.DataFrame) -> pd.DataFrame:
    """Rows the signs of the advantage: drift, sigma and the slopes of mean and variance with intervals, shape of S.

    `growth` as `suite.replay.growth.growth_summary` returns it.
    """

    def cell(row: Mapping[str, Any], name: str) -> Number:
        value, low, high = (Number.of(row[f"{name}{end}"], ".3g") for end in ("", "_low", "_high"))
        return Number(f"{value} [{low}, {high}]")

    rows = [
        {"sign": r["sign"], "responses": r["responses"], "drift": cell(r, "drift"), "mean slope": cell(r, "mean_slope")}
        | {
            "sigma": cell(r, "sigma"),
            "sigma^2": Number.of(r["sigma"] ** 2, ".3g"),
            "variance slope": cell(r, "var_slope"),
        }
        | {"skewness": Number.of(r["skewness"], ".1f"), "excess kurtosis": Number.of(r["excess_kurtosis"], ".1f")}
        for r in records(growth)
    ]
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


def pairing_table(pairing: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """Rows the declared pairs, on the mean over the sets: correlations, and the variance that common draws took out."""
    declared = declared_rows(differences)
    pairs = set(zip(declared["method"], declared["reference"], strict=True))
    rows = []
    for pair, part in _pairs(pairing):
        if pair not in pairs:
            continue
        whole = overall(part)
        rows.append(
            {
                "pair": f"{whole['method']} − {whole['reference']}",
                "correlation": Number.of(whole["correlation"], "+.2f"),
                "of samples": Number.of(whole["sample_correlation"], "+.2f"),
                "variance of separate draws": f"x {Number.of(whole['variance_factor'], '.2f')}",
            }
        )
    return pd.DataFrame(rows)


def changes_table(changes: pd.DataFrame) -> pd.DataFrame:
    """`before_after.changes_between` for people: points after minus before with intervals."""
    rows = []
    for method, part in changes.groupby("method", sort=False):
        whole = overall(part)
        row = {"method": str(method), "verdict": whole["verdict"]} | _points(part)
        row |= {"detectable": Number.percent(whole["minimum_detectable"]), "same runs": Number(whole["same_runs"])}
        row["clipped"] = Number(f"{percent(whole['clipped_before'])} → {percent(whole['clipped_after'])}")
        rows.append(row)
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
            "length": ABSENT if math.isnan(r["length_ratio"]) else f"x {r['length_ratio']:.2f}",
            "rates above base": Number(r["rates_above_base"]),
        }
        for r in records(summary)
    ]
    return pd.DataFrame(rows)


def accuracies_of(report: Comparison) -> pd.DataFrame:
    """Accuracies as people read them, with the null update and, where it was not the same, the canary."""
    return accuracy_table(
        report.statistics.accuracies, noise=report.null_outside, canaries=report.canaries, published=report.published
    )
