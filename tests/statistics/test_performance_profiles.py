"""Interquartile means and performance profiles: against trimmed means, counting, and the bootstrap of the mean."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from suite.report.accuracy_figures import profile_figure
from suite.statistics.bootstrap import _replicates, bootstrap
from suite.statistics.performance_profiles import TAUS, interquartile_mean, profiles
from suite.statistics.verdict_counts import Scores


def model(hits: dict[str, np.ndarray]) -> dict[str, Scores]:
    """Scores from booleans [seeds, problems, samples] by set."""
    made = {}
    for task, array in hits.items():
        seeds, problems, samples = array.shape
        ids, zeros = tuple(f"{task}{i}" for i in range(problems)), np.zeros((seeds, problems))
        made[task] = Scores(task, tuple(range(seeds)), ids, "d", samples, array, zeros, zeros, 0.0)
    return made


def two_models(seeds: int = 4) -> dict[str, dict[str, Scores]]:
    rng = np.random.default_rng(0)
    return {
        name: model({task: rng.random((seeds, 20, 3)) < chance + shift for task, chance in (("a", 0.2), ("b", 0.6))})
        for name, shift in (("one", 0.0), ("two", 0.2))
    }


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7, 8, 9, 27, 40])
def test_interquartile_mean_is_the_trimmed_mean(count: int) -> None:
    scores = np.random.default_rng(count).random(count)
    assert interquartile_mean(scores, np.full(count, 1 / count)) == pytest.approx(stats.trim_mean(scores, 0.25))


def test_a_weight_is_a_repeated_score() -> None:
    counts = np.array([2, 0, 3, 1, 0, 1])
    scores = np.array([0.3, 0.9, 0.1, 0.5, 0.7, 0.8])
    repeated = np.repeat(scores, counts)
    weights = counts / counts.sum()
    seven = np.append(scores, 0.2), np.append(weights, 0.0)  # as many scores as were drawn
    assert interquartile_mean(*seven) == pytest.approx(stats.trim_mean(repeated, 0.25))


def test_whole_scores_are_left_out_as_rliable_does() -> None:
    # Of six scores a quarter is 1.5: one is left out at each end, and the other four count alike.
    scores = np.array([0.0, 0.1, 0.2, 0.4, 0.7, 1.0])
    assert interquartile_mean(scores, np.full(6, 1 / 6)) == pytest.approx((0.1 + 0.2 + 0.4 + 0.7) / 4)


def test_profiles_count_scores_and_bands_hold_them() -> None:
    models = two_models()
    means, shares = profiles(models, seed=0, repetitions=400)
    assert len(shares) == 2 * len(TAUS)
    for name, sets in models.items():
        scores = np.concatenate([each.means.mean(axis=1) for each in sets.values()])
        rows = shares[shares["method"] == name]
        assert rows["share"].tolist() == [float(np.mean(scores > tau)) for tau in TAUS]
        assert np.all(rows["low"] <= rows["high"])
        assert np.all(np.diff(rows["share"]) <= 0)
        row = means[means["method"] == name].iloc[0]
        assert (row["seeds"], row["sets"]) == (4, 2)
        assert row["iqm"] == pytest.approx(stats.trim_mean(scores, 0.25))
        assert float(row["low"]) < float(row["iqm"]) < float(row["high"])


def test_the_draws_are_those_of_the_mean() -> None:
    """Where all scores of a draw are one (one seed, one set) the interquartile mean is the mean."""
    hits = np.random.default_rng(0).random((1, 25, 2)) < 0.4
    means, _ = profiles({"m": model({"a": hits})}, seed=3, repetitions=500)
    cells = {"m": {"a": hits.mean(axis=2)}}
    expected = bootstrap(cells, seed=3, repetitions=500)["m"]
    assert (means["low"][0], means["high"][0]) == pytest.approx((expected.low, expected.high), rel=1e-9)
    assert _replicates(cells, 3, 500)["m"].std() > 0


def test_one_model_more_changes_nothing() -> None:
    models = two_models()
    both, alone = (profiles(each, seed=0, repetitions=200) for each in (models, {"one": models["one"]}))
    for whole, part in zip(both, alone, strict=True):
        rows = whole[whole["method"] == "one"].reset_index(drop=True)
        assert rows.equals(part)


def test_the_figure_has_a_line_for_every_model() -> None:
    _, shares = profiles(two_models(), seed=0, repetitions=50)
    axes = profile_figure(shares, colours={"one": "#0072B2", "two": "#E69F00"}).axes[0]
    assert [line.get_label() for line in axes.get_lines()] == ["one", "two"]
    for line, name in zip(axes.get_lines(), ("one", "two"), strict=True):
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), 100 * shares[shares["method"] == name]["share"])
