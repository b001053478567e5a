"""What methods estimated while they trained and what their clip then read, such as FSPO's drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from suite.statistics.frames import Number
from suite.types import Method, RunResult

LOGGED = "state/"
"""How the curves begin that hold a method's running estimates, one value a rollout step."""
SENTENCE = (
    "Some methods keep running estimates from update to update and read them in the next one. What was logged at the "
    "end of every rollout step, over all runs of a method (a drift is in nats per token):"
)


def running_estimates(runs: Sequence[RunResult], methods: Mapping[str, Method]) -> pd.DataFrame:
    """One row a method that reads running estimates, and estimate of it that its runs logged.

    Columns: method, estimate, first and last (mean over runs at the first and last logged step), mean, lowest, highest
    (over all logged steps of all runs). Units are the estimate's; a drift is in nats per token.
    """
    rows = []
    for name in dict.fromkeys(run.method for run in runs):
        if not methods[name].reads_state(methods[name].hyper):
            continue
        curves = [run.curves for run in runs if run.method == name]
        for key in dict.fromkeys(key for each in curves for key in each if key.startswith(LOGGED)):
            logged = [[x for x in each.get(key, ()) if x is not None] for each in curves]
            logged = [values for values in logged if values]
            if not logged:
                continue
            every = np.concatenate([np.asarray(values, dtype=float) for values in logged])
            rows.append(
                {
                    "method": name,
                    "estimate": key.removeprefix(LOGGED),
                    "first": float(np.mean([values[0] for values in logged])),
                    "mean": float(every.mean()),
                    "last": float(np.mean([values[-1] for values in logged])),
                    "lowest": float(every.min()),
                    "highest": float(every.max()),
                }
            )
    return pd.DataFrame(rows, columns=["method", "estimate", "first", "mean", "last", "lowest", "highest"])


def estimates_table(estimates: pd.DataFrame) -> pd.DataFrame:
    """`running_estimates` for people."""
    numbers = ("first", "mean", "last", "lowest", "highest")
    rows = [
        {"method": r["method"], "estimate": r["estimate"]} | {name: Number.of(r[name], ".3g") for name in numbers}
        for r in estimates.to_dict("records")
    ]
    return pd.DataFrame(rows, columns=["method", "estimate", *numbers])
