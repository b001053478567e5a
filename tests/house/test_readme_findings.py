"""What README says came out is composed of rows of the committed tables, word for word."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from pages import text_of
from suite.experiments.names import PAPER_BASELINES
from suite.statistics.frames import percent, select

RESULTS = Path(__file__).resolve().parents[2] / "results"
SHOWN = {"rloo": "RLOO", "grpo": "GRPO", "gspo": "GSPO", "gspo_wide": "GSPO's wide range"}
README = " ".join(text_of("README.md").split())


def rows(folder: str, table: str, key: str = "method", **where: Any) -> dict[str, dict[str, Any]]:
    """The rows of a committed table with those values, by one column."""
    frame = select(pd.read_csv(RESULTS / folder / f"{table}.csv"), **where)
    return {row[key]: row for row in frame.to_dict("records")}


def points(row: dict[str, Any], name: str) -> str:
    """A share with its interval, in points."""
    return percent(row[name], row[f"{name}_low"], row[f"{name}_high"], sign=True)


def test_the_slopes_and_the_words_are_those_of_matched_ranges() -> None:
    found = rows("demo-large", "fairness", range="matched")
    slopes = [points(found[name], "clipped_slope") for name in ("rloo", "gspo", "fspo", "fspo_zero_drift")]
    assert "{} points for RLOO, {} for GSPO, {} for FSPO and {} for FSPO without drift".format(*slopes) in README
    words = {found[name]["word"] for name in ("rloo", "gspo", "fspo", "fspo_zero_drift")}
    assert {frozenset({"uneven"}): "FSPO without drift: uneven, all four"}[frozenset(words)] in README
    assert f"With truncated responses FSPO's slope is {points(found['fspo'], 'all_clipped_slope')}" in README
    lre = [
        "{lre_max:.3f} [{lre_max_low:.3f}, {lre_max_high:.3f}]".format(**found[name])
        for name in ("fspo", "rloo", "gspo")
    ]
    assert "LRE: FSPO {}, RLOO {}, GSPO {}".format(*lre) in README


def test_the_accuracies_are_the_declared_differences() -> None:
    found = rows("demo-large", "differences", "reference", family="primary", method="fspo")
    said = [
        f"{SHOWN[name]} {percent(row['difference'], row['low'], row['high'], sign=True)} ({row['verdict']})"
        for name, row in ((name, found[name]) for name in PAPER_BASELINES)
    ]
    assert ", ".join(said) in README
    small = rows("demo", "differences", "reference", family="primary", method="fspo")
    verdicts = {small[name]["verdict"] for name in PAPER_BASELINES}
    assert {frozenset({"undecided"}): "all four are undecided"}[frozenset(verdicts)] in README


def test_what_the_drift_did_is_a_row_and_called_exploratory() -> None:
    row = rows("demo-large", "differences", "reference", task="mean", method="fspo")["fspo_zero_drift"]
    said = percent(row["difference"], row["low"], row["high"], sign=True)
    assert row["family"] == "exploratory"
    assert f"{said} points against FSPO without drift (demo-large, exploratory)" in README


def test_what_the_demo_could_have_found_is_in_the_page_on_reports() -> None:
    row = rows("demo", "differences", "reference", family="primary", method="fspo")["rloo"]
    said = f"a true difference of {percent(row['minimum_detectable'])} points would be found with 80 % power"
    assert said in " ".join(text_of("docs/reading-a-report.md").split())


def test_the_collapses_are_counted() -> None:
    for folder in ("demo", "demo-large"):
        found = pd.read_csv(RESULTS / folder / "stability.csv")
        by_method = found.groupby("method", sort=False)["collapsed"].sum().astype(int)
        fallen = ", ".join(f"{name} {count}" for name, count in by_method.items() if count) or "none"
        assert f"of {len(found)} in {folder} {fallen}" in README, folder


def test_the_verdicts_of_the_claims_are_the_reports() -> None:
    verdicts = pd.read_csv(RESULTS / "demo-large" / "claims.csv")["verdict"].tolist()
    claims = ("fixed ranges reweight", "LRE bound", "flat clip rates", "stability", "accuracy")
    said = "; ".join(f"{claim}: {word}" for claim, word in zip(claims, verdicts, strict=True))
    assert f"in our forms, in demo-large: {said}" in README
