"""The rule of verdicts: Holm and two one-sided tests against their equations, families, pooled seed variance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from suite.config import MEAN
from suite.records.result import BASE
from suite.statistics.bootstrap import bootstrap
from suite.statistics.compare import compare
from suite.statistics.variance import SeedDoubt, error_of, mean_squares, measured_error, minimum_detectable, seed_doubt
from suite.statistics.verdicts import MARGIN, by_the_rule, equivalence_p, holm, verdict
from suite.types import EvalResult, RunResult, Verdict

# --- Holm and TOST --------------------------------------------------------------------------------


@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=7))
def test_holm_rejects_what_the_step_down_procedure_rejects(p: list[float]) -> None:
    adjusted = holm(p)
    for level in (0.01, 0.05, 0.2, 0.5):
        rejected: set[int] = set()
        for rank, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
            if p[i] * (len(p) - rank) > level:
                break
            rejected.add(i)
        assert {i for i in range(len(p)) if adjusted[i] <= level} == rejected


def test_holm_counts_what_has_no_p_value() -> None:
    adjusted = holm([0.02, math.nan, 0.03])
    assert adjusted[[0, 2]].tolist() == [0.06, 0.06]
    assert math.isnan(adjusted[1])


@given(st.integers(0, 10_000), st.floats(-0.02, 0.02), st.floats(0.002, 0.02))
def test_equivalence_is_two_one_sided_t_tests(seed: int, shift: float, spread: float) -> None:
    sample = np.random.default_rng(seed).normal(shift, spread, 9)
    _, above = stats.ttest_1samp(sample, -MARGIN, alternative="greater")
    _, below = stats.ttest_1samp(sample, MARGIN, alternative="less")
    inner = stats.ttest_1samp(sample, 0).confidence_interval(0.90)
    found = equivalence_p(sample.mean(), inner.low, inner.high, 8)
    assert found == pytest.approx(max(above, below), rel=1e-9)
    assert (found < 0.05) == (inner.low > -MARGIN and inner.high < MARGIN)


def test_equivalence_of_nothing_is_nothing() -> None:
    assert math.isnan(equivalence_p(0.0, math.nan, math.nan, math.nan))


@pytest.mark.parametrize(
    ("difference", "low", "p_holm", "p_equal", "words"),
    [
        (0.03, 0.01, 0.049, 1.0, "better"),
        (-0.03, -0.05, 0.049, 1.0, "worse"),
        (0.03, 0.01, 0.05, 1.0, "undecided"),  # the interval excludes 0, the correction takes it back
        (0.002, -0.004, 0.5, 0.049, "equal within 1 point"),
        (0.002, -0.004, 0.5, 0.05, "undecided"),
        (0.004, 0.001, 0.01, 0.01, "better"),  # better by less than a point: both hold, and better is said
        (0.0, math.nan, math.nan, math.nan, "no variation"),
        (0.01, 0.002, math.nan, math.nan, "undecided"),  # one seed
    ],
)
def test_words_follow_the_corrected_p_values(
    difference: float, low: float, p_holm: float, p_equal: float, words: str
) -> None:
    assert verdict(difference, low, p_holm, p_equal) == words


# --- families -------------------------------------------------------------------------------------


def rows(*cells: tuple[str, str, str, float, float]) -> list[dict]:
    """Differences with symmetric t intervals: method, reference, outcome, value and standard error in points."""
    made = []
    for method, reference, task, value, error in cells:
        wide, inner = (stats.t.ppf(tail, 20) * error / 100 for tail in (0.975, 0.95))
        one = {"method": method, "reference": reference, "task": task, "difference": value / 100}
        one |= {"low": value / 100 - wide, "high": value / 100 + wide}
        one |= {"low_90": value / 100 - inner, "high_90": value / 100 + inner, "standard_error": error / 100}
        one |= {"minimum_detectable": minimum_detectable(error / 100, 20), "df": 20.0, "seeds": 3}
        made.append(one | {"p": 2 * stats.t.sf(abs(value) / error, 20)})
    return made


def test_each_family_is_corrected_by_itself_and_exploratory_pairs_by_none() -> None:
    pairs = [("a", "b"), ("a", "c")]
    found = by_the_rule(
        rows(
            ("a", BASE, MEAN, 6, 1),
            *((m, r, task, 2.2 + i, 1) for i, (m, r) in enumerate(pairs) for task in ("x", "y", MEAN)),
            ("b", "c", MEAN, 6, 1),
        ),
        pairs,
        MEAN,
    )
    assert found["family"].tolist() == ["exploratory", *(["sets", "sets", "primary"] * 2), "exploratory"]
    for family, count in (("primary", 2), ("sets", 4)):
        part = found[found["family"] == family]
        assert len(part) == count
        np.testing.assert_allclose(part["p_holm"], holm(part["p"].tolist()))
        np.testing.assert_allclose(part["p_equal_holm"], holm(part["p_equal"].tolist()))
    others = found[found["family"] == "exploratory"]
    assert set(others["verdict"]) == {"exploratory"}
    assert others[["p_holm", "p_equal_holm"]].isna().all().all()
    # 2.2 standard errors: found among two comparisons of the primary outcome, not among four on single sets.
    declared = found[found["method"].eq("a") & found["reference"].ne(BASE)]
    assert declared.set_index(["task", "reference"])["verdict"].to_dict() == {
        ("x", "b"): "undecided",
        ("y", "b"): "undecided",
        (MEAN, "b"): "better",
        ("x", "c"): "better",
        ("y", "c"): "better",
        (MEAN, "c"): "better",
    }


def test_the_detectable_difference_is_the_designs_and_pays_for_the_family() -> None:
    found = by_the_rule(rows(("a", "b", MEAN, 1, 0.6), ("a", "c", MEAN, 1, 0.8)), [("a", "b"), ("a", "c")], MEAN)
    error = math.sqrt((0.006**2 + 0.008**2) / 2)
    expected = (stats.t.ppf(1 - 0.05 / 2 / 2, 20) + stats.t.ppf(0.8, 20)) * error
    np.testing.assert_allclose(found["minimum_detectable"], [expected] * 2)


def test_one_seed_decides_nothing() -> None:
    (row,) = rows(("a", "b", MEAN, 9, 0.1))
    found = by_the_rule([row | {"seeds": 1}], [("a", "b")], MEAN).iloc[0]
    assert found["verdict"] == "undecided"
    assert math.isnan(found["p"])
    assert math.isnan(found["minimum_detectable"])


# --- pooled seed variance -------------------------------------------------------------------------


def cells_of(rng: np.random.Generator, seeds: int, *sds: float, problems: int = 40) -> np.ndarray:
    """Normal accuracies [methods, seeds, problems] whose seed means vary by these standard deviations."""
    methods = len(sds)
    by_seed = rng.normal(0, 1, (methods, seeds, 1)) * np.array(sds)[:, None, None]
    return by_seed + rng.normal(0, 0.2, (methods, 1, problems)) + rng.normal(0, 0.2, (methods, seeds, problems))


def test_pooled_variance_is_the_mean_square_of_methods_by_seeds() -> None:
    cells = cells_of(np.random.default_rng(0), 5, 0.1, 0.2, 0.3)
    pairs = [{"set": cells[a] - cells[b]} for a, b in combinations(range(3), 2)]
    table = cells.mean(axis=2)
    left = table - table.mean(axis=0) - table.mean(axis=1)[:, None] + table.mean()
    assert seed_doubt(pairs).variance == pytest.approx(2 * (left**2).sum() / (2 * 4))
    assert not seed_doubt(pairs).alone
    assert seed_doubt(pairs[:1]) == SeedDoubt(alone=True)
    assert seed_doubt([{"set": cells[0][:1]}, *pairs]) == seed_doubt(pairs)


def test_the_larger_seed_variance_counts_with_the_pairs_own_degrees_of_freedom() -> None:
    matrix = cells_of(np.random.default_rng(1), 4, 0.1)[0]
    own = matrix.mean(axis=1).var(ddof=1)
    parts = ([matrix.mean(axis=0).var(ddof=1) / 40], [mean_squares(matrix)[1] / 160], 4, [40])
    assert measured_error({"set": matrix}, SeedDoubt(own / 2)) == measured_error({"set": matrix})
    assert measured_error({"set": matrix}, SeedDoubt(9 * own)) == pytest.approx(error_of(9 * own / 4, *parts))
    error, df = measured_error({"set": matrix}, SeedDoubt(alone=True))
    assert (error, df) == (measured_error({"set": matrix})[0], min(3, measured_error({"set": matrix})[1]))


def test_pairs_of_one_comparison_have_degrees_of_freedom_of_one_kind() -> None:
    """One pair whose seeds agree by chance had hundreds of degrees of freedom beside another's two."""
    rng = np.random.default_rng(3)
    cells = cells_of(rng, 3, 0.2, 0.2, 0.2, problems=100)
    cells[1] += (cells[0].mean(axis=1) - cells[1].mean(axis=1))[:, None]  # methods 0 and 1 move together
    pairs = {f"{a}{b}": {"set": cells[a] - cells[b]} for a, b in combinations(range(3), 2)}
    doubt = seed_doubt(pairs.values())
    alone = bootstrap(pairs, seed=0, repetitions=100)
    pooled = bootstrap(pairs, seed=0, repetitions=100, doubts=dict.fromkeys(pairs, doubt))
    assert max(one.df for one in alone.values()) > 50
    assert max(one.df for one in pooled.values()) < 4


