"""The normal tail against the paper's picture of the three rules, and the growth of S against loops and simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import baselines
import fspo
from suite.records.update_log import UpdateLog
from suite.replay.growth import (
    constant_band,
    expected_outside_share,
    growth_by_length,
    growth_by_update,
    growth_sentence,
    growth_summary,
    linear_band,
    normal_quantiles,
    quantile_table,
    sqrt_band,
    standard_scores,
)
from suite.replay.matched_ranges import Point, matching_point
from suite.replay.one_method import replay
from suite.types import UserError

LENGTHS = np.array([128, 2048, 8192])
BANDS = {
    "rloo": constant_band(LENGTHS, 0.2, 0.2),
    "gspo": linear_band(LENGTHS, 3e-4, 4e-4),
    "fspo": sqrt_band(LENGTHS, 0.03, 0.03),
}


@pytest.mark.parametrize(
    ("rule", "sigma", "shares"),
    [
        ("rloo", 0.01, [0.08, 0.65, 0.82]),
        ("rloo", 0.02, [0.37, 0.82, 0.91]),
        ("gspo", 0.01, [0.69, 0.12, 0.00]),
        ("gspo", 0.02, [0.84, 0.43, 0.12]),
    ],
)
def test_expected_shares_of_fixed_and_linear_bands(rule: str, sigma: float, shares: list[float]) -> None:
    # The second decimal is all that is published of these numbers.
    assert expected_outside_share(sigma, LENGTHS, *BANDS[rule]).round(2).tolist() == shares


@pytest.mark.parametrize(
    ("sigma", "drifting", "shares"),
    [
        (0.01, False, [0.003, 0.003, 0.003]),
        (0.02, False, [0.134, 0.134, 0.134]),
        (0.02, True, [0.136, 0.173, 0.284]),
        (0.035, True, [0.401, 0.524, 0.774]),
    ],
)
def test_expected_shares_of_the_sqrt_band(sigma: float, drifting: bool, shares: list[float]) -> None:
    drift = -(sigma**2) / 2 if drifting else 0.0
    found = expected_outside_share(sigma, LENGTHS, *BANDS["fspo"], drift)
    assert found.round(3).tolist() == shares
    centred = expected_outside_share(sigma, LENGTHS, *sqrt_band(LENGTHS, 0.03, 0.03, drift), drift)
    np.testing.assert_allclose(centred, 2 * stats.norm.sf(0.03 / sigma), rtol=1e-9)


def test_gspo_and_fspo_bands_meet_at_c_over_eps_squared() -> None:
    length = (0.03 / 4e-4) ** 2
    assert linear_band(length, 4e-4, 4e-4)[1] == pytest.approx(sqrt_band(length, 0.03, 0.03)[1], rel=4e-4)


def test_impossible_inputs_are_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        expected_outside_share(0.0, LENGTHS, *BANDS["fspo"])
    with pytest.raises(ValueError, match="positive"):
        expected_outside_share(0.1, np.array([0]), np.array([-1.0]), np.array([1.0]))


def gaussian_log(sigma: float, lengths: list[int], rows: int) -> UpdateLog:
    rng = np.random.default_rng(0)
    sizes = np.repeat(lengths, rows)
    return UpdateLog(
        problem_ids=np.array([f"p{i % 50}" for i in range(len(sizes))]),
        seed=0,
        step=0,
        update=1,
        reward=np.zeros(len(sizes)),
        advantage=rng.choice([-1.0, 1.0], len(sizes)),
        truncated=False,
        lengths=sizes,
        log_probs=(flat := rng.normal(0, sigma, int(sizes.sum()))),
        old_log_probs=np.zeros_like(flat),
    )


@pytest.mark.parametrize("name", ["rloo", "gspo", "fspo"])
def test_methods_leave_their_band_as_often_as_the_normal_tail_says(name: str) -> None:
    method = {**baselines.METHODS, "fspo": fspo.FSPO}[name]
    lengths, rows, sigma = [16, 128, 512], 1500, 0.02
    frame = replay(method, gaussian_log(sigma, lengths, rows), {})
    hyper = method.hyper
    for length in lengths:
        band = {
            "rloo": lambda n: constant_band(n, hyper.clip_low, hyper.clip_high),
            "gspo": lambda n: linear_band(n, hyper.clip_low, hyper.clip_high),
            "fspo": lambda n: sqrt_band(n, hyper.c_low, hyper.c_high),
        }[name](length)
        expected = float(expected_outside_share(sigma, length, *band))
        found = frame.loc[frame["length"] == length, "outside_band"].mean()
        error = math.sqrt(expected * (1 - expected) / rows)
        assert found == pytest.approx(expected, abs=4 * error + 1e-9)


# --- growth ---------------------------------------------------------------------------------------


def simulated(rows: int = 6000, sigma: float = 0.03, drift: float = -0.001, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    length = rng.integers(4, 200, rows)
    return pd.DataFrame(
        {
            "seed": rng.integers(0, 3, rows),
            "problem_id": rng.integers(0, 400, rows),
            "length": length,
            "truncated": length > 190,
            "sign": rng.choice([-1, 0, 1], rows),
            "log_ratio": length * drift + sigma * np.sqrt(length) * rng.normal(size=rows),
        }
    )


def test_growth_summary_is_the_definition() -> None:
    frame = simulated(rows=400)
    found = growth_summary(frame, rng=np.random.default_rng(0), repetitions=20).set_index("sign")
    for sign, number in (("all", None), ("A > 0", 1), ("A < 0", -1)):
        part = frame[~frame["truncated"] & ((frame["sign"] == number) | (number is None))]
        s, length = part["log_ratio"].to_numpy(), part["length"].to_numpy(float)
        drift = sum(s) / sum(length)
        row = found.loc[sign]
        assert row["responses"] == len(part)
        assert row["drift"] == pytest.approx(drift, rel=1e-9)
        assert row["sigma"] == pytest.approx(math.sqrt(np.mean((s - length * drift) ** 2 / length)), rel=1e-9)
        assert row["mean_slope"] == pytest.approx(np.polyfit(length, s, 1)[0], rel=1e-7)
        assert row["var_slope"] == pytest.approx(np.polyfit(length, (s - length * drift) ** 2, 1)[0], rel=1e-7)
        z = standard_scores(part, drift, row["sigma"])
        assert row["skewness"] == pytest.approx(stats.skew(z), rel=1e-9)
        assert row["excess_kurtosis"] == pytest.approx(stats.kurtosis(z), rel=1e-9)


def test_growth_intervals_cover_what_was_simulated() -> None:
    row = growth_summary(simulated(), rng=np.random.default_rng(1)).iloc[0]
    truth = {"drift": -0.001, "sigma": 0.03, "mean_slope": -0.001, "var_slope": 0.03**2}
    for name, value in truth.items():
        assert row[f"{name}_low"] < value < row[f"{name}_high"], name


def test_growth_by_length_sees_a_spread_that_is_not_flat() -> None:
    edges = np.array([4, 50, 100, 191])
    flat = growth_by_length(simulated(), edges=edges)
    wrong = growth_by_length(simulated().assign(log_ratio=lambda f: f["log_ratio"] * np.sqrt(f["length"])), edges=edges)
    everything = flat[flat["sign"] == "all"]
    # A standard deviation of n normal draws has a relative error of 1 / sqrt(2 n); n is at least 1,300 here.
    assert everything["spread"].to_numpy() == pytest.approx(np.full(3, 0.03), rel=4 / math.sqrt(2 * 1300))
    assert wrong[wrong["sign"] == "all"]["spread"].is_monotonic_increasing
    assert everything["responses"].sum() == (~simulated()["truncated"]).sum()
    part = simulated()[lambda f: (f["length"] >= 50) & (f["length"] < 100)]
    assert everything.iloc[1]["mean_s"] == pytest.approx(part["log_ratio"].mean())
    assert everything.iloc[1]["var_s"] == pytest.approx(part["log_ratio"].var())


def test_normal_quantiles_lie_on_the_diagonal_for_a_gaussian() -> None:
    normal, measured = normal_quantiles(stats.norm.ppf((np.arange(99) + 0.5) / 99), points=99)
    # The quantile of level (i - 1/2)/n lies between two order statistics; at the outermost they are .45 apart.
    assert np.all(np.abs(measured - normal) <= np.gradient(normal))
    assert measured[49] == pytest.approx(0, abs=1e-12)
    assert set(quantile_table(simulated())["sign"]) == {"all", "A > 0", "A < 0"}


# --- calibration ----------------------------------------------------------------------------------


def test_matching_hits_the_target_on_recorded_responses() -> None:
    log, method = gaussian_log(0.03, [16, 64, 256], 400), baselines.METHODS["rloo"]

    def measure(factor: float) -> float:
        return float(replay(method.scaled(factor), log, {})["clipped"].mean())

    factor = matching_point(measure, 0.2, lower=0.01, upper=100, tolerance=0.002).factor
    assert measure(factor) == pytest.approx(0.2, abs=0.002)
    assert matching_point(measure, measure(1.0), lower=1.0, upper=9.0, tolerance=1e-9).factor == 1.0


def test_matching_returns_the_nearer_side_of_a_jump() -> None:
    def steps(factor: float) -> float:
        return 0.6 if factor < 2 else 0.3

    assert matching_point(steps, 0.35, lower=0.1, upper=10, tolerance=0.01).factor == pytest.approx(2, rel=1e-5)
    assert steps(matching_point(steps, 0.35, lower=0.1, upper=10, tolerance=0.01).factor) == 0.3
    assert steps(matching_point(steps, 0.55, lower=0.1, upper=10, tolerance=0.01).factor) == 0.6


@given(st.floats(-3, 3), st.floats(0.2, 8), st.floats(0.02, 0.98))
def test_matching_a_smooth_rate_takes_few_replays(place: float, sharpness: float, target: float) -> None:
    tried = []

    def measure(factor: float) -> float:
        tried.append(factor)
        return 1 / (1 + (factor / 10**place) ** sharpness)

    point = matching_point(measure, target, lower=1e-12, upper=1e12, tolerance=1e-3)
    assert abs(point.rate - target) <= 1e-3
    assert point.rate == measure(point.factor)
    assert len(tried) <= 40


def test_a_range_that_matches_as_it_is_is_measured_once() -> None:
    tried = []

    def measure(factor: float) -> float:
        tried.append(factor)
        return 1 / (1 + factor)

    assert matching_point(measure, 0.5, lower=0.1, upper=9, tolerance=1e-3) == Point(1.0, 0.5)
    assert tried == [1.0]


def test_matching_says_what_is_out_of_reach() -> None:
    for target in (0.9, 0.0001):
        with pytest.raises(UserError, match=r"out of reach.*0\.5.*0\.01"):
            matching_point(lambda k: 1 / (1 + k), target, lower=1, upper=99, tolerance=1e-6)
    with pytest.raises(UserError, match="gradient"):
        matching_point(lambda k: math.nan, 0.1, lower=1, upper=2, tolerance=1e-6)
    with pytest.raises(ValueError, match="lower"):
        matching_point(lambda k: 0.0, 0.1, lower=2, upper=1, tolerance=1e-6)


# --- sentences and quantiles --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "variance", "words"),
    [
        ((-2.0, -1.0), (1.0, 2.0), "all: the mean of S falls with length, its variance rises with length, excess"),
        ((1.0, 2.0), (-2.0, -1.0), "all: the mean of S rises with length, its variance falls with length, excess"),
        ((-1.0, 1.0), (-1.0, 1.0), "all: no slope found in the mean of S, no slope found in its variance, excess"),
    ],
)
def test_a_sentence_says_what_its_interval_supports(
    mean: tuple[float, float], variance: tuple[float, float], words: str
) -> None:
    row = {"sign": "all", "excess_kurtosis": 1.5}
    row |= {"mean_slope_low": mean[0], "mean_slope_high": mean[1]}
    row |= {"var_slope_low": variance[0], "var_slope_high": variance[1]}
    assert growth_sentence(row).startswith(words)


def test_quantiles_of_gaussian_sums_lie_on_the_diagonal_and_absent_signs_are_left_out() -> None:
    log = gaussian_log(0.03, [16, 64, 256], 400)
    frame = replay(baselines.METHODS["rloo"], log, {})
    positive = frame[frame["sign"] == 1]
    assert set(quantile_table(frame)["sign"]) == {"all", "A > 0", "A < 0"}
    assert set(quantile_table(positive)["sign"]) == {"all", "A > 0"}
    edges = np.array([16, 17, 65, 257])
    table = quantile_table(frame, edges=edges)
    assert set(table["bin"]) == {"all", "16", "17–64", "65–256"}
    for label in set(table["bin"]):
        part = table[(table["bin"] == label) & (table["sign"] == "all")].iloc[10:-10]
        assert np.abs(part["normal"] - part["measured"]).max() < 0.25
    wide = frame.assign(log_ratio=frame["log_ratio"] * np.where(frame["length"] == 16, 3, 1))
    table = quantile_table(wide, edges=edges)
    ends = [float(table[table["bin"] == label]["measured"].max()) for label in ("16", "17–64", "65–256")]
    assert ends[0] > 2 * max(ends[1:])


def test_moments_by_update_are_those_of_each_update_alone() -> None:
    """Three updates of one Gaussian law each: sigma and drift of each within 4 standard errors, in order."""
    frames = []
    for update, (sigma, drift) in {1: (0.01, 0.0), 2: (0.02, -2e-4), 4: (0.04, -8e-4)}.items():
        rng = np.random.default_rng(update)
        length = np.tile([16, 64, 256], 400)
        s = length * drift + sigma * np.sqrt(length) * rng.normal(size=len(length))
        frames.append(
            pd.DataFrame(
                {
                    "seed": 0,
                    "problem_id": np.arange(len(s)) // 4,
                    "update": update,
                    "length": length,
                    "truncated": False,
                    "sign": 1,
                    "log_ratio": s,
                }
            )
        )
    found = growth_by_update(pd.concat(frames), rng=np.random.default_rng(0), repetitions=200)
    assert found["update"].tolist() == [1, 2, 4]
    np.testing.assert_allclose(found["sigma"], [0.01, 0.02, 0.04], rtol=4 / np.sqrt(2 * 1200))
    errors = np.array([0.01, 0.02, 0.04]) / np.sqrt(frames[0]["length"].sum())
    assert np.all(np.abs(found["drift"] - [0.0, -2e-4, -8e-4]) < 4 * errors)
    assert np.all((found["sigma_low"] < found["sigma"]) & (found["sigma"] < found["sigma_high"]))


def test_what_has_no_spread_or_no_whole_response_is_left_out() -> None:
    """One response fits its own drift exactly: no quantiles, no shape. An update of cut responses has no moments."""
    frame = replay(baselines.METHODS["rloo"], gaussian_log(0.03, [16], 50), {})
    one = frame.iloc[:1]
    assert quantile_table(one).empty
    assert list(quantile_table(one).columns) == ["sign", "bin", "normal", "measured"]
    assert math.isnan(growth_summary(one, rng=np.random.default_rng(0), repetitions=2)["excess_kurtosis"].iloc[0])
    both = pd.concat([frame.assign(update=1), frame.assign(update=2, truncated=True)])
    assert growth_by_update(both, rng=np.random.default_rng(0), repetitions=2)["update"].tolist() == [1]


def test_bins_come_from_quantiles_by_default_and_empty_ones_have_no_row() -> None:
    log = gaussian_log(0.03, [16, 64, 256], 50)
    frame = replay(baselines.METHODS["rloo"], log, {})
    assert len(growth_by_length(frame)) >= 3
    gaps = growth_by_length(frame, edges=np.array([1, 100, 200, 300]))
    assert len(gaps[gaps["sign"] == "all"]) == 2
