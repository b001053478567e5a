"""Claims: planted numbers become the words that the rules give them, and the first runs are judged as they measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from strategies import METHODS
from suite.findings.claims import (
    bound_summary,
    bounding,
    claims_table,
    clip_text,
    flattening,
    reweighting,
    steadiness,
    superiority,
)
from suite.findings.rules import FLAT, NOT_SUPPORTED, NOT_TESTABLE, SUPPORTED, UNDECIDED, UNEVEN, clip_word

FIRST_RUNS = Path(__file__).with_name("first_runs.csv")
"""Fairness numbers of the first demo and demo-large, at matched ranges; see results/LOG.md, 2026-11-29."""


# --- who is clipped -------------------------------------------------------------------------------


def fairness(**words: str) -> pd.DataFrame:
    """Rows at matched ranges that deserve these words, and rows at default ranges that say the opposite."""
    rows = []
    for method, word in words.items():
        for span in ("matched", "default"):
            shown = word if span == "matched" else {FLAT: UNEVEN, UNEVEN: FLAT}.get(word, FLAT)
            slope = {FLAT: 0.01, UNEVEN: -0.5, UNDECIDED: 0.02}[shown]
            row: dict[str, Any] = {"method": method, "range": span, "seeds": 5}
            for part in ("", "all_"):
                wide = 0.5 if shown == UNDECIDED else 0.05
                row |= {f"{part}relative_slope": slope, f"{part}clipped_slope": slope / 10}
                row |= {f"{part}relative_slope_low{end}": slope - wide for end in ("", "_90")}
                row |= {f"{part}relative_slope_high{end}": slope + wide for end in ("", "_90")}
                row[f"{part}largest_deviation_high"] = 0.2
            row |= {"p_even": 1e-9 if shown == UNEVEN else 0.4, "lre_max": 0.06, "lre_noise": 0.04}
            rows.append(row | {"letters": sum(map(ord, method))})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        ({"rloo": UNEVEN, "gspo": UNEVEN, "grpo": FLAT}, SUPPORTED),  # a token ratio is not meant
        ({"rloo": FLAT, "gspo": UNEVEN}, NOT_SUPPORTED),
        ({"rloo": UNDECIDED, "gspo": UNEVEN, "luspo": UNEVEN}, UNDECIDED),
        ({"rloo": UNEVEN, "fspo": FLAT}, SUPPORTED),
        ({"fspo": UNEVEN, "grpo": UNEVEN, "no_clip": FLAT}, NOT_TESTABLE),
    ],
)
def test_reweighting(words: dict[str, str], verdict: str) -> None:
    assert reweighting(fairness(**words), METHODS, "x").verdict == verdict


@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        ({"fspo": FLAT, "rloo": UNEVEN, "gspo": UNEVEN}, SUPPORTED),
        ({"fspo": FLAT, "rloo": UNEVEN, "luspo": UNDECIDED}, UNDECIDED),
        ({"fspo": UNDECIDED, "rloo": UNEVEN}, UNDECIDED),
        ({"fspo": UNEVEN, "rloo": UNEVEN}, NOT_SUPPORTED),
        ({"fspo": FLAT, "gspo": FLAT}, NOT_SUPPORTED),
        ({"fspo": FLAT, "grpo": UNEVEN}, NOT_TESTABLE),
        ({"rloo": UNEVEN}, NOT_TESTABLE),
    ],
)
def test_flattening(words: dict[str, str], verdict: str) -> None:
    assert flattening(fairness(**words), METHODS, "x").verdict == verdict


def test_what_was_measured_has_the_interval_that_decides_and_lre_after_its_noise() -> None:
    found = reweighting(fairness(rloo=UNEVEN, gspo=UNEVEN), METHODS, "replays of 2 cells")
    assert "rloo uneven (slope -5.0 points, -50.0 [-55.0, -45.0] % of its clip rate, a bin off by" in found.measured
    assert "a bin off by at most 20 % of it, p < .0001; with truncated" in found.measured
    assert "LRE 0.060, by chance 0.040" in found.measured
    assert found.runs == "replays of 2 cells"
    assert "seeds" not in found.measured


def test_few_seeds_and_own_cells_are_named_and_equal_rows_are_one() -> None:
    frame = fairness(gspo=UNEVEN, luspo=UNEVEN).assign(seeds=2, letters=1)
    own = frame[frame["range"] == "default"].assign(range="default, own cells")
    text = clip_text(pd.concat([frame, own]), ["gspo", "luspo"])
    assert text.startswith("gspo = luspo uneven (")
    assert "seeds: 2, which says little of others" in text
    assert text.endswith(
        "Own ranges in own cells: gspo = luspo flat (slope +0.1 points, +1.0 [-4.0, +6.0] % of its clip rate)"
    )


# --- the first runs, by the new rules -------------------------------------------------------------


def first_runs(name: str) -> pd.DataFrame:
    frame = pd.read_csv(FIRST_RUNS)
    return frame[frame["runs"] == name].reset_index(drop=True)


@pytest.mark.parametrize(
    ("runs", "method", "points"),
    [
        ("demo", "fspo", (-1.6, -2.7, -0.6)),
        ("demo", "rloo", (1.3, 0.7, 1.9)),
        ("demo", "gspo", (-5.1, -6.4, -3.8)),
        ("demo-large", "fspo", (-1.8, -3.2, -0.5)),
        ("demo-large", "rloo", (1.2, 0.4, 2.0)),
    ],
)
def test_clip_rates_of_the_first_runs_have_slopes(runs: str, method: str, points: tuple[float, ...]) -> None:
    row = first_runs(runs).set_index("method").loc[method]
    found = [100 * row[f"clipped_slope{end}"] for end in ("", "_low", "_high")]
    assert found == pytest.approx(points, abs=0.051)


def test_the_first_demo_large_does_not_support_flat_clip_rates() -> None:
    frame = first_runs("demo-large")
    words = {row["method"]: clip_word(row) for row in frame.to_dict("records")}
    assert words["fspo"] == UNEVEN
    assert {words[name] for name in ("rloo", "gspo", "luspo")} == {UNEVEN}
    assert flattening(frame, METHODS, "x").verdict == NOT_SUPPORTED
    assert reweighting(frame, METHODS, "x").verdict == SUPPORTED


def test_one_seed_and_a_range_that_could_not_be_matched_decide_nothing() -> None:
    words = fairness(fspo=FLAT, rloo=UNEVEN, gspo=UNEVEN)
    assert flattening(words, METHODS, "x").verdict == SUPPORTED
    assert flattening(words.assign(seeds=1), METHODS, "x").verdict == UNDECIDED
    unmatched = words[(words["method"] != "gspo") | (words["range"] != "matched")]
    assert reweighting(unmatched, METHODS, "x").verdict == UNDECIDED


def test_fspos_lre_was_no_smaller_than_rloos() -> None:
    for runs in ("demo", "demo-large"):
        row = first_runs(runs).set_index("method")
        assert row.loc["fspo", "lre_max"] > row.loc["rloo", "lre_max"] > row.loc["rloo", "lre_noise"]


# --- the bound ------------------------------------------------------------------------------------


def bounds(shares: dict[str, list[int]], updates: int = 100, silent: int = 10) -> pd.DataFrame:
    """Methods whose seeds have so many of 100 updates below a bound of .5, by .1 and more; `silent` have no bound."""
    rows = []
    for method, by_seed in shares.items():
        for seed, below in enumerate(by_seed):
            for i in range(updates + silent):
                short = i < below
                row = {
                    "method": method,
                    "seed": seed,
                    "bound": 0.5 if i < updates else math.nan,
                    "scaled": 0.9,
                    "lre": 0.1,
                }
                rows.append(row | {"violated": float(short), "cosine": 0.4 - 0.01 * i if short else 0.8})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("fspo", "verdict"),
    [
        ([1, 2, 3, 2], SUPPORTED),
        ([20, 22, 21, 20], NOT_SUPPORTED),
        ([3, 6, 4, 5], UNDECIDED),
        ([1, 1], UNDECIDED),  # equal shares do not show how far others would lie apart
        ([2, 30], UNDECIDED),
        ([1], NOT_TESTABLE),
    ],
)
def test_bounding_is_fspos_alone_over_seeds(fspo: list[int], verdict: str) -> None:
    frame = bounds({"grpo": [90] * 4, "rloo": [50] * 4, "fspo": fspo})
    assert bounding(bound_summary(frame, METHODS), "x").verdict == verdict


def test_bounding_has_a_row_a_method_and_leaves_token_ratios_out() -> None:
    found = bound_summary(bounds({"ppo": [40, 50], "grpo": [40, 50], "gspo": [30, 30], "fspo": [3, 5]}), METHODS)
    row = found.set_index("method").loc["fspo"]
    assert (row["updates"], row["with_bound"], row["seeds"], row["scaled_below"]) == (220, 200, 2, 0)
    assert row["below"] == pytest.approx(0.04)
    # t with one degree of freedom: 12.706 standard errors of .01, and no share is negative.
    assert (row["below_low"], row["below_high"]) == pytest.approx((0.0, 0.04 + 0.12706), abs=1e-5)
    assert row["largest_shortfall"] == pytest.approx(0.14)
    assert row["median_shortfall"] == pytest.approx(np.median([0.1, 0.11, 0.12, 0.1, 0.11, 0.12, 0.13, 0.14]))
    measured = bounding(found, "x").measured
    assert measured.startswith("the bound holds for updates scaled by length (algebra, not evidence); real clips")
    assert "fspo 4.0 [0.0, 16.7] % (a mean over 2 seeds, 200 updates; their cosine is short of it by" in measured
    assert "by 0.12 in the median, 0.14 at most); gspo 30.0" in measured
    assert "ppo" not in measured
    assert found["sequence"].tolist() == [False, False, True, True]


def test_updates_that_nothing_clips_are_no_evidence_for_the_bound() -> None:
    frame = bounds({"fspo": [30, 31]})
    trivial = bounds({"fspo": [0, 0]}, updates=900).assign(lre=0.0, cosine=1.0, bound=1.0, violated=0.0)
    both = bound_summary(pd.concat([frame, trivial]), METHODS).iloc[0]
    assert (both["with_bound"], both["below"]) == (200, pytest.approx(0.305))


def test_bounding_is_silent_without_bounds() -> None:
    frame = bounds({"fspo": [0, 0]}, updates=0)
    assert bounding(bound_summary(frame, METHODS), "x").verdict == NOT_TESTABLE
    assert bounding(bound_summary(bounds({"rloo": [0, 0]}), METHODS), "x").verdict == NOT_TESTABLE


# --- stability ------------------------------------------------------------------------------------


def trained(seeds: int = 8, rates: int = 3, probes: bool = True, **means: float) -> pd.DataFrame:
    """Runs whose fall on the probe set is a method's mean, what a seed shares, and a little of its own."""
    shared = np.random.default_rng(0).normal(0, 0.1, seeds)
    rows: list[dict[str, Any]] = []
    for place, (method, mean) in enumerate(means.items()):
        for rate in range(rates):
            for seed, common in enumerate(shared):
                fall = mean + common + 0.005 * (place + 1) * (-1) ** seed
                row = {"learning_rate": 10.0 ** (rate - 5), "method": method, "seed": seed, "collapsed": 0.0}
                rows.append(row | {"probe_fall": fall if probes else math.nan, "final": 0.4 + 0.01 * seed})
    return pd.DataFrame(rows)


