"""What a comparison cost: seconds, tokens and peak memory by phase, and how much of it a point of accuracy took."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from suite.config import MEAN
from suite.records.costs import PEAK, SECONDS
from suite.records.result import BASE
from suite.statistics.frames import Number
from suite.types import RunResult

PHASES = ("sample", "score", "update", "evaluate")
MISSING = float("nan")


def ledger(runs: Sequence[RunResult], differences: pd.DataFrame) -> pd.DataFrame:
    """One row a method: means over its runs.

    Columns: runs, tokens (sampled for training), seconds_PHASE, seconds (their sum), peak_gib_PHASE (largest over the
    runs; nan where results do not hold it), points (gained on the base model on the mean of sets, per cent) and
    seconds_per_point (nan unless points are gained). `differences` as `compare.compare` returns them.
    """
    gained = _gained(differences)
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
            | {"points": points, "seconds_per_point": total / points if points > 0 else MISSING}
        )
    return pd.DataFrame(rows)


def _gained(differences: pd.DataFrame) -> dict[str, float]:
    """Points that each method gained on the base model, on the mean of sets or on the only set."""
    found = {}
    for row in differences.to_dict("records"):
        if row["reference"] == BASE and (row["task"] == MEAN or row["method"] not in found):
            found[str(row["method"])] = 100 * row["difference"]
    return found


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


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
