"""How steadily each method trains: collapse, drawdown, gradient spikes, drift of entropy and length, by learning rate.

All rules are ours. They read the curves that a finished cell stores, nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from suite.experiments.finished import load_comparison
from suite.records.comparison_folder import CONFIG_FILE, stored_config
from suite.records.result import BASE
from suite.statistics.compare import compare
from suite.statistics.frames import NOTHING, names_of, numbers_of, select
from suite.types import RunResult, UserError

WINDOW = 3
"""Steps that a start, an end and a smoothed reward are the mean of."""
COLLAPSE = 0.5
"""A run collapsed when its last rewards are below this share of its first ones."""
SPIKE = 5.0
"""A gradient norm above this many times the run's median is a spike."""
SWEEP = "sweep"
"""Folder beside a comparison's cells that holds the same comparison at other learning rates, one folder each."""
NUMBERS = ("collapsed", "drawdown", "spike_share", "entropy_drift", "length_ratio")

CURVES: Mapping[str, str] = {
    "reward": "mean reward",
    "entropy/mean": "entropy, nats a token",
    "length/mean": "response length, tokens",
    "grad_norm/max": "largest gradient norm",
    "kl/old_new_k3": "KL(old || new), nats a token",
    "clip/clipped": "clipped share",
}
"""Logged numbers that the training figure shows, and their titles."""


@dataclass(frozen=True)
class RateRuns:
    """One comparison of a learning-rate sweep."""

    rate: float
    base: RunResult
    runs: Sequence[RunResult]


def sweep_of(folder: Path) -> list[RateRuns]:
    """The comparison in a folder and those of its sweep, by learning rate.

    UserError where one is unfinished or altered, differs in more than seeds and rate, or two have the same rate.
    """
    folders = [folder, *sorted(p.parent for p in (folder / SWEEP).glob(f"*/{CONFIG_FILE}"))]
    configs = [stored_config(each) for each in folders]
    found: dict[float, RateRuns] = {}
    for each, config in zip(folders, configs, strict=True):
        other = _difference(configs[0], config)
        if other:
            raise UserError(
                f"{each}: differs from {folder} in {other}; a sweep changes train.learning_rate and seeds only"
            )
        rate = config.train.learning_rate
        if rate in found:
            raise UserError(f"{each}: learning rate {rate:g} is there twice; keep one of the two folders")
        found[rate] = RateRuns(rate, *load_comparison(config, each))
    return [found[rate] for rate in sorted(found)]


def _difference(one: object, other: object) -> str:
    """The first field of `train`, `evaluation`, `options` or `methods` in which two comparisons differ."""
    for part in ("train", "evaluation"):
        a, b = vars(getattr(one, part)), vars(getattr(other, part))
        for name in a:
            if name != "learning_rate" and a[name] != b[name]:
                return f"{part}.{name}"
    return next((name for name in ("methods", "options") if getattr(one, name) != getattr(other, name)), "")


def run_stability(curves: Mapping[str, Sequence[float | None]]) -> dict[str, float]:
    """Numbers of one run from its logged curves, one entry a step.

    collapsed      1 when the mean reward of the last three steps is below half of that of the first three, or when a
                   reward or gradient norm is not a number; else 0
    drawdown       largest fall of the reward, smoothed over three steps, below its earlier maximum
    spike_share    share of steps whose largest gradient norm, before the cut, exceeds 5 times the run's median
    entropy_drift  mean entropy of the last three steps minus that of the first three, nats a token
    length_ratio   mean response length of the last three steps over that of the first three
    """
    reward, norm = _numbers(curves, "reward/mean"), _numbers(curves, "grad_norm/max")
    entropy, length = _numbers(curves, "entropy/mean"), _numbers(curves, "length/mean")
    smooth = np.convolve(reward, np.full(WINDOW, 1 / WINDOW), mode="valid") if len(reward) >= WINDOW else reward
    start, end = reward[:WINDOW].mean(), reward[-WINDOW:].mean()
    broken = not (np.isfinite(reward).all() and np.isfinite(norm).all())
    return {
        "collapsed": float(broken or end < COLLAPSE * start),
        "drawdown": float(np.max(np.maximum.accumulate(smooth) - smooth)),
        "spike_share": float(np.mean(norm > SPIKE * np.median(norm))),
        "entropy_drift": float(entropy[-WINDOW:].mean() - entropy[:WINDOW].mean()),
        "length_ratio": float(length[-WINDOW:].mean() / length[:WINDOW].mean()),
    }


def _numbers(curves: Mapping[str, Sequence[float | None]], name: str) -> np.ndarray:
    return np.array([np.nan if x is None else x for x in curves[name]], float)


def stability(sweep: Sequence[RateRuns]) -> pd.DataFrame:
    """One row a run: learning_rate, method, seed, the numbers of `run_stability`."""
    return pd.DataFrame(
        [
            {"learning_rate": part.rate, "method": run.method, "seed": run.seed} | run_stability(run.curves)
            for part in sweep
            for run in part.runs
        ]
    )


def gains(sweep: Sequence[RateRuns], *, seed: int, repetitions: int) -> pd.DataFrame:
    """Difference to the base model on the mean of sets, by learning_rate and method (`compare.compare`)."""
    rows = []
    for part in sweep:
        found = compare(part.base.evals, part.runs, seed=seed, repetitions=repetitions).differences
        whole: dict[str, dict[str, Any]] = {}
        for row in found.to_dict("records"):
            if row["reference"] == BASE:
                whole[row["method"]] = row  # the mean over the sets stands last
        for method, row in whole.items():
            numbers = {name: row[name] for name in ("difference", "low", "high", "seeds")}
            rows.append({"learning_rate": part.rate, "method": method} | numbers)
    return pd.DataFrame(rows)


def stability_summary(runs: pd.DataFrame, gain: pd.DataFrame) -> pd.DataFrame:
    """One row a method: runs, collapsed share with its Wilson interval, means over runs, and learning rates that end
    above the base model (their interval excludes 0), as text.
    """
    rows = []
    for method in names_of(runs, "method"):
        numbers = {name: numbers_of(select(runs, method=method), name) for name in NUMBERS}
        count = len(numbers["collapsed"])
        share = binomtest(int(numbers["collapsed"].sum()), count).proportion_ci(method="wilson")
        own = select(gain, method=method)
        above = numbers_of(own, "learning_rate")[numbers_of(own, "low") > 0]
        rows.append(
            {"method": method, "runs": count, "collapsed_low": share.low, "collapsed_high": share.high}
            | {name: float(x.mean()) for name, x in numbers.items()}
            | {"largest_drawdown": float(numbers["drawdown"].max())}
            | {"rates_above_base": ", ".join(f"{rate:g}" for rate in above) or NOTHING}
        )
    return pd.DataFrame(rows)
