"""The first screen shows what a command made: the README's table is the committed report's, figures and all."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from benchmarks.summary import summarise
from suite.config import PROTOCOL, restored
from suite.experiments.recipe_book import RECIPES
from suite.experiments.recipes import recipe
from suite.methods.conformance import CHECKS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REPORT = re.sub(
    r"\[([^\]]*(?:\[[^\]]*\])?)\]\(#[^)]*\)", r"\1", (ROOT / "results/demo/report.md").read_text(encoding="utf-8")
)
"""Without the links from numbers to runs, which the README does not have."""


def test_the_table_is_the_reports() -> None:
    shown = README.split("<!-- table of results/demo/report.md -->")[1].split("<!-- end of table -->")[0].strip()
    assert shown.startswith("| model |")
    assert shown in REPORT


def test_the_ratios_are_the_benchmarks_and_none_that_misses_its_goal_is_left_out() -> None:
    part = README.split("<!-- rows of results/bench/table.md -->")[1].split("<!-- end of rows -->")[0]
    shown = part.strip().splitlines()
    table = (ROOT / "results/bench/table.md").read_text(encoding="utf-8").splitlines()
    assert shown[:2] == table[:2]
    assert set(shown) <= set(table)
    assert {row for row in table if "ours / TRL" in row or "| no |" in row} <= set(shown)


def test_the_table_of_ratios_is_made_of_the_benchmarks_files(tmp_path: Path) -> None:
    for path in (ROOT / "results/bench").glob("*.json"):
        shutil.copy(path, tmp_path)
    assert summarise(tmp_path) == (ROOT / "results/bench/table.md").read_text(encoding="utf-8")


def test_the_report_is_the_recipes_and_this_protocols() -> None:
    record = json.loads((ROOT / "results/demo/comparison.json").read_text())
    assert record["protocol"] == PROTOCOL
    assert restored(record["config"]) == recipe("demo")  # a setting that is younger than the report had its default
    assert record["command"].startswith("fspo compare demo")


def test_every_link_and_picture_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)", README):
        assert (ROOT / target).exists(), target


def test_every_recipe_named_is_known() -> None:
    assert set(re.findall(r"fspo (?:compare|train) ([a-z0-9-]+)", README)) <= set(RECIPES)


def test_the_count_of_properties_is_todays() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert set(re.findall(r"(\d+) properties", README + changelog)) == {str(len(CHECKS))}
