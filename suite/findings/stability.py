"""How steadily each method trains: collapse, falls on the probe set, gradient spikes, drift of entropy and length.

All rules are ours; those behind a claim stand in `suite.findings.rules`. They read what a finished cell stores: its
logged curves, and its final answers beside the base model's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit
from scipy.stats import chi2

from suite.experiments.finished import load_comparison
from suite.records.comparison_folder import CONFIG_FILE, stored_config
from suite.records.result import BASE, end_steps, ends
from suite.statistics.compare import compare
from suite.statistics.frames import NOTHING, names_of, numbers_of, select
from suite.statistics.intervals import wilson_limits
from suite.statistics.variance import LEVEL
from suite.statistics.verdict_counts import scores
from suite.types import RunResult, UserError

PROBE = "probe/reward"
"""Mean reward on a fixed set of problems with common noise, logged every few steps."""
SPIKE = 5.0
"""A gradient norm above this many times the run's median is a spike."""
SWEEP = "sweep"
"""Folder beside a comparison's cells that holds the same comparison at other learning rates, one folder each."""
NUMBERS = ("collapsed", "probe_fall", "spike_share", "entropy_drift", "length_ratio")
_RULES = (
    "a run collapsed when its final accuracy on the mean of sets lies below the base model's with its whole 95 % "
    "interval over problems, or a reward or gradient norm is no number; its interval counts a seed once, however many "
    "rates it was trained with. `probe fall` is the largest fall of the reward on a fixed set of problems below its "
    "earlier maximum; `spread` the standard deviation of final accuracies over seeds, in points; a spike is a gradient "
    "norm above 5 times the run's median; entropy in nats a token and response length compare the last "
)

CURVES: Mapping[str, str] = {
    "reward": "mean reward",
    PROBE: "reward on the probe set",
    "entropy/mean": "entropy, nats a token",
    "length/mean": "response length, tokens",
    "grad_norm/max": "largest gradient norm",
    "kl/old_new_k3": "KL(old || new), nats a token",
    "clip/clipped": "clipped share",
}
"""Logged numbers that the training figure shows, and their titles."""


