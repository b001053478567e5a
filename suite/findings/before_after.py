"""Before and after a change: two comparisons of the same methods, paired by training seed and problem."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from suite.experiments.finished import load_comparison
from suite.records.comparison_folder import stored_config
from suite.records.result import digest
from suite.statistics.compare import compare
from suite.types import RunResult, UserError

SEED = 0
BEFORE, AFTER = "before", "after"
CLIPPED = "clip/clipped"


def changes_between(before: Path, after: Path) -> pd.DataFrame:
    """One row a common method and set: accuracy after minus before, with the intervals of `compare.compare`.

    same_runs counts seeds whose two results are equal in every digested number; clipped_before and clipped_after are
    mean logged clipped shares. UserError where the two have no method or seed in common, or other problems.
    """
    sides = {}
    for label, folder in ((BEFORE, before), (AFTER, after)):
        config = stored_config(folder)
        sides[label] = (config, *load_comparison(config, folder))
    common = [name for name in sides[BEFORE][0].methods if name in sides[AFTER][0].methods]
    if not common:
        raise UserError(f"{before} and {after} have no method in common")
    base, repetitions = sides[BEFORE][1], sides[BEFORE][0].bootstrap
    frames = []
    for method in common:
        runs = {label: [run for run in sides[label][2] if run.method == method] for label in sides}
        named = [dataclasses.replace(run, method=label) for label in (AFTER, BEFORE) for run in runs[label]]
        found = compare(base.evals, named, seed=SEED, repetitions=repetitions).differences
        rows = found[(found["method"] == AFTER) & (found["reference"] == BEFORE)]
        frames.append(
            rows.drop(columns=["reference", "p_holm"]).assign(
                method=method,
                same_runs=_same(runs[BEFORE], runs[AFTER]),
                clipped_before=_clipped(runs[BEFORE]),
                clipped_after=_clipped(runs[AFTER]),
            )
        )
    return pd.concat(frames, ignore_index=True)


def _same(before: Sequence[RunResult], after: Sequence[RunResult]) -> str:
    """How many of the common seeds have the same result on both sides."""
    known = {run.seed: digest(run) for run in before}
    common = [run for run in after if run.seed in known]
    return f"{sum(digest(run) == known[run.seed] for run in common)} of {len(common)}"


def _clipped(runs: Sequence[RunResult]) -> float:
    shares = [x for run in runs for x in run.curves.get(CLIPPED, ()) if x is not None]
    return float(np.mean(shares)) if shares else float("nan")