FALLS = {"fspo": 0.1, "rloo": 0.2, "grpo": 0.25, "gspo": 0.15, "gspo_wide": 0.3}


@pytest.mark.parametrize(
    ("means", "verdict"),
    [
        (FALLS | {"ppo": 0.01}, SUPPORTED),  # PPO is not the paper's
        ({name: FALLS[name] for name in ("fspo", "rloo", "gspo")}, UNDECIDED),  # two of four say nothing of all
        (FALLS | {"gspo": 0.05}, NOT_SUPPORTED),
        ({"fspo": 0.1, "rloo": 0.2, "gspo": 0.05}, NOT_SUPPORTED),
        ({"fspo": 0.1, "rloo": 0.2, "gspo": 0.1}, UNDECIDED),
        ({"rloo": 0.2, "gspo": 0.1}, NOT_TESTABLE),
        ({"fspo": 0.2, "luspo": 0.1}, NOT_TESTABLE),
    ],
)
def test_steadiness(means: dict[str, Any], verdict: str) -> None:
    assert steadiness(trained(**means), "x").verdict == verdict


def test_steadiness_counts_a_seed_once_whatever_its_rates() -> None:
    """Three rates of two seeds are two observations, not six: their interval has one degree of freedom."""
    two = trained(2, fspo=0.1, rloo=0.2)
    # Gaps of .105 and .095: 12.7 standard errors of .005 about .1.
    assert steadiness(two, "x").measured.startswith("largest fall on the probe set")
    assert "rloo +10.0 [+3.6, +16.4]" in steadiness(two, "x").measured
    assert steadiness(trained(1, fspo=0.1, rloo=0.2), "x").verdict == UNDECIDED


