"""Family-wise error and coverage of verdicts in worlds without a difference, and the committed figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.family_error import SEEDS, WORLDS, family_rows, main
from benchmarks.worlds import FamilyWorld
from suite.statistics.intervals import FALSE_VERDICTS, LOWEST_COVERAGE, MEASURED_FAMILY

COMMITTED = Path(__file__).resolve().parents[2] / "results" / "family_error" / "family_error.csv"


@pytest.mark.slow
@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("sds", [(0.15,) * 4, (0.4, 0.15, 0.15, 0.15), (0.3, 0.3)])
def test_verdicts_keep_the_family_wise_error(seeds: int, sds: tuple[float, ...]) -> None:
    (larger,) = [row for row in family_rows(FamilyWorld(sds, seeds=seeds), 400, 400, 7) if row["rule"] == "larger"]
    error = np.sqrt(0.05 * 0.95 / 400)
    assert float(larger["decided"]) <= 0.05 + 3 * error
    assert float(larger["equal"]) <= 0.05 + 3 * error
    assert float(larger["lowest"]) >= 0.95 - 3 * error


@pytest.mark.slow
def test_the_other_rules_do_not_and_the_simulation_notices() -> None:
    """Above 5 % by two standard errors of 400 worlds; results/family_error has the shares of 1,500."""
    own, pooled, larger = family_rows(FamilyWorld((0.4, 0.15, 0.15, 0.15), seeds=2), 400, 200, 7)
    above = 0.05 + 2 * np.sqrt(0.05 * 0.95 / 400)
    assert float(own["decided"]) > above
    assert float(pooled["decided"]) > above
    assert float(larger["decided"]) < above


def test_the_simulation_writes_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.family_error.WORLDS", [FamilyWorld((0.1, 0.2, 0.3), problems=12)])
    monkeypatch.setattr("benchmarks.family_error.SEEDS", (3,))
    monkeypatch.setattr("benchmarks.family_error.REPETITIONS", 20)
    main(["--out", str(tmp_path), "--experiments", "10"])
    table = pd.read_csv(tmp_path / "family_error.csv")
    assert table["rule"].tolist() == ["own", "pooled", "larger"]
    assert set(table["seed_sds"]) == {"0.1 0.2 0.3"}
    assert ((table["lowest"] <= table["mean"]) & (table["mean"] <= 1)).all()
    assert {path.name for path in tmp_path.iterdir()} == {"family_error.csv", "made.json"}


@pytest.mark.skipif(
    not COMMITTED.exists(), reason="no results/family_error: python -m benchmarks.family_error makes it"
)
def test_reports_quote_the_committed_simulation() -> None:
    table = pd.read_csv(COMMITTED)
    assert len(table) == 3 * len(WORLDS) * len(SEEDS)
    ours = table[table["rule"] == "larger"]
    assert float(ours["decided"].max()) == pytest.approx(FALSE_VERDICTS, abs=5e-4)
    assert float(ours["lowest"].min()) == pytest.approx(LOWEST_COVERAGE, abs=5e-4)
    assert f"at most {100 * FALSE_VERDICTS:.1f} %" in MEASURED_FAMILY
