"""Committed results are what the program makes of the runs that are committed with them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from suite.findings.comparison import Comparison
from suite.report.write import write_report

LARGE = Path(__file__).parents[2] / "results" / "demo-large"


@pytest.mark.slow
def test_the_large_demos_report_is_made_again_byte_for_byte(tmp_path: Path) -> None:
    copy = tmp_path / LARGE.name
    shutil.copytree(LARGE, copy)
    texts = sorted(path.name for path in copy.iterdir() if path.suffix in (".md", ".csv", ".tex"))
    for name in texts:
        (copy / name).unlink()
    write_report(Comparison.at(copy))
    assert len(texts) > 20
    for name in texts:
        assert (copy / name).read_bytes() == (LARGE / name).read_bytes(), name
