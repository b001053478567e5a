"""Accuracies, the crossed bootstrap, verdicts: against enumeration, closed forms and simulated worlds."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from suite.config import MEAN
from suite.records.result import BASE
from suite.statistics.bootstrap import _replicates, bootstrap
from suite.statistics.compare import Estimates, compare
from suite.statistics.verdict_counts import pass_at_k, scores
from suite.types import EvalResult, RunResult, UserError, Verdict

C, W, N, U = Verdict.CORRECT, Verdict.WRONG, Verdict.NO_ANSWER, Verdict.UNDECIDED


def result(task: str, rows: list[list[Verdict]], **changes) -> EvalResult:
    made = EvalResult(
        task=task,
        task_version="1",
        data_digest="d",
        problem_ids=tuple(f"{task}{i}" for i in range(len(rows))),
        verdicts=tuple(map(tuple, rows)),
        lengths=tuple((3,) * len(row) for row in rows),
        truncated_share=0.25,
    )
    return dataclasses.replace(made, **changes)


def run(method: str, seed: int, *evals: EvalResult) -> RunResult:
    return RunResult(1, method, seed, {}, evals, {}, {}, {}, {})


def world(
    rng: np.random.Generator, gains: dict[str, float], seeds: int = 3, problems: int = 30, **settings
) -> Estimates:
    """Two sets, four samples, methods that are better than the base by their gain in log-odds."""
    difficulty = {task: rng.normal(0, 1.5, problems) for task in ("add", "gcd")}

    def evals(gain: float) -> list[EvalResult]:
        chance = {task: 1 / (1 + np.exp(-(hard + gain))) for task, hard in difficulty.items()}
        return [
            result(task, [[C if x else W for x in row] for row in rng.random((problems, 4)) < p[:, None]])
            for task, p in chance.items()
        ]

    base = evals(0.0)
    runs = [run(name, seed, *evals(gain)) for name, gain in gains.items() for seed in range(seeds)]
    return compare(base, runs, seed=0, repetitions=500, **settings)


# --- counting -------------------------------------------------------------------------------------


@given(st.integers(1, 8).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n))))
def test_pass_at_k_is_the_share_of_subsets_with_a_hit(case: tuple[int, int, int]) -> None:
    n, correct, k = case
    subsets = list(itertools.combinations([True] * correct + [False] * (n - correct), k))
    assert pass_at_k(np.array(correct), n, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_pass_at_k_refuses_more_than_was_sampled() -> None:
    with pytest.raises(ValueError, match="pass@5"):
        pass_at_k(np.array([1]), 4, 5)


def test_undecided_and_no_answer_are_not_correct_and_are_counted_apart() -> None:
    rows = [[C, C, W, N], [C, U, U, W]]
    found = compare([result("add", rows)], [], seed=0, repetitions=50).accuracies.iloc[0]
    assert found["accuracy"] == 3 / 8
    assert found["undecided_share"] == 2 / 8
    assert found["no_answer_share"] == 1 / 8
    assert found["truncated_share"] == 0.25
    assert found["mean_length"] == 3
    assert found["pass_at_samples"] == 1.0
    counted = scores({0: result("add", rows)}, "base")
    assert counted.correct.tolist() == [[2, 1]]
    assert counted.means.tolist() == [[0.5, 0.25]]


# --- the bootstrap --------------------------------------------------------------------------------


def test_replicates_have_the_moments_of_all_possible_draws() -> None:
    matrix = np.array([[0.0, 0.5, 1.0], [0.25, 1.0, 1.0]])
    everything = [
        matrix[np.ix_(seeds, problems)].mean()
        for seeds in itertools.product(range(2), repeat=2)
        for problems in itertools.product(range(3), repeat=3)
    ]
    drawn = _replicates({"x": {"t": matrix}}, 0, 100_000)["x"]
    # Within 5 standard errors of 100,000 draws (of the mean; of the variance, at most 5 sqrt(2 / 100,000)).
    assert drawn.mean() == pytest.approx(np.mean(everything), abs=5 * np.std(everything) / math.sqrt(100_000))
    assert drawn.var() == pytest.approx(np.var(everything), rel=0.0224)
    assert set(np.unique(drawn.round(9))) == set(np.unique(np.round(everything, 9)))


def test_pairing_removes_what_two_models_share() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random((1, 80))
    one, two = hard + 0.01 * rng.random((3, 80)), hard + 0.01 * rng.random((3, 80))
    drawn = _replicates({"one": {"t": one}, "two": {"t": two}, "difference": {"t": one - two}}, 0, 500)
    np.testing.assert_allclose(drawn["difference"], drawn["one"] - drawn["two"], atol=1e-12)
    assert drawn["difference"].std() < 0.1 * drawn["one"].std()


def test_sets_share_the_draw_of_seeds_and_draw_problems_on_their_own() -> None:
    by_seed = np.array([[0.0] * 5, [1.0] * 5, [2.0] * 5])
    drawn = _replicates({"a": {"x": by_seed}, "b": {"y": by_seed}, "mean": {"x": by_seed, "y": by_seed}}, 0, 300)
    np.testing.assert_allclose(drawn["a"], drawn["b"], atol=1e-12)
    np.testing.assert_allclose(drawn["a"], drawn["mean"], atol=1e-12)
    by_problem = np.arange(5.0)[None].repeat(3, 0)
    drawn = _replicates({"a": {"x": by_problem}, "b": {"y": by_problem}}, 0, 300)
    assert abs(np.corrcoef(drawn["a"], drawn["b"])[0, 1]) < 0.2


def test_another_method_or_set_changes_no_interval() -> None:
    matrix = np.random.default_rng(0).random((3, 20))
    alone = bootstrap({"x": {"t": matrix}}, seed=4, repetitions=300)["x"]
    more = {"w": {"s": matrix[:, :9]}, "x": {"t": matrix}, "z": {"t": matrix[:1]}}
    assert bootstrap(more, seed=4, repetitions=300)["x"] == alone
    assert bootstrap({"x": {"t": matrix}}, seed=5, repetitions=300)["x"] != alone


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = np.random.default_rng(0).random((3, 20))
    whole = bootstrap({"x": {"t": matrix}}, seed=4, repetitions=300)["x"]
    monkeypatch.setattr("suite.statistics.bootstrap.CHUNK_NUMBERS", 20 * 7)
    assert dataclasses.astuple(bootstrap({"x": {"t": matrix}}, seed=4, repetitions=300)["x"]) == pytest.approx(
        dataclasses.astuple(whole), rel=1e-12
    )


def test_scaling_is_the_stated_formula() -> None:
    matrix = np.random.default_rng(2).random((3, 25)) + np.array([[0.0], [0.3], [0.5]]) + np.linspace(0, 0.8, 25)
    found = bootstrap({"x": {"t": matrix}}, seed=0, repetitions=4000)["x"]
    drawn = _replicates({"x": {"t": matrix}}, 0, 4000)["x"]
    v_seeds = np.var([row.mean() for row in matrix], ddof=1) / 3
    v_problems = np.var([column.mean() for column in matrix.T], ddof=1) / 25
    left = [matrix[s, p] - matrix[s].mean() - matrix[:, p].mean() + matrix.mean() for s in range(3) for p in range(25)]
    v_both = sum(x * x for x in left) / 48 / 75
    v = v_seeds + v_problems - v_both
    df = v**2 / (v_seeds**2 / 2 + v_problems**2 / 24 + v_both**2 / 48)
    factor = math.sqrt(v) / drawn.std() * stats.t.ppf(0.975, df) / stats.norm.ppf(0.975)
    limits = matrix.mean() + factor * (np.quantile(drawn, [0.025, 0.975]) - matrix.mean())
    assert (found.low, found.high) == pytest.approx(tuple(limits), rel=1e-9)
    assert (found.standard_error, found.df) == pytest.approx((math.sqrt(v), df), rel=1e-9)
    inner = factor * stats.t.ppf(0.95, df) / stats.norm.ppf(0.95) * stats.norm.ppf(0.975) / stats.t.ppf(0.975, df)
    limits = matrix.mean() + inner * (np.quantile(drawn, [0.05, 0.95]) - matrix.mean())
    assert (found.low_90, found.high_90) == pytest.approx(tuple(limits), rel=1e-9)
    detectable = (stats.t.ppf(0.975, df) + stats.t.ppf(0.8, df)) * math.sqrt(v)
    assert found.minimum_detectable == pytest.approx(detectable, rel=1e-9)


def test_minimum_detectable_difference_is_2_8_standard_errors_with_many_seeds() -> None:
    cells = np.random.default_rng(0).normal(size=(400, 400)) + np.random.default_rng(1).normal(size=(400, 1))
    found = bootstrap({"x": {"t": cells}}, seed=0, repetitions=200)["x"]
    assert found.minimum_detectable / found.standard_error == pytest.approx(2.8, abs=0.01)


def test_p_values_are_nearly_students_and_do_not_know_the_sign() -> None:
    cells = np.random.default_rng(0).normal(5, 1, (4, 30))
    high = bootstrap({"x": {"t": cells}}, seed=0, repetitions=999)["x"]
    students = 2 * stats.t.sf(high.value / high.standard_error, high.df)
    assert high.p == pytest.approx(students, rel=0.5)  # the interval's half replaces t(.975) errors
    noise = np.random.default_rng(1).normal(0, 1, (4, 30))
    up, down = (bootstrap({"x": {"t": sign * noise}}, seed=0, repetitions=999)["x"] for sign in (1, -1))
    assert up.p == pytest.approx(down.p)
    assert up.p > 0.05


@given(st.integers(0, 10_000), st.floats(-0.6, 0.6))
@settings(max_examples=60, deadline=None)
def test_p_is_below_5_per_cent_where_the_interval_excludes_0(seed: int, shift: float) -> None:
    cells = np.random.default_rng(seed).exponential(0.8, (3, 12)) - 0.8 + shift
    found = bootstrap({"x": {"t": cells}}, seed=0, repetitions=200)["x"]
    assert found.low < found.low_90 < found.value < found.high_90 < found.high
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)


def test_nothing_varies_nothing_is_claimed() -> None:
    found = bootstrap({"x": {"t": np.full((3, 9), 0.5)}}, seed=0, repetitions=50)["x"]
    assert found.value == 0.5
    assert all(math.isnan(x) for x in (found.low, found.high, found.standard_error, found.p))
    row = compare([result("add", [[W, W]] * 8)], [], seed=0, repetitions=50).accuracies.iloc[0]
    assert (row["low"], row["high"]) == (0, pytest.approx(1 - 0.025 ** (1 / 8)))


def test_unequal_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="seeds"):
        bootstrap({"x": {"a": np.zeros((2, 3)), "b": np.zeros((3, 3))}}, seed=0)
    with pytest.raises(ValueError, match="problems"):
        bootstrap({"x": {"a": np.zeros((2, 3))}, "y": {"a": np.zeros((2, 4))}}, seed=0)
    with pytest.raises(ValueError, match="set"):
        bootstrap({"x": {}}, seed=0)


# --- the comparison -------------------------------------------------------------------------------


def test_compare_finds_a_large_gain_and_no_false_one() -> None:
    found = world(np.random.default_rng(0), {"good": 2.0, "same": 0.0, "too": 0.0}, problems=150).differences
    on_mean = found[found["task"] == MEAN].set_index(["method", "reference"])
    assert set(on_mean.loc[[("good", BASE), ("same", BASE), ("too", BASE)], "verdict"]) == {"exploratory"}
    assert on_mean.loc[("good", BASE), "low"] > 0
    assert on_mean.loc[("good", "same"), "verdict"] == on_mean.loc[("good", "too"), "verdict"] == "better"
    assert on_mean.loc[("same", "too"), "verdict"] == "undecided"
    assert set(found.loc[found["reference"] != BASE, "family"]) == {"primary", "sets"}


def test_compare_means_are_means() -> None:
    found = world(np.random.default_rng(1), {"a": 0.5, "b": 1.0})
    table = found.accuracies.set_index(["method", "task"])["accuracy"]
    by_seed = found.by_seed.set_index(["method", "task", "seed"])["accuracy"].sort_index()
    for model in (BASE, "a", "b"):
        assert table[model, MEAN] == pytest.approx((table[model, "add"] + table[model, "gcd"]) / 2)
        assert table[model, "add"] == pytest.approx(by_seed[model, "add"].mean())
    differences = found.differences.set_index(["method", "reference", "task"])["difference"]
    assert differences["a", BASE, MEAN] == pytest.approx(table["a", MEAN] - table[BASE, MEAN])
    assert differences["a", "b", "gcd"] == pytest.approx(table["a", "gcd"] - table["b", "gcd"])
    assert len(found.differences) == 3 * 3
    assert len(found.by_seed) == 3 * (1 + 3 + 3)


def test_a_primary_outcome_that_is_no_set_is_refused() -> None:
    with pytest.raises(UserError, match="primary outcome chess"):
        world(np.random.default_rng(2), {"a": 0.1}, primary="chess")


def test_compare_is_deterministic_and_ignores_the_order_of_seeds() -> None:
    rng = np.random.default_rng(0)
    base = [result("add", [[C, W]] * 5 + [[W, W]] * 5)]
    runs = [
        run("m", seed, result("add", [[C if x else W for x in row] for row in rng.random((10, 2)) < 0.6]))
        for seed in (0, 1, 2)
    ]
    one, two = compare(base, runs, seed=0, repetitions=200), compare(base, runs[::-1], seed=0, repetitions=200)
    for field in dataclasses.fields(Estimates):
        pd.testing.assert_frame_equal(getattr(one, field.name), getattr(two, field.name))


def test_methods_are_compared_on_common_seeds() -> None:
    good, bad = result("add", [[C, C], [C, W]]), result("add", [[W, W], [W, C]])
    runs = [run("a", 0, bad), run("a", 1, good), run("b", 1, good), run("b", 2, bad)]
    found = compare([bad], runs, seed=0, repetitions=50).differences
    row = found[(found["method"] == "a") & (found["reference"] == "b")].iloc[0]
    assert (row["difference"], row["seeds"], row["verdict"]) == (0, 1, "no variation")
    with pytest.raises(UserError, match="no seed in common"):
        compare([bad], [run("a", 0, good), run("b", 1, good)], seed=0, repetitions=50)


def test_results_that_cannot_be_compared_are_named() -> None:
    rows = [[C, W], [W, W]]
    base = result("add", rows)
    cases = {
        r"m, set add: other problems": [run("m", 0, result("add", rows, problem_ids=("x", "y")))],
        r"m, set add: other problems than": [run("m", 0, result("add", rows, data_digest="other"))],
        r"m, seed 1, set add": [run("m", 0, base), run("m", 1, result("add", [[C], [W]]))],
        r"m, seed 0, set add": [run("m", 0, result("add", [[C, W], [W]]))],
        r"m, seed 3 is there twice": [run("m", 3, base), run("m", 3, base)],
        r"m was evaluated on gcd": [run("m", 0, result("gcd", rows))],
        r"m, seed 1: other evaluation sets": [run("m", 0, base), run("m", 1, result("gcd", rows))],
    }
    for message, runs in cases.items():
        with pytest.raises(UserError, match=message) as error:
            compare([base], runs, seed=0, repetitions=20)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="base model has no evaluation"):
        compare([], [run("m", 0, base)], seed=0, repetitions=20)
