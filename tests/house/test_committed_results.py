"""Committed results are what the program makes of the runs that are committed with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from suite.findings.comparison import Comparison
from suite.report.markdown import write_csv
from suite.report.write import write_report

RESULTS = Path(__file__).parents[2] / "results"


@pytest.mark.slow
def test_the_demos_report_is_made_again_byte_for_byte(tmp_path: Path) -> None:
    """Whole: its update logs are committed, too."""
    kept, copy = RESULTS / "demo", tmp_path / "demo"
    shutil.copytree(kept, copy)
    texts = sorted(path.name for path in copy.iterdir() if path.suffix in (".md", ".csv", ".tex"))
    for name in texts:
        (copy / name).unlink()
    write_report(Comparison.at(copy))
    assert {"report.md", "tables.tex", "fairness.csv", "differences.csv", "claims.csv"} <= set(texts)
    for name in texts:
        assert (copy / name).read_bytes() == (kept / name).read_bytes(), name


@pytest.mark.slow
def test_the_large_demos_accuracies_and_stability_are_made_again_byte_for_byte(tmp_path: Path) -> None:
    """What its runs say; their update logs weigh too much to be committed."""
    kept, compared = RESULTS / "demo-large", []
    for name, frame in Comparison.at(kept).tables_of_results().items():
        if (kept / f"{name}.csv").exists():
            write_csv(tmp_path / f"{name}.csv", frame)
            assert (tmp_path / f"{name}.csv").read_bytes() == (kept / f"{name}.csv").read_bytes(), name
            compared.append(name)
    assert {"accuracy", "differences", "stability", "gradient_cuts", "running_estimates"} <= set(compared)