@pytest.mark.parametrize("ours", [0.1, 0.5])
def test_equal_gaps_of_all_seeds_decide_nothing(ours: float) -> None:
    frame = trained(2, 1, **FALLS)
    frame["probe_fall"] = frame["method"].map({**FALLS, "fspo": ours})
    assert steadiness(frame, "x").verdict == UNDECIDED


def test_steadiness_without_probes_still_counts_collapses() -> None:
    frame = trained(probes=False, fspo=0.1, rloo=0.2)
    found = steadiness(frame, "x")
    assert found.verdict == NOT_TESTABLE
    assert "with its whole interval): fspo 0, rloo 0 of 24" in found.measured
    assert "falls on the probe set are not testable here" in found.measured
    assert "spread of final accuracy over seeds, points: fspo 2.4 [1.6, 5.0]" in found.measured
    fallen = frame.assign(collapsed=(frame["method"] == "fspo").astype(float))
    assert steadiness(fallen, "x").verdict == NOT_SUPPORTED  # in all eight seeds


# --- accuracy -------------------------------------------------------------------------------------


def differences(*rows: tuple[str, str, str, str], primary: str = "mean", **columns: float) -> pd.DataFrame:
    """(method, reference, outcome, verdict)."""
    return pd.DataFrame(
        [
            {"method": m, "reference": r, "task": task, "difference": -0.03, "low": -0.04, "high": -0.02}
            | {"verdict": verdict, "family": "primary" if task == primary else "sets"}
            | columns
            for m, r, task, verdict in rows
        ]
    )


