"""What a comparison cost: seconds, tokens and peak memory by phase, points gained, and gradients that were cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from suite.config import MEAN
from suite.records.costs import PEAK, SECONDS
from suite.records.result import BASE
from suite.statistics.frames import Number, percent
from suite.types import RunResult

PHASES = ("sample", "score", "update", "evaluate")
MISSING = float("nan")
NOT_RECORDED = "not recorded"
"""What older results lack."""
OFTEN = 0.9
"""Share of its updates from which on a method's gradient counts as cut nearly always."""


def ledger(runs: Sequence[RunResult], differences: pd.DataFrame) -> pd.DataFrame:
    """One row a method: means over its runs.

    Columns: runs, tokens (sampled for training), seconds_PHASE, seconds (their sum), peak_gib_PHASE (largest over the
    runs; nan where results do not hold it), points (gained on the base model on the mean of sets, per cent) and
    seconds_per_point (nan unless the gain's whole interval is above 0). `differences` as `compare.compare` returns
    them.
    """
    gained = _gained(differences)
    certain = {method for method, row in _against_base(differences).items() if row["low"] > 0}
    rows = []
    for method in dict.fromkeys(run.method for run in runs):
        costs = [run.costs for run in runs if run.method == method]
        seconds = {phase: _mean([c.get(f"{SECONDS}{phase}", MISSING) for c in costs]) for phase in PHASES}
        peaks = {phase: max(c.get(f"{PEAK}{phase}", MISSING) for c in costs) for phase in PHASES}
        total, points = sum(seconds.values()), gained.get(method, MISSING)
        rows.append(
            {"method": method, "runs": len(costs), "tokens": _mean([c["tokens"] for c in costs])}
            | {f"seconds_{phase}": x for phase, x in seconds.items()}
            | {"seconds": total}
            | {f"peak_gib_{phase}": x for phase, x in peaks.items()}
            | {"points": points, "seconds_per_point": total / points if method in certain else MISSING}
        )
    return pd.DataFrame(rows)


def _gained(differences: pd.DataFrame) -> dict[str, float]:
    """Points that each method gained on the base model, on the mean of sets or on the only set."""
    return {method: 100 * row["difference"] for method, row in _against_base(differences).items()}


def _against_base(differences: pd.DataFrame) -> dict[str, Mapping[Any, Any]]:
    """Each method's difference to the base model, on the mean of sets or on the only set."""
    found = {}
    for row in differences.to_dict("records"):
        if row["reference"] == BASE and (row["task"] == MEAN or row["method"] not in found):
            found[str(row["method"])] = row
    return found


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def gradient_cuts(runs: Sequence[RunResult]) -> pd.DataFrame:
    """One row a method: how large its gradients were, and how many of its updates `max_grad_norm` scaled down.

    Columns: norm (mean over all updates of all runs, before the cut), largest, cut (share of the updates whose norm was
    above the limit; nan unless every run recorded it).
    """
    rows = []
    for method in dict.fromkeys(run.method for run in runs):
        curves = [run.curves for run in runs if run.method == method]
        norm, largest, cut = (_steps(curves, name) for name in ("grad_norm/mean", "grad_norm/max", "grad_norm/cut"))
        rows.append(
            {"method": method, "norm": _mean(norm), "largest": float(np.max(largest)), "cut": _mean(cut)},
        )
    return pd.DataFrame(rows)


def _steps(curves: Sequence[Mapping[str, Sequence[float | None]]], name: str) -> list[float]:
    """A logged number of all steps of some runs; nan alone where one of them lacks it."""
    if any(name not in each for each in curves):
        return [MISSING]
    return [MISSING if x is None else x for each in curves for x in each[name]]


def gradient_table(cuts: pd.DataFrame) -> pd.DataFrame:
    """`gradient_cuts` for people."""
    rows = [
        {
            "method": r["method"],
            "mean norm": Number.of(r["norm"], ".2f"),
            "largest norm": Number.of(r["largest"], ".1f"),
            "updates cut": NOT_RECORDED if np.isnan(r["cut"]) else Number.percent(r["cut"]),
        }
        for r in cuts.to_dict("records")
    ]
    return pd.DataFrame(rows)


def cut_sentence(cuts: pd.DataFrame, limit: float) -> str:
    """On whom the cut of the gradient acts."""
    words = (
        f"A gradient whose norm is above {limit:g} is scaled down to that norm (`max_grad_norm`, the same for every "
        "method), and a method whose gradients are cut at nearly every update trains with their direction alone: "
    )
    shares = {str(r["method"]): float(r["cut"]) for r in cuts.to_dict("records")}
    if any(np.isnan(share) for share in shares.values()):
        means = {str(r["method"]): float(r["norm"]) for r in cuts.to_dict("records")}
        above = ", ".join(name for name, norm in means.items() if norm > limit) or "none"
        return f"{words}how many were is not recorded in these runs; the mean norm is above the limit for: {above}."
    mostly = ", ".join(f"{name} ({percent(share)} %)" for name, share in shares.items() if share >= OFTEN)
    return words + (f"here {mostly}." if mostly else "here none.")


def ledger_table(costs: pd.DataFrame) -> pd.DataFrame:
    """`ledger` for people: seconds and tokens of a run, GiB, seconds a point."""

    def number(value: float, digits: int) -> Number:
        return Number.of(value, f",.{digits}f")

    rows = []
    for r in costs.to_dict("records"):
        rows.append(
            {"method": r["method"], "runs": r["runs"], "tokens": number(r["tokens"], 0)}
            | {f"{phase}, s": number(r[f"seconds_{phase}"], 1) for phase in PHASES}
            | {"all, s": number(r["seconds"], 1)}
            | {"peak, GiB": Number(" / ".join(str(number(r[f"peak_gib_{phase}"], 2)) for phase in PHASES))}
            | {"points": number(r["points"], 1), "s a point": number(r["seconds_per_point"], 1)}
        )
    return pd.DataFrame(rows)
