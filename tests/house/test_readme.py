"""Pages show what a command made: the table of the demo is the committed report's, the ratios are the benchmarks'."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from statistics import median

from benchmarks.summary import summarise
from pages import PAGES, text_of
from suite.config import PROTOCOL, restored
from suite.experiments.recipes import recipe
from suite.methods.conformance import CHECKS
from suite.records.packed import read_result

ROOT = Path(__file__).resolve().parents[2]
SHOWN = {"demo": "docs/reading-a-report.md", "bench": "docs/speed.md"}
"""The page that shows a committed table, by the folder of the results."""
REPORT = re.sub(
    r"\[([^\]]*(?:\[[^\]]*\])?)\]\(#[^)]*\)", r"\1", (ROOT / "results/demo/report.md").read_text(encoding="utf-8")
)
"""Without the links from numbers to runs, which a page does not have."""


def test_the_table_is_the_reports() -> None:
    part = text_of(SHOWN["demo"]).split("<!-- table of results/demo/report.md -->")[1]
    shown = part.split("<!-- end of table -->")[0].strip()
    assert shown.startswith("| model |")
    assert shown in REPORT


def test_the_ratios_are_the_benchmarks_and_none_that_misses_its_goal_is_left_out() -> None:
    part = text_of(SHOWN["bench"]).split("<!-- rows of results/bench/table.md -->")[1].split("<!-- end of rows -->")[0]
    shown = part.strip().splitlines()
    table = (ROOT / "results/bench/table.md").read_text(encoding="utf-8").splitlines()
    assert shown[:2] == table[:2]
    assert set(shown) <= set(table)
    assert {row for row in table if "ours / TRL" in row or "| no |" in row} <= set(shown)


def test_the_speed_in_a_sentence_is_the_tables() -> None:
    table = (ROOT / "results/bench/table.md").read_text(encoding="utf-8").splitlines()
    steps = [float(row.split(" | ")[2]) for row in table if "step, " in row and "tokens/s, ours / TRL" in row]
    missed = {4: "four"}[sum("| no |" in row for row in table)]
    said = " ".join(text_of("README.md").split())
    assert f"{min(steps):.2f} to {max(steps):.2f} times TRL 1.16's tokens per second; {missed} ratios miss" in said


def test_where_a_step_goes_is_what_the_cells_say() -> None:
    costs = [read_result(cell).costs for cell in (ROOT / "results/smollm2-words/cells").iterdir()]
    parts = ("sample", "score", "update")
    steps = [sum(one[f"seconds/{part}"] for part in parts) for one in costs]
    said = [
        f"{100 * median(one[f'seconds/{part}'] / step for one, step in zip(costs, steps, strict=True)):.0f} %"
        for part in parts
    ]
    words = "In the median cell sampling takes {} of a step, the first scoring {}, the updates {}."
    assert words.format(*said) in " ".join(text_of(SHOWN["bench"]).split())


def test_the_table_of_ratios_is_made_of_the_benchmarks_files(tmp_path: Path) -> None:
    for path in (ROOT / "results/bench").glob("*.json"):
        shutil.copy(path, tmp_path)
    assert summarise(tmp_path) == (ROOT / "results/bench/table.md").read_text(encoding="utf-8")


def test_the_report_is_the_recipes_and_this_protocols() -> None:
    record = json.loads((ROOT / "results/demo/comparison.json").read_text())
    assert record["protocol"] == PROTOCOL
    assert restored(record["config"]) == recipe("demo")  # a setting that is younger than the report had its default
    assert record["command"].startswith("fspo compare demo")


def test_the_count_of_properties_is_todays() -> None:
    said = {page: re.findall(r"(\d+)\s+properties", text_of(page)) for page in (*PAGES, "CHANGELOG.md")}
    assert {"README.md", "docs/your-own-loss.md", "CHANGELOG.md"} <= {page for page, counts in said.items() if counts}
    assert {count for counts in said.values() for count in counts} == {str(len(CHECKS))}
