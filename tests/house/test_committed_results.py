"""Committed results are what the program makes of the runs that are committed with them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from strategies import METHODS
from suite.findings.comparison import Comparison
from suite.records.bank import MANIFEST, Bank
from suite.replay.one_method import clip_rate
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
    page = (copy / "report.html").read_text()
    assert len(page.encode()) < 3_000_000
    assert page[: page.index("<figure")].count("<li>") == 5, "sentences"
    assert page[: page.index("<details>")].count("<figure") == 3


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


def test_the_page_of_a_recorded_trl_run_is_of_the_bank_beside_it() -> None:
    """Whole, small, and with the clip rates of this code; the page itself takes half a minute to make."""
    kept = RESULTS / "trl-run"
    bank = Bank.open(kept / "bank")
    bank.check()
    manifest = hashlib.sha256((kept / "bank" / MANIFEST).read_bytes()).hexdigest()
    assert json.loads((kept / "made.json").read_text())["manifest_sha256"] == manifest
    fairness = pd.read_csv(kept / "fairness.csv").set_index(["range", "method"])["mean_clipped"]
    log = bank.updates()
    for name in ("grpo", "gspo", "fspo"):
        np.testing.assert_allclose(clip_rate(METHODS[name], log, {}), fairness["default", name], atol=1e-6)
    assert "run of trl 1.16.0 GRPOTrainer" in (kept / "lab.md").read_text()
    assert sum(path.stat().st_size for path in kept.rglob("*") if path.is_file()) < 1_000_000
