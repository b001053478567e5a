"""Length bins, LRE, the cosine bound, and the clip-by-length tables against loops."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.replay.fairness import (
    clip_by_length,
    fairness_summary,
    length_reweighting_error,
    lre_intervals,
    slope_sentence,
    too_few_problems,
)
from suite.replay.resampling import bin_labels, bin_of, bootstrap_sums, cluster_ids, interval, quantile_edges

SHARES = st.lists(st.tuples(st.floats(0.05, 1.0), st.integers(1, 50)), min_size=1, max_size=6)


def responses(seed: int = 0, rows: int = 3000, rule: str = "flat") -> pd.DataFrame:
    """Responses whose chance to leave the band rises, falls or stays with length; a third of the A are 0."""
    rng = np.random.default_rng(seed)
    length = np.exp2(rng.uniform(1, 7, rows)).astype(int)
    chance = {"flat": 0.25, "rise": 0.07 * np.log2(length), "fall": 0.6 - 0.07 * np.log2(length)}[rule]
    sign = rng.choice([-1, 0, 1], rows)
    outside = (rng.random(rows) < chance).astype(float)
    return pd.DataFrame(
        {
            "method": "m",
            "range": "own",
            "seed": rng.integers(0, 3, rows),
            "problem_id": rng.integers(0, 60, rows),
            "length": length,
            "truncated": length > 110,
            "sign": sign,
            "outside_band": outside,
            "clipped": outside * (rng.random(rows) < 0.5) * (sign != 0),
        }
    )


def fast(frame: pd.DataFrame, **options) -> pd.DataFrame:
    return clip_by_length(frame, rng=np.random.default_rng(0), repetitions=50, **options)


def summary(frame: pd.DataFrame, repetitions: int = 300, **options) -> dict:
    return fairness_summary(frame, rng=np.random.default_rng(0), repetitions=repetitions, **options).iloc[0].to_dict()


# --- bins -----------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 300), min_size=1, max_size=200), st.integers(1, 9))
def test_quantile_edges_cover_every_length_in_rising_bins(lengths: list[int], bins: int) -> None:
    edges = quantile_edges(np.array(lengths), bins)
    where = bin_of(np.array(lengths), edges)
    assert 1 <= len(edges) - 1 <= bins
    assert all(edges[i] <= length < edges[i + 1] for i, length in zip(where, lengths, strict=True))
    assert len(bin_labels(edges)) == len(edges) - 1


def test_distinct_lengths_fill_bins_evenly() -> None:
    lengths = np.random.default_rng(0).permutation(np.arange(1, 601))
    assert np.bincount(bin_of(lengths, quantile_edges(lengths, 6))).tolist() == [100] * 6


def test_bad_edges_are_refused() -> None:
    with pytest.raises(ValueError, match="do not cover"):
        bin_of(np.array([1, 9]), np.array([2, 10]))
    with pytest.raises(ValueError, match="do not cover"):
        bin_of(np.array([10]), np.array([2, 10]))
    with pytest.raises(ValueError, match="rise"):
        bin_of(np.array([3]), np.array([2, 2, 10]))
    with pytest.raises(ValueError, match="at least one"):
        quantile_edges(np.array([]), 3)


# --- LRE and the cosine ---------------------------------------------------------------------------


@given(SHARES)
def test_lre_is_the_sum_over_bins(shares: list[tuple[float, int]]) -> None:
    total = sum(n for _, n in shares)
    mean = sum(a * n for a, n in shares) / total
    errors = [abs(a / mean - 1) for a, _ in shares]
    largest, average = length_reweighting_error(np.array([a for a, _ in shares]), np.array([n for _, n in shares]))
    assert largest == pytest.approx(max(errors), abs=1e-12)
    assert average == pytest.approx(sum(e * n for e, (_, n) in zip(errors, shares, strict=True)) / total, abs=1e-12)
    assert average <= largest + 1e-12


def test_lre_of_equal_acceptance_is_zero_and_ignores_scale_and_empty_bins() -> None:
    responses_, shape = np.array([5, 0, 7]), np.array([0.2, 0.9, 0.4])
    assert length_reweighting_error(np.full(3, 0.25), responses_)[0] == pytest.approx(0, abs=1e-15)
    doubled = length_reweighting_error(2 * shape, responses_)
    assert doubled == pytest.approx(length_reweighting_error(shape, responses_), rel=1e-12)
    assert doubled == pytest.approx(length_reweighting_error(shape[[0, 2]], responses_[[0, 2]]), rel=1e-12)
    assert math.isnan(length_reweighting_error(np.zeros(2), np.ones(2))[0])


# --- the bootstrap --------------------------------------------------------------------------------


def test_bootstrap_spread_is_that_of_the_resampled_mean() -> None:
    values = np.random.default_rng(0).normal(size=(40, 1))
    drawn = bootstrap_sums([{"x": values}], np.random.default_rng(1), 40_000)[0]["x"] / 40
    expected = values.var() / 40
    # The sample variance of 40,000 normal draws is within 5 standard errors = 5 sqrt(2 / 40000) = 3.6 %.
    assert drawn.var() == pytest.approx(expected, rel=0.036)
    assert drawn.mean() == pytest.approx(values.mean(), abs=5 * math.sqrt(expected / 40_000))


def test_bootstrap_shares_its_draw_between_entries() -> None:
    values = np.random.default_rng(0).normal(size=(40, 2))
    one, two = bootstrap_sums([{"x": values}, {"y": values + 1}], np.random.default_rng(1), 20)
    np.testing.assert_allclose(two["y"] - one["x"], 40, rtol=1e-12)


def test_clusters_are_pairs_of_seed_and_problem() -> None:
    frame = pd.DataFrame({"seed": [0, 0, 1, 1, 0], "problem_id": ["a", "b", "a", "b", "a"]})
    ids = cluster_ids(frame)
    assert np.unique(ids).tolist() == [0, 1, 2, 3]
    assert ids[0] == ids[4]


def test_clusters_widen_the_interval() -> None:
    frame = responses()
    copies = pd.concat([frame.assign(problem_id=i * 1000 + frame["problem_id"]) for i in range(4)])
    clustered = pd.concat([frame] * 4)
    width = {
        name: (s := summary(part))["mean_outside_band_high"] - s["mean_outside_band_low"]
        for name, part in (("clustered", clustered), ("independent", copies), ("once", frame))
    }
    # Four copies in the same clusters say no more than one; as new clusters they would seem to halve the interval.
    assert width["clustered"] == pytest.approx(width["once"], rel=1e-9)
    assert width["independent"] < 0.65 * width["once"]


def test_interval_leaves_nan_replicates_out() -> None:
    low, high = interval(np.array([[np.nan, np.nan], [1.0, np.nan], [3.0, np.nan]]))
    assert (low[0], high[0]) == pytest.approx((1.05, 2.95))
    assert math.isnan(low[1])
    assert math.isnan(high[1])


# --- the tables -----------------------------------------------------------------------------------


def test_clip_by_length_is_a_loop_over_responses() -> None:
    frame, edges = responses(1), np.array([1, 8, 30, 111])
    table = fast(frame, edges=edges)
    assert table["bin"].tolist() == ["1–7", "8–29", "30–110", "truncated"]
    accepted, gradients = [], []
    for i, row in enumerate(table.to_dict("records")):
        mine = [
            r
            for r in frame.to_dict("records")
            if (r["truncated"] if i == 3 else not r["truncated"] and edges[i] <= r["length"] < edges[i + 1])
        ]
        active = [r for r in mine if r["sign"] != 0]
        assert (row["responses"], row["with_gradient"]) == (len(mine), len(active))
        assert row["mean_length"] == pytest.approx(sum(r["length"] for r in mine) / len(mine))
        assert row["outside_band"] == pytest.approx(sum(r["outside_band"] for r in mine) / len(mine))
        assert row["clipped"] == pytest.approx(sum(r["clipped"] for r in active) / len(active))
        assert row["acceptance"] == pytest.approx(1 - row["clipped"])
        assert row["outside_band_low"] <= row["outside_band"] <= row["outside_band_high"]
        accepted.append(row["acceptance"])
        gradients.append(row["with_gradient"])
    mean = np.average(accepted[:3], weights=gradients[:3])
    np.testing.assert_allclose(table["relative_acceptance"], np.array(accepted) / mean, rtol=1e-12)
    largest, average = length_reweighting_error(np.array(accepted[:3]), np.array(gradients[:3]))
    found = summary(frame, edges=edges)
    assert (found["lre_max"], found["lre_mean"]) == pytest.approx((largest, average), rel=1e-12)


def test_summary_slopes_are_least_squares_without_truncated_responses() -> None:
    frame = responses(2, rule="rise")
    found, kept = summary(frame), frame[~frame["truncated"]]
    active = kept[kept["sign"] != 0]
    outside = np.polyfit(np.log2(kept["length"]), kept["outside_band"], 1)[0]
    clipped = np.polyfit(np.log2(active["length"]), active["clipped"], 1)[0]
    assert (found["outside_slope"], found["clipped_slope"]) == pytest.approx((outside, clipped), rel=1e-9)
    assert found["mean_clipped"] == pytest.approx(frame[frame["sign"] != 0]["clipped"].mean())
    assert found["truncated_share"] == pytest.approx(frame["truncated"].mean())


def test_truncated_responses_count_at_the_length_at_which_they_were_cut() -> None:
    """Left out of the slope and the deviations, in those called all_: there a bin of their own."""
    frame = responses(7)
    frame.loc[frame["truncated"] & (frame["sign"] != 0), "clipped"] = 1.0
    found, active = summary(frame), frame[frame["sign"] != 0]
    kept = active[~active["truncated"]]
    for part, rows in (("", kept), ("all_", active)):
        slope = np.polyfit(np.log2(rows["length"]), rows["clipped"], 1)[0]
        assert found[f"{part}clipped_slope"] == pytest.approx(slope, rel=1e-9)
        assert found[f"{part}relative_slope"] == pytest.approx(slope / rows["clipped"].mean(), rel=1e-9)
        assert found[f"{part}clipped_slope_low"] < slope < found[f"{part}clipped_slope_high"]
    assert found["all_largest_deviation"] == pytest.approx(1 / active["clipped"].mean() - 1)
    assert found["largest_deviation"] < 0.5 < found["all_largest_deviation"]
    assert found["seeds"] == 3


@pytest.mark.parametrize(("rule", "words"), [("rise", "rises with length"), ("fall", "falls with length")])
def test_a_slope_is_found_and_named(rule: str, words: str) -> None:
    """Half of what is outside the band is clipped: the sentence is about the clip rate."""
    found = summary(responses(3, rule=rule))
    assert f"clip rate {words}" in found["sentence"]
    assert found["outside_slope_low"] <= (0.07 if rule == "rise" else -0.07) <= found["outside_slope_high"]
    assert found["clipped_slope_low"] <= (0.035 if rule == "rise" else -0.035) <= found["clipped_slope_high"]
    assert found["p_even"] < 0.05
    assert found["lre_max"] > found["lre_noise"]


def test_flat_clipping_finds_no_slope_in_about_nineteen_worlds_of_twenty() -> None:
    found = [summary(responses(100 + i, rows=1200), repetitions=200) for i in range(60)]
    false = sum(not row["sentence"].startswith("no slope found") for row in found)
    above = sum(row["lre_max"] > row["lre_noise"] for row in found)
    # 60 worlds at 5 %: 3 expected, more than 9 has a chance of about 1 in 1,000.
    assert 0 < false <= 9
    assert 0 < above <= 9


def test_lre_intervals_are_a_band_over_all_bins() -> None:
    """By loops: the width that holds all bins together in 95 % of the replicates, then both forms of the deviation."""
    rng = np.random.default_rng(11)
    relative, responses = np.array([0.9, 1.05, np.nan, 1.0]), np.array([100, 300, 0, 50])
    drawn = relative + rng.normal(size=(400, 4)) * np.array([0.05, 0.01, 1.0, 0.02])
    used = [0, 1, 3]
    error = {i: math.sqrt(sum((x - drawn[:, i].mean()) ** 2 for x in drawn[:, i]) / 400) for i in used}
    furthest = [max(abs(row[i] - relative[i]) / error[i] for i in used) for row in drawn]
    width = np.quantile(furthest, 0.95)
    low = {i: max(abs(relative[i] - 1) - width * error[i], 0) for i in used}
    high = {i: abs(relative[i] - 1) + width * error[i] for i in used}
    found = lre_intervals(relative, drawn, responses)
    assert found["lre_max"] == pytest.approx((max(low.values()), max(high.values())))
    means = tuple(sum(responses[i] * side[i] for i in used) / 450 for side in (low, high))
    assert found["lre_mean"] == pytest.approx(means)
    assert all(math.isnan(x) for pair in lre_intervals(relative, drawn[:0], responses).values() for x in pair)


@pytest.mark.slow
@pytest.mark.parametrize("clipped", [(0.2, 0.2, 0.2), (0.1, 0.2, 0.3), (0.02, 0.02, 0.2)])
def test_lre_intervals_cover_the_truth(clipped: tuple[float, ...]) -> None:
    """200 worlds of three bins with known acceptance: 95 % intervals hold both forms of LRE in 93 % or more of them."""
    rng, hits = np.random.default_rng(7), {"lre_max": 0, "lre_mean": 0}
    share = np.array(clipped)
    truth = dict(zip(hits, length_reweighting_error(1 - share, np.ones(3)), strict=True))
    for _ in range(200):
        where = np.repeat(np.arange(3), 200)
        frame = pd.DataFrame(
            {
                "method": "m",
                "range": "r",
                "seed": 0,
                "problem_id": rng.permutation(600),
                "length": 10.0 ** (1 + where),
                "truncated": False,
                "sign": 1,
                "outside_band": 0.0,
                "clipped": rng.random(600) < share[where],
            }
        ).astype({"clipped": float, "length": int})
        found = summary(frame, edges=np.array([1, 50, 500, 5000]), repetitions=300)
        for name in hits:
            assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
            hits[name] += found[f"{name}_low"] - 1e-12 <= truth[name] <= found[f"{name}_high"]
    assert min(hits.values()) >= 186


def test_responses_without_gradient_change_no_clip_share() -> None:
    frame = responses(4)
    extra = frame[frame["length"] < 8].assign(sign=0, clipped=1.0)
    with_them, without = fast(pd.concat([frame, extra]), edges=[1, 8, 111]), fast(frame, edges=[1, 8, 111])
    np.testing.assert_allclose(with_them["clipped"], without["clipped"], rtol=1e-12)
    assert with_them["responses"][0] > without["responses"][0]


def test_tables_are_deterministic_and_keep_methods_apart() -> None:
    flat, rise = responses(5), responses(5, rule="rise").assign(method="other")
    both = pd.concat([flat, rise])
    table = fast(both, edges=[1, 8, 30, 111])
    pd.testing.assert_frame_equal(table, fast(both, edges=[1, 8, 30, 111]))
    alone = fast(rise, edges=[1, 8, 30, 111])
    pd.testing.assert_frame_equal(table[table["method"] == "other"].reset_index(drop=True), alone)


def test_degenerate_frames() -> None:
    frame = responses(6)
    none = summary(frame.assign(outside_band=0.0, clipped=0.0))
    assert none["sentence"] == "no slope found: no response was clipped"
    assert (none["lre_max"], none["lre_noise"]) == (0, 0)
    every = summary(frame.assign(sign=1, outside_band=1.0, clipped=1.0))
    assert every["sentence"] == "no slope found: every response was clipped"
    assert all(math.isnan(every[name]) for name in ("lre_max", "lre_max_low", "lre_noise"))
    assert summary(frame.assign(length=5, truncated=False))["sentence"] == "no slope found: the lengths do not vary"
    assert fast(frame.assign(truncated=True))["bin"].tolist() == ["truncated"]
    assert math.isnan(summary(frame.assign(sign=0, clipped=0.0))["lre_max"])
    with pytest.raises(ValueError, match="no responses"):
        fast(frame.iloc[:0])


@pytest.mark.parametrize(("problems", "known"), [(4, False), (5, True)])
def test_fewer_than_five_problems_make_no_interval(problems: int, known: bool) -> None:
    """Whatever the count of responses, and of problems without a gradient."""
    frame = responses(8, rule="rise")
    frame = frame.assign(seed=0, sign=np.where(frame["problem_id"] < problems, 1, 0))
    frame["clipped"] *= frame["sign"]
    found, table = summary(frame), fast(frame)
    assert not math.isnan(found["clipped_slope"])
    ends = ("clipped_slope_low", "lre_max_high", "lre_noise", "p_even", "relative_slope_high_90")
    assert [math.isnan(found[name]) for name in ends] == [not known] * len(ends)
    assert table["clipped_low"].notna().any() == known
    assert table["outside_band_low"].notna().all()
    assert too_few_problems(frame).startswith("" if known else "Too few problems with a gradient (4)")
    assert bool(too_few_problems(frame)) != known
    assert found["sentence"].startswith("no interval: ") != known


def test_sentence_never_prints_minus_zero() -> None:
    row = {"clipped_slope": -1e-5, "clipped_slope_low": -2e-4, "clipped_slope_high": 1e-4}
    assert slope_sentence(row) == "no slope found: +0.0 points per doubling [+0.0, +0.0]"
