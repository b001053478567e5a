"""Limits of one accuracy on a small set: against scipy's, and where compare uses which."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from suite.config import MEAN
from suite.statistics.compare import compare
from suite.statistics.intervals import FEW_SEEDS, effective_trials, exact_limits, few_seeds, wilson_limits
from suite.types import EvalResult, RunResult, Verdict

C, W = Verdict.CORRECT, Verdict.WRONG


def evaluated(task: str, hits: np.ndarray) -> EvalResult:
    """One evaluation from booleans [problems, samples]."""
    rows = tuple(tuple(C if hit else W for hit in row) for row in hits)
    ids = tuple(f"{task}{i}" for i in range(len(rows)))
    return EvalResult(task, "1", "d", ids, rows, tuple((3,) * len(row) for row in rows), 0.0)


def accuracies(sets: dict[str, np.ndarray], methods: dict[str, list[dict[str, np.ndarray]]]) -> pd.DataFrame:
    """The table of compare, by method and set; `methods` has hits by seed and set."""
    runs = [
        RunResult(1, name, seed, {}, tuple(evaluated(t, h) for t, h in one.items()), {}, {}, {}, {})
        for name, seeds in methods.items()
        for seed, one in enumerate(seeds)
    ]
    base = [evaluated(task, hits) for task, hits in sets.items()]
    return compare(base, runs, seed=0, repetitions=200).accuracies.set_index(["method", "task"])


@pytest.mark.parametrize(("value", "hits"), [(0.0, 0), (1.0, 37)])
def test_exact_limits_are_clopper_and_pearsons(value: float, hits: int) -> None:
    expected = stats.binomtest(hits, 37).proportion_ci(0.95, method="exact")
    assert exact_limits(value, 37) == pytest.approx((expected.low, expected.high), rel=1e-9)


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (3, 30), (29, 30), (150, 299)])
def test_wilson_limits_are_scipys(hits: int, trials: int) -> None:
    expected = stats.binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    assert wilson_limits(hits / trials, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_few_degrees_of_freedom_widen_wilson_limits() -> None:
    narrow, wide = wilson_limits(0.3, 40), wilson_limits(0.3, 40, df=4)
    assert 0 < wide[0] < narrow[0] < 0.3 < narrow[1] < wide[1] < 1


def test_one_sample_of_one_seed_has_as_many_trials_as_problems_less_one() -> None:
    hits = (np.arange(30) < 4)[:, None]
    row = accuracies({"aime": hits}, {}).loc["base", "aime"]
    value = 4 / 30
    assert row["interval"] == "wilson"
    assert row["effective_trials"] == pytest.approx(29)
    assert (row["low"], row["high"]) == pytest.approx(wilson_limits(value, 29, 29), rel=1e-9)
    assert effective_trials(value, np.sqrt(value * (1 - value) / 29)) == pytest.approx(29)


def test_which_interval_is_used() -> None:
    rng = np.random.default_rng(0)
    sets = {"small": rng.random((299, 2)) < 0.5, "large": rng.random((300, 2)) < 0.5, "none": np.zeros((40, 2), bool)}
    table = accuracies(sets, {"m": [sets, sets]})
    for model in ("base", "m"):
        kinds = [table.loc[(model, task), "interval"] for task in ("small", "large", "none", MEAN)]
        assert kinds == ["wilson", "bootstrap", "exact", "bootstrap"]
    varied = accuracies({"even": np.tile([True, False], (20, 1))}, {}).loc["base", "even"]
    assert varied["interval"] == "none"
    assert np.isnan(varied["low"])


def test_samples_of_one_problem_count_less_than_new_problems() -> None:
    rng = np.random.default_rng(0)
    chance = rng.beta(0.5, 0.5, (100, 1))
    row = accuracies({"t": rng.random((100, 8)) < chance}, {}).loc["base", "t"]
    assert 100 < row["effective_trials"] < 250  # 800 samples; 100 problems that are nearly always or never solved


def test_few_seeds_says_what_was_measured() -> None:
    assert few_seeds(1) == ", few seeds"
    assert few_seeds(FEW_SEEDS + 1) == ""