def against(rivals: dict[str, str], task: str = "mean") -> list[tuple[str, str, str, str]]:
    return [("fspo", rival, task, verdict) for rival, verdict in rivals.items()]


BETTER_THAN_ALL = {
    "rloo": "better",
    "grpo": "better",
    "gspo_wide": "better",
    "gspo": "better, few seeds (said of them)",
}
GCD = ("fspo", "rloo", "gcd", "undecided")


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([GCD, *against(BETTER_THAN_ALL)], SUPPORTED),
        (against(BETTER_THAN_ALL), UNDECIDED),  # a single set is not several
        ([GCD, *against(dict.fromkeys(("rloo", "grpo", "gspo"), "better"))], UNDECIDED),  # three of four
        (against(BETTER_THAN_ALL | {"gspo": "better before Holm's correction"}), UNDECIDED),
        (against(BETTER_THAN_ALL | {"gspo": "undecided"}), UNDECIDED),
        (against(BETTER_THAN_ALL | {"gspo": "equal within 1 point"}), NOT_SUPPORTED),
        (against({"gspo": "worse"}, "gcd") + against(BETTER_THAN_ALL), NOT_SUPPORTED),
        (against({"gspo": "equal within 1 point"}, "gcd") + against(BETTER_THAN_ALL), SUPPORTED),
        ([GCD, *against(BETTER_THAN_ALL | {"luspo": "worse", "ppo": "worse", "base": "worse"})], SUPPORTED),
        ([GCD, *((rival, "fspo", "mean", "worse") for rival in BETTER_THAN_ALL)], SUPPORTED),
        ([("grpo", "fspo", "mean", "better")], NOT_SUPPORTED),
        ([("fspo", "base", "mean", "better"), ("rloo", "grpo", "mean", "better")], NOT_TESTABLE),
    ],
)
def test_superiority(rows: list[tuple[str, str, str, str]], verdict: str) -> None:
    assert superiority(differences(*rows), "x").verdict == verdict


def test_superiority_is_signed_from_fspos_side_and_prints_holms_p() -> None:
    frame = differences(
        ("grpo", "fspo", "add", "better"), ("grpo", "fspo", "mean", "worse"), p_holm=0.00001, p_equal_holm=0.2
    )
    found = superiority(frame, "x")
    assert found.measured == (
        "mean of sets, points ahead of grpo +3.0 [+2.0, +4.0] (better, p < .0001); single sets: add worse, p < .0001 "
        "against grpo; not run: rloo, gspo, gspo_wide"
    )
    assert found.verdict == NOT_SUPPORTED
    alone = differences(("fspo", "grpo", "add", "equal within 1 point"), primary="add", p_equal_holm=0.01)
    said = "add, points ahead of grpo -3.0 [-4.0, -2.0] (equal within 1 point, p .0100); not run"
    assert superiority(alone, "x").measured.startswith(said)


def test_superiority_judges_the_primary_outcome_that_was_declared() -> None:
    rows = [*against(BETTER_THAN_ALL, "gcd"), *against(dict.fromkeys(BETTER_THAN_ALL, "undecided"))]
    assert superiority(differences(*rows, primary="gcd"), "x").verdict == SUPPORTED
    assert superiority(differences(*rows), "x").verdict == UNDECIDED


def test_the_table_numbers_the_claims() -> None:
    table = claims_table([reweighting(fairness(rloo=UNEVEN), METHODS, "x")] * 2)
    assert table[""].tolist() == [1, 2]
    assert list(table.columns) == ["", "claim", "measured", "runs behind it", "verdict"]
