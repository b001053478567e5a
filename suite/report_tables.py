"""Tables of a report beside accuracies and fairness: means across sets, pairing, stability, before against after."""

from __future__ import annotations

import numpy as np
import pandas as pd

from suite.tables import NOTHING, heading, overall, percent, records


def interquartile_table(means: pd.DataFrame) -> pd.DataFrame:
    """Rows the models: interquartile mean in per cent with its interval, and how many scores it is taken over."""
    rows = [
        {"model": r["method"], "interquartile mean": percent(r["iqm"], r["low"], r["high"])}
        | {"scores": f"{r['seeds'] * r['sets']} = {r['seeds']} x {r['sets']}"}
        for r in records(means)
    ]
    return pd.DataFrame(rows)


def pairing_table(pairing: pd.DataFrame) -> pd.DataFrame:
    """Rows the pairs of models, on the mean over the sets: correlations, and the variance that pairing took out."""

    def plain(x: float, pattern: str) -> str:
        return NOTHING if np.isnan(x) else format(x, pattern)

    rows = []
    for _, part in pairing.groupby(["method", "reference"], sort=False):
        whole = overall(part)
        rows.append(
            {
                "pair": f"{whole['method']} − {whole['reference']}",
                "correlation": plain(whole["correlation"], "+.2f"),
                "of samples": plain(whole["sample_correlation"], "+.2f"),
                "variance without": f"x {plain(whole['variance_factor'], '.2f')}",
            }
        )
    return pd.DataFrame(rows)


def changes_table(changes: pd.DataFrame) -> pd.DataFrame:
    """`changes.changes_between` for people: points after minus before with intervals."""
    rows = []
    for method, part in changes.groupby("method", sort=False):
        row = {"method": str(method)}
        row |= {heading(r["task"]): percent(r["difference"], r["low"], r["high"], sign=True) for r in records(part)}
        whole = overall(part)
        row |= {"detectable": percent(whole["minimum_detectable"]), "same runs": whole["same_runs"]}
        row["clipped"] = f"{percent(whole['clipped_before'])} → {percent(whole['clipped_after'])}"
        rows.append(row | {"verdict": whole["verdict"]})
    return pd.DataFrame(rows)


def stability_table(summary: pd.DataFrame) -> pd.DataFrame:
    """`stability.stability_summary` for people: shares in per cent, rewards between 0 and 1."""
    rows = [
        {
            "method": r["method"],
            "runs": str(r["runs"]),
            "collapsed": percent(r["collapsed"], r["collapsed_low"], r["collapsed_high"]),
            "drawdown": f"{r['drawdown']:.3f}",
            "largest": f"{r['largest_drawdown']:.3f}",
            "spikes": percent(r["spike_share"]),
            "entropy": f"{r['entropy_drift']:+.3f}",
            "length": f"x {r['length_ratio']:.2f}",
            "rates above base": r["rates_above_base"],
        }
        for r in records(summary)
    ]
    return pd.DataFrame(rows)
