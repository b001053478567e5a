"""The screen that a comparison ends with: its size, and that what matters most is on it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from suite.experiments.recipes import recipe
from suite.report.terminal import COLUMNS, LINES, aligned, overview_table, screen, show
from suite.statistics.frames import Number

PAGE = Path("results/runs/demo/report.html")


def comparison(methods: int, canaries: int = 0) -> Any:
    """As much of a finished comparison as the screen reads, with so many methods."""
    names = [f"method_{i:02}" for i in range(methods)]
    accuracies = pd.DataFrame(
        [
            {"method": name, "task": "mean", "accuracy": 0.4, "low": 0.35, "high": 0.45, "mean_length": 41.04}
            | {"truncated_share": 0.023, "no_answer_share": 0.05, "undecided_share": 0.0}
            for name in ("base", *names)
        ]
    )
    fairness = pd.DataFrame(
        [
            {"method": name, "range": "default", "band": name != "method_01", "mean_clipped": 0.08}
            | {"clipped_slope": -0.018, "clipped_slope_low": -0.032, "clipped_slope_high": -0.005}
            for name in names
        ]
    )
    differences = pd.DataFrame(
        [
            {"method": "method_00", "reference": name, "task": "mean", "difference": 0.002, "low": -0.02, "high": 0.024}
            | {"minimum_detectable": 0.031, "p_holm": 0.9, "seeds": 3, "family": "primary", "verdict": "undecided"}
            for name in names[1:]
        ]
    )
    claims = [
        SimpleNamespace(
            verdict="not supported", claim="A claim of some length " * 3, measured="fspo +0.1 [0, 0.2] " * 9
        )
        for _ in range(5)
    ]
    return SimpleNamespace(
        config=recipe("demo"),
        methods=names,
        statistics=SimpleNamespace(accuracies=accuracies, differences=differences),
        ratios_moved=True,
        arena=SimpleNamespace(fairness=fairness),
        claims=claims,
        canary_lines=[f"not comparable: method_00 seed {i}: " + "other answers " * 8 for i in range(canaries)],
    )


@pytest.mark.parametrize(("methods", "canaries"), [(2, 0), (7, 0), (7, 9), (25, 0), (25, 9)])
def test_it_fits_and_keeps_the_claims_the_page_and_the_top_of_the_table(methods: int, canaries: int) -> None:
    lines = screen(comparison(methods, canaries), PAGE)
    assert len(lines) <= LINES == 40
    assert max(map(len, lines)) <= COLUMNS == 100
    assert lines[-1] == f"page: {PAGE}"
    assert [line[:16] for line in lines if line[:2] in ("1.", "2.", "3.", "4.", "5.")] == [
        f"{i}. not supported"[:16] for i in range(1, 6)
    ]
    assert lines[0].startswith(f"demo: {methods} methods x ")
    assert any(line.startswith("base ") for line in lines)
    text = " ".join(" ".join(lines).split())
    assert "method_00 against method_01: undecided (+0.2 [-2.0, +2.4] points, p .9000 after Holm, 3 seeds)" in text
    assert "a true difference of 3.1 points would be found with 80 % power" in text
    assert ("more lines on the page" in text) == (methods > 2 or canaries > 2)
    if canaries:
        assert "not comparable: method_00 seed 0:" in text


@pytest.mark.parametrize("columns", [50, 70, 100])
def test_a_narrow_screen_loses_columns_and_no_number_is_cut(columns: int) -> None:
    lines = screen(comparison(7), PAGE, columns)
    assert max(map(len, lines)) <= columns
    header = next(line for line in lines if line.startswith("method "))
    assert ("truncated" in header, "slope per doubling" in header) == (columns == 100, columns > 50)
    row = next(line for line in lines if line.startswith("method_00 "))
    assert row.split("  ")[1].strip() == "40.0 [35.0, 45.0]"


@pytest.mark.parametrize("columns", [20, 80, 130])
def test_a_table_wider_than_the_terminal_is_folded_and_no_cell_is_cut(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sets = ["recurrence", "equation", "gcd", "recurrence_long", "mean of sets"]
    rows = [
        {"model": name} | {each: Number(f"{10 * i + j}.5 [30.25, 47.75]") for j, each in enumerate(sets)}
        for i, name in enumerate(("fspo", "rloo [own]"), start=1)
    ]
    monkeypatch.setenv("COLUMNS", str(columns))
    show(pd.DataFrame(rows), "accuracy", Console(markup=False))
    lines = capsys.readouterr().out.splitlines()
    for row in rows:
        for name, cell in row.items():
            assert any(name in line for line in lines)
            assert any(str(row["model"]) in line and str(cell) in line for line in lines)
    assert max(map(len, lines)) <= max(columns, len("rloo [own]  10.5 [30.25, 47.75]"))


def test_a_row_holds_accuracy_clip_rate_slope_length_and_truncation() -> None:
    rows = overview_table(comparison(2)).to_dict("records")
    assert list(rows[1].values()) == ["method_00", "40.0 [35.0, 45.0]", "8.0", "-1.8 [-3.2, -0.5]", "41.0", "2.3"]
    assert list(rows[0].values())[2:4] == ["–", "–"]  # the base model clips nothing
    assert list(rows[2].values())[2:4] == ["–", "–"]  # nor does a method without a band


def test_columns_are_aligned() -> None:
    assert aligned(pd.DataFrame({"method": ["a", "longer"], "x": ["1.0", "–"]})) == [
        "method    x",
        "a       1.0",
        "longer    –",
    ]