# --- through verdicts of responses ----------------------------------------------------------------


def evaluated(rng: np.random.Generator, chance: np.ndarray) -> EvalResult:
    """Four samples of every problem, answered with these chances."""
    hits = rng.random((len(chance), 4)) < chance[:, None]
    verdicts = tuple(tuple(Verdict.CORRECT if hit else Verdict.WRONG for hit in each) for each in hits)
    lengths = tuple((3,) * 4 for _ in chance)
    return EvalResult("add", "1", "d", tuple(f"p{i}" for i in range(len(chance))), verdicts, lengths, 0.0)


def simulated(seeds: int, names: Sequence[str] = ("one", "other", "main", "poor"), **settings) -> pd.DataFrame:
    """Differences of three methods alike and one that is much worse."""
    rng = np.random.default_rng(5)
    chance = rng.uniform(0.3, 0.7, 60)
    base = [evaluated(rng, chance)]
    runs = [
        RunResult(1, name, seed, {}, (evaluated(rng, chance - (0.25 if name == "poor" else 0)),), {}, {}, {}, {})
        for name in names
        for seed in range(seeds)
    ]
    return compare(base, runs, seed=0, repetitions=300, **settings).differences


def test_the_caller_says_which_pairs_are_declared() -> None:
    found = simulated(3, focus="main", rivals=("one", "poor", "absent"))
    declared = found[found["family"] == "primary"]
    assert list(zip(declared["method"], declared["reference"], strict=True)) == [("main", "one"), ("main", "poor")]
    assert declared["verdict"].tolist() == ["undecided", "better"]
    assert set(found[found["family"] == "exploratory"]["verdict"]) == {"exploratory"}
    assert ("main", "other") in set(zip(found["method"], found["reference"], strict=True))  # the focus stands first
    everything = simulated(3, focus="absent", rivals=("one",))
    assert (everything["family"] == "primary").sum() == 6


def test_more_seeds_make_narrower_intervals() -> None:
    widths = [(frame["high"] - frame["low"]).mean() for frame in map(simulated, (2, 3, 6, 12))]
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 3 * widths[-1]


def test_pooled_variance_reaches_the_table_through_compare() -> None:
    """Two methods alone have S - 1 degrees of freedom, however many problems."""
    two = simulated(3, names=("one", "other"))
    (row,) = two[two["family"] == "primary"].to_dict("records")
    assert row["df"] <= 2  # nothing to pool from