def rules_text(steps: int) -> str:
    """What the columns of a stability table mean, for runs of so many steps."""
    compared = {1: "step with the first", 2: "two steps with the first two", 3: "three steps with the first three"}
    return _RULES + compared[end_steps(steps)]


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

    broken         1 when a reward or gradient norm is not a number, else 0
    probe_fall     largest fall of the reward on the probe set below its earlier maximum; nan with fewer than two probes
    spike_share    share of steps whose largest gradient norm, before the cut, exceeds 5 times the run's median; nan
                   where one is not a number
    entropy_drift  mean entropy of the last steps minus that of the first (`ends`), nats a token; nan of a single step
    length_ratio   mean response length of the last steps over that of the first; nan of a single step
    """
    reward, norm = _numbers(curves, "reward/mean"), _numbers(curves, "grad_norm/max")
    entropy, length = _numbers(curves, "entropy/mean"), _numbers(curves, "length/mean")
    probe = _numbers(curves, PROBE) if PROBE in curves else np.array([])
    probe = probe[~np.isnan(probe)]
    (start, end), (first_length, last_length) = ends(list(entropy)), ends(list(length))
    return {
        "broken": float(not (np.isfinite(reward).all() and np.isfinite(norm).all())),
        "probe_fall": float(np.max(np.maximum.accumulate(probe) - probe)) if len(probe) > 1 else np.nan,
        "spike_share": float(np.mean(norm > SPIKE * np.median(norm))) if np.isfinite(norm).all() else np.nan,
        "entropy_drift": end - start,
        "length_ratio": last_length / first_length,
    }


def _numbers(curves: Mapping[str, Sequence[float | None]], name: str) -> np.ndarray:
    return np.array([np.nan if x is None else x for x in curves[name]], float)


def against_base(run: RunResult, base: RunResult) -> dict[str, float]:
    """One run's final accuracy on the mean of sets, and how far ahead of the base model it ends, with a 95 % interval.

        ahead = mean over sets of mean over problems of (run - base),   error^2 = sum over sets of var / n / sets^2

    Paired by problem; Student's t with the problems of the smallest set, less one. The run's seed is given, so the
    interval says whether this run's end is below the base model, not whether the method's is. Source: ours.
    """
    names = [result.task for result in run.evals]
    models = {id(each): {found.task: scores({0: found}, each.method) for found in each.evals} for each in (run, base)}
    gaps = [models[id(run)][name].means[0] - models[id(base)][name].means[0] for name in names]
    ahead = float(np.mean([gap.mean() for gap in gaps]))
    single = min(map(len, gaps)) < 2  # one problem says nothing of others: the interval has no ends
    error = np.nan if single else float(np.sqrt(sum(gap.var(ddof=1) / len(gap) for gap in gaps))) / len(gaps)
    half = float(stdtrit(min(map(len, gaps)) - 1, (1 + LEVEL) / 2)) * error
    final = float(np.mean([models[id(run)][name].means.mean() for name in names]))
    return {"final": final, "ahead": ahead, "ahead_low": ahead - half, "ahead_high": ahead + half}


def stability(sweep: Sequence[RateRuns]) -> pd.DataFrame:
    """One row a run: learning_rate, method, seed, collapsed, the numbers of `run_stability` and `against_base`.

    collapsed: 1 when the run is broken or its end lies below the base model with its whole interval, else 0.
    """
    rows = []
    for part in sweep:
        for run in part.runs:
            numbers = run_stability(run.curves) | against_base(run, part.base)
            collapsed = float(numbers["broken"] > 0 or numbers["ahead_high"] < 0)
            row = {"learning_rate": part.rate, "method": run.method, "seed": run.seed, "collapsed": collapsed}
            rows.append(row | numbers)
    return pd.DataFrame(rows)


def seed_spread(runs: pd.DataFrame) -> tuple[float, float, float]:
    """Standard deviation of one method's final accuracies over seeds, and its 95 % interval; nan for one seed.

        s sqrt((n - 1) / chi2(.975, n - 1))  to  s sqrt((n - 1) / chi2(.025, n - 1))

    At the learning rate with the most seeds, the first of them: other rates of the same seeds are no new observations.
    """
    counts = runs.groupby("learning_rate", sort=False)["seed"].nunique()
    final = numbers_of(select(runs, learning_rate=counts.idxmax()), "final")
    free = len(final) - 1
    if free < 1:
        return np.nan, np.nan, np.nan
    spread = float(final.std(ddof=1))
    low, high = (spread * float(np.sqrt(free / chi2.ppf(tail, free))) for tail in ((1 + LEVEL) / 2, (1 - LEVEL) / 2))
    return spread, low, high


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
    """One row a method: runs, seeds, collapsed share, means over runs, spread over seeds, and learning rates that end
    above the base model (their interval excludes 0), as text.

    collapsed_low, collapsed_high: Wilson limits with a seed as one trial: the runs of one seed are not independent.
    """
    rows = []
    for method in names_of(runs, "method"):
        mine = select(runs, method=method)
        numbers = {name: numbers_of(mine, name) for name in NUMBERS}
        seeds = len(set(mine["seed"].tolist()))
        low, high = wilson_limits(float(numbers["collapsed"].mean()), seeds)
        own = select(gain, method=method)
        above = numbers_of(own, "learning_rate")[numbers_of(own, "low") > 0]
        rows.append(
            {"method": method, "runs": len(mine), "seeds": seeds, "collapsed_low": low, "collapsed_high": high}
            | {name: float(x.mean()) for name, x in numbers.items()}
            | dict(zip(("spread", "spread_low", "spread_high"), seed_spread(mine), strict=True))
            | {"rates_above_base": ", ".join(f"{rate:g}" for rate in above) or NOTHING}
        )
    return pd.DataFrame(rows)
