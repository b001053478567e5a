"""Tables that people read: Markdown with intervals in the cells, CSV of the tidy numbers behind them."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from suite.files import write_atomically
from suite.statistics import BASE, MEAN
from suite.types import EvalResult

NOTHING = "–"
FAIRNESS = ("clipped", "outside band", "slope per doubling", "LRE max", "LRE noise", "LRE mean", "supported")
NUMERIC = (*"0123456789+-.", NOTHING)


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table of the columns as they stand: columns of numbers right-aligned, pipes and line breaks escaped.

    An empty table keeps its header. The same frame gives the same text.
    """
    header = [_escaped(name) for name in table.columns]
    body = [[_escaped(value) for value in row] for row in table.itertuples(index=False, name=None)]
    rule = ["---:" if body and all(_is_number(row[i]) for row in body) else "---" for i in range(len(header))]
    return "".join(f"| {' | '.join(row)} |\n" for row in [header, rule, *body])


def write_markdown(path: Path, title: str, table: pd.DataFrame, notes: Sequence[str] = ()) -> None:
    """A file with a heading, the table, and one bullet for every note under it."""
    bullets = "".join(f"- {_escaped(note)}\n" for note in notes)
    write_atomically(path, f"# {title}\n\n{markdown(table)}" + (f"\n{bullets}" if bullets else ""))


def write_csv(path: Path, tidy: pd.DataFrame) -> None:
    """The tidy numbers with ten significant digits, nan as an empty field, lines ended by a line feed."""
    text = io.StringIO()
    tidy.to_csv(text, index=False, float_format="%.10g", lineterminator="\n")
    write_atomically(path, text.getvalue())


def percent(value: float, low: float | None = None, high: float | None = None, *, sign: bool = False) -> str:
    """A share in per cent with its interval, one decimal; what is nan prints as a dash.

    A signed number that one decimal would turn into 0 gets two, so that an interval shows on which side of 0 it ends.

    >>> percent(0.4729, 0.441, 0.5023), percent(-0.0312, -0.05, -0.0002, sign=True), percent(float("nan"))
    ('47.3 [44.1, 50.2]', '-3.1 [-5.0, -0.02]', '–')
    """

    def one(x: float) -> str:
        digits = 2 if sign and x and abs(100 * x) < 0.05 else 1
        # Adding 0.0 turns a rounded -0.0 into 0.0.
        return NOTHING if np.isnan(x) else f"{round(100 * x, digits) + 0.0:{'+' if sign else ''}.{digits}f}"

    if low is None or high is None or np.isnan(value):
        return one(value)
    return f"{one(value)} [{one(low)}, {one(high)}]"


# --- accuracies and differences -------------------------------------------------------------------


