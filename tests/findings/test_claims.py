"""Claims: verdicts from planted numbers, and that nothing is called supported which an interval does not carry."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from suite.findings.claims import (
    NOT_SUPPORTED,
    NOT_TESTABLE,
    SUPPORTED,
    UNDER_POWERED,
    bounding,
    claims_table,
    flattening,
    reweighting,
    steadiness,
    superiority,
)


def fairness(**slopes: tuple[float, float]) -> pd.DataFrame:
    """Rows at matched ranges with slopes (low, high) in points, and misleading ones at default ranges."""
    rows = []
    for method, (low, high) in slopes.items():
        slope = {"outside_slope": (low + high) / 200, "outside_slope_low": low / 100, "outside_slope_high": high / 100}
        rows += [{"method": method, "range": "matched"} | slope]
        rows += [{"method": method, "range": "default"} | dict.fromkeys(slope, 0.5)]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("rloo", "gspo", "verdict"),
    [
        ((3, 4), (-5, -2), SUPPORTED),
        ((0.2, 0.4), (-5, -2), NOT_SUPPORTED),  # a slope, but of less than a point
        ((-0.5, 0.5), (-5, -2), NOT_SUPPORTED),
        ((-1, 4), (-5, -2), UNDER_POWERED),
    ],
)
def test_reweighting(rloo: tuple[float, float], gspo: tuple[float, float], verdict: str) -> None:
    assert reweighting(fairness(rloo=rloo, gspo=gspo, grpo=(0, 0)), "x").verdict == verdict


def test_reweighting_reads_matched_ranges_and_says_what_it_read() -> None:
    found = reweighting(fairness(rloo=(3, 5), gspo=(-5, -2)), "replays of 2 cells")
    assert "rloo +4.0 [+3.0, +5.0], gspo -3.5 [-5.0, -2.0]" in found.measured
    assert found.runs == "replays of 2 cells"
    assert reweighting(fairness(grpo=(1, 2)), "x").verdict == NOT_TESTABLE


@pytest.mark.parametrize(
    ("fspo", "verdict"),
    [
        ((-1, 1), SUPPORTED),
        ((-2.5, 1), UNDER_POWERED),  # reaches gspo's smallest
        ((6, 8), NOT_SUPPORTED),  # steeper than both
        ((4.5, 6), NOT_SUPPORTED),  # steeper than rloo alone
    ],
)
def test_flattening(fspo: tuple[float, float], verdict: str) -> None:
    assert flattening(fairness(fspo=fspo, rloo=(3, 4), gspo=(-5, -2)), "x").verdict == verdict


def test_flattening_needs_fspo_and_a_rival() -> None:
    assert flattening(fairness(rloo=(3, 4)), "x").verdict == NOT_TESTABLE
    assert flattening(fairness(fspo=(3, 4)), "x").verdict == NOT_TESTABLE


def bounds(below: int, updates: int = 100, cells: int = 4, silent: int = 10) -> pd.DataFrame:
    """Cells in which the real clip lies `below` times under its bound; `silent` updates have none."""
    rows = []
    for cell in range(cells):
        for i in range(updates + silent):
            said = i < updates
            row = {"cell": f"fspo-seed{cell}", "bound": 0.5 if said else math.nan, "scaled": 0.9}
            rows.append(row | {"violated": 1.0 if i < below + cell % 2 and said else 0.0})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(("below", "verdict"), [(0, SUPPORTED), (20, NOT_SUPPORTED), (4, UNDER_POWERED)])
def test_bounding(below: int, verdict: str) -> None:
    found = bounding(bounds(below), "x")
    assert found.verdict == verdict
    assert "400 of 440 updates have K LRE < 1" in found.measured
    assert "in 0;" in found.measured


def test_bounding_is_exact_where_nothing_varies_and_silent_without_bounds() -> None:
    assert bounding(bounds(0, cells=1), "x").verdict == NOT_TESTABLE
    even = bounds(0)
    even["violated"] = 0.0
    assert "in 0.0 [0.0, 0.0] %" in bounding(even, "x").measured
    assert bounding(bounds(0, updates=0), "x").verdict == NOT_TESTABLE


def drawdowns(seeds: int = 12, **means: float) -> pd.DataFrame:
    shared = np.random.default_rng(0).normal(0, 0.1, seeds)  # what pairing takes out
    rows: list[dict[str, Any]] = []
    for place, (method, mean) in enumerate(means.items()):
        for seed, common in enumerate(shared):
            value = mean + common + 0.005 * (place + 1) * (-1) ** seed  # a mean of 0 over an even number of seeds
            rows.append({"learning_rate": 1e-4, "method": method, "seed": seed, "drawdown": value, "collapsed": 0.0})
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("means", "verdict"),
    [
        ({"fspo": 0.1, "rloo": 0.2, "gspo": 0.15}, SUPPORTED),
        ({"fspo": 0.1, "rloo": 0.2, "gspo": 0.05}, NOT_SUPPORTED),
        ({"fspo": 0.1, "rloo": 0.2, "gspo": 0.1}, UNDER_POWERED),
        ({"rloo": 0.2, "gspo": 0.1}, NOT_TESTABLE),
        ({"fspo": 0.2}, NOT_TESTABLE),
    ],
)
def test_steadiness(means: dict[str, float], verdict: str) -> None:
    assert steadiness(drawdowns(**means), "x").verdict == verdict


def test_steadiness_needs_two_runs_and_counts_collapses() -> None:
    assert steadiness(drawdowns(1, fspo=0.1, rloo=0.2), "x").verdict == NOT_TESTABLE
    frame = drawdowns(fspo=0.1, rloo=0.2)
    frame.loc[frame["method"] == "rloo", "collapsed"] = [1.0, 1.0] + [0.0] * 10
    assert "collapsed runs fspo 0, rloo 2 of 12" in steadiness(frame, "x").measured


def differences(*rows: tuple[str, str, float, float]) -> pd.DataFrame:
    """(method, reference, low, high) in points on the mean of sets, and a set before it that says the opposite."""
    made = []
    for method, reference, low, high in rows:
        for task, sign in (("add", -1), ("mean", 1)):
            a, b = sorted((sign * low / 100, sign * high / 100))
            made.append(
                {"method": method, "reference": reference, "task": task, "difference": (a + b) / 2, "low": a, "high": b}
            )
    return pd.DataFrame(made)


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([("fspo", "rloo", 1, 3), ("grpo", "fspo", -4, -2)], SUPPORTED),
        ([("fspo", "rloo", 1, 3), ("grpo", "fspo", -2, 1)], UNDER_POWERED),
        ([("fspo", "rloo", 1, 3), ("grpo", "fspo", -0.9, 1)], NOT_SUPPORTED),  # at most .9 points ahead
        ([("fspo", "rloo", 1, 3), ("grpo", "fspo", 1, 2)], NOT_SUPPORTED),
        ([("fspo", "base", 5, 6), ("rloo", "grpo", 5, 6)], NOT_TESTABLE),
    ],
)
def test_superiority(rows: list[tuple[str, str, float, float]], verdict: str) -> None:
    assert superiority(differences(*rows), 2, "x").verdict == verdict


def test_superiority_is_signed_from_fspos_side() -> None:
    found = superiority(differences(("grpo", "fspo", -4, -2)), 2, "x")
    assert "grpo +3.0 [+2.0, +4.0]" in found.measured


def test_the_table_numbers_the_claims() -> None:
    table = claims_table([reweighting(fairness(rloo=(3, 4), gspo=(-5, -2)), "x")] * 2)
    assert table[""].tolist() == [1, 2]
    assert list(table.columns) == ["", "claim", "measured", "runs behind it", "verdict"]