def accuracy_table(
    accuracies: pd.DataFrame,
    titles: Mapping[str, str] | None = None,
    cards: Mapping[str, str] | None = None,
    noise: Mapping[str, float] | None = None,
    canaries: Mapping[str, str] | None = None,
    published: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Rows the base model and the methods, columns the sets and their mean; cells like "47.3 [44.1, 50.2]" in per cent.

    `accuracies` as `statistics.compare` returns them; `titles` gives methods longer names. The last columns are the
    seeds behind a row, the digest of the method's card where `cards` are given, what `noise` alone puts outside the
    method's band (per cent, `suite.null_update`), responses cut at the token limit and, where there are any, those
    without an answer and undecided ones (per cent, mean over the sets). `published` has public numbers by method.
    `canaries` names the models whose rows are not comparable, and since which runs (`suite.canary`); where there are
    any, a column says so.
    """
    rows = []
    for method, part in accuracies.groupby("method", sort=False):
        row = {"model": _title(method, titles)}
        row |= {heading(r["task"]): percent(r["accuracy"], r["low"], r["high"]) for r in records(part)}
        whole = overall(part)
        row["seeds"] = NOTHING if method == BASE else str(whole["seeds"])
        if cards is not None:
            row["card"] = cards.get(str(method), NOTHING)
        if noise:
            row["null update"] = percent(noise.get(str(method), math.nan))
        for kind in ("truncated", "no_answer", "undecided"):
            if kind == "truncated" or np.any(np.asarray(accuracies[f"{kind}_share"]) > 0):
                row[kind.replace("_", " ")] = percent(whole[f"{kind}_share"])
        if published is not None:
            row["published"] = published.get(str(method), "not public")
        if canaries:
            row["comparable"] = f"no: {canaries[str(method)]}" if method in canaries else "yes"
        rows.append(row)
    return pd.DataFrame(rows)


def evaluation_table(accuracies: pd.DataFrame, evals: Sequence[EvalResult]) -> pd.DataFrame:
    """One model, rows the sets and their mean: counts, avg@k with its interval, pass@k, shares in per cent, length.

    `accuracies` as `statistics.compare` returns them for `evals` alone; k is the number of samples. Lengths in tokens.
    """
    means = {e.task: np.mean([length for row in e.lengths for length in row]) for e in evals}
    rows = []
    for r in records(accuracies):
        length = np.mean(list(means.values())) if r["task"] == MEAN else means[r["task"]]
        rows.append(
            {
                "set": heading(r["task"]),
                "problems x samples": f"{r['problems']} x {r['samples']}",
                f"avg@{r['samples']}": percent(r["accuracy"], r["low"], r["high"]),
                f"pass@{r['samples']}": percent(r["pass_at_samples"]),
                "undecided": percent(r["undecided_share"]),
                "no answer": percent(r["no_answer_share"]),
                "truncated": percent(r["truncated_share"]),
                "mean length": f"{length:.1f}",
            }
        )
    return pd.DataFrame(rows)


def sample_table(metrics: pd.DataFrame) -> pd.DataFrame:
    """`sample_metrics.sample_metrics` for people: shares in per cent, lengths in tokens."""
    shares = {"avg_at_k": "avg@k", "pass_at_k": "pass@k", "pass_hat_k": "pass^k", "maj_at_k": "maj@k"}  # fmt: skip
    shares |= {f"{kind}_share": kind.replace("_", " ") for kind in ("undecided", "no_answer", "truncated")}
    return pd.DataFrame(
        [
            {"set": r["task"], "problems x samples": f"{r['problems']} x {r['samples']}", "k": str(r["k"])}
            | {title: percent(r[name]) for name, title in shares.items()}
            | {"mean length": f"{r['mean_length']:.1f}"}
            for r in records(metrics)
        ]
    )


def difference_table(
    differences: pd.DataFrame, reference: str = BASE, titles: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Rows the methods, columns the sets: difference to `reference` in points with its interval, then the verdict.

    p (Holm) and the verdict belong to the mean over the sets (to the one set, if there is one); "detectable" is the
    true difference in points that would be found with 80 % power.
    """
    rows = []
    for method, part in differences.take(np.flatnonzero(differences["reference"] == reference)).groupby(
        "method", sort=False
    ):
        row = {"model": f"{_title(method, titles)} − {_title(reference, titles)}"}
        row |= {heading(r["task"]): percent(r["difference"], r["low"], r["high"], sign=True) for r in records(part)}
        whole = overall(part)
        row["p (Holm)"] = NOTHING if np.isnan(whole["p_holm"]) else f"{whole['p_holm']:.4f}"
        row["detectable"] = percent(whole["minimum_detectable"])
        rows.append(row | {"verdict": whole["verdict"]})
    return pd.DataFrame(rows)


def verdict_lines(differences: pd.DataFrame, titles: Mapping[str, str] | None = None) -> list[str]:
    """One computed sentence for every pair of models, on the mean over the sets.

    For instance "fspo against base: better, few seeds (+12.1 [+9.0, +15.2] points, 3 seeds)".
    """
    lines = []
    for _, part in differences.groupby(["method", "reference"], sort=False):
        row = overall(part)
        points = percent(row["difference"], row["low"], row["high"], sign=True)
        power = f"; a true difference of {percent(row['minimum_detectable'])} points would be found with 80 % power"
        lines.append(
            f"{_title(row['method'], titles)} against {_title(row['reference'], titles)}: {row['verdict']} "
            f"({points} points, {row['seeds']} seed{'s' if row['seeds'] != 1 else ''})"
            + (power if row["verdict"].startswith("under-powered") else "")
        )
    return lines


# --- fairness -------------------------------------------------------------------------------------


def fairness_table(summary: pd.DataFrame, titles: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Rows method and range: clipped and outside-band share in per cent, slope per doubling in points, LRE, sentence.

    `summary` as `fspo.fairness.fairness_summary` returns it. LRE cells are no percentages; "LRE noise" is what equal
    acceptance would show by chance.
    """
    rows = []
    for r in records(summary):
        row = {"method": _title(r["method"], titles), "range": r["range"]}
        if not r.get("band", True):
            rows.append(row | dict.fromkeys(FAIRNESS[:-1], NOTHING) | {FAIRNESS[-1]: "no band"})
            continue
        cells = (
            _share(r, "mean_clipped"), _share(r, "mean_outside_band"), _share(r, "outside_slope", sign=True),
            _plain(r, "lre_max"), f"{r['lre_noise']:.3f}", _plain(r, "lre_mean"), r["sentence"].split(":")[0],
        )  # fmt: skip
        rows.append(row | dict(zip(FAIRNESS, cells, strict=True)))
    return pd.DataFrame(rows)


def noise_table(noise: pd.DataFrame) -> pd.DataFrame:
    """Rows precision and change: noise of a token and of a response, three digits. As `suite.null_update.noise_table`.

    sigma is what the noise adds to the spread of S, in nats per square root of a token.
    """
    names = {"token_mean": "token mean", "token_rms": "token rms", "token_max": "token max",
             "sequence_rms": "S rms", "sequence_max": "S max", "per_root_token": "sigma"}  # fmt: skip
    shown = noise.rename(columns=names)
    return shown.assign(**{name: [f"{x:.3g}" for x in shown[name]] for name in names.values()})


def _share(row: Mapping[str, Any], key: str, *, sign: bool = False) -> str:
    return percent(row[key], row[f"{key}_low"], row[f"{key}_high"], sign=sign)


def _plain(row: Mapping[str, Any], key: str) -> str:
    numbers = [row[key], row[f"{key}_low"], row[f"{key}_high"]]
    value, low, high = (NOTHING if np.isnan(x) else f"{x:.3f}" for x in numbers)
    return f"{value} [{low}, {high}]"


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as mappings from column names."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def overall(part: pd.DataFrame) -> dict[str, Any]:
    """The row of the mean over the sets, or of the only set."""
    rows = records(part)
    return next((row for row in rows if row["task"] == MEAN), rows[0])


def heading(task: str) -> str:
    """How a set is called at the head of a column."""
    return "mean of sets" if task == MEAN else task


def _title(method: Any, titles: Mapping[str, str] | None) -> str:
    return (titles or {}).get(str(method), str(method))


def _is_number(cell: str) -> bool:
    """Whether a cell, or the text of a link, begins like a number or is empty."""
    return cell.lstrip("[")[:1] in NUMERIC


def _escaped(value: Any) -> str:
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|")
