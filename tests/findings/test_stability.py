"""Stability and costs: numbers of planted curves, and a sweep that holds what does not belong to it."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suite.findings.costs import ledger, ledger_table
from suite.findings.stability import run_stability, stability_summary, sweep_of
from suite.records.costs import PEAK, SECONDS
from suite.types import RunResult, UserError

ROOT = Path(__file__).resolve().parents[2]


def curves(reward: list[float | None], **other: list[float | None]) -> dict[str, list[float | None]]:
    flat: list[float | None] = [1.0] * len(reward)
    named = {"norm": "grad_norm/max", "entropy": "entropy/mean", "length": "length/mean"}
    return {"reward/mean": reward} | {key: other.get(name, flat) for name, key in named.items()}


def test_a_rising_run_never_falls() -> None:
    found = run_stability(curves([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    assert found == {"collapsed": 0, "drawdown": 0, "spike_share": 0, "entropy_drift": 0, "length_ratio": 1}


def test_drawdown_is_the_largest_fall_of_the_smoothed_reward() -> None:
    # Means of three: .4 .5 .4 .3 .4, so it falls by .2 after its maximum.
    found = run_stability(curves([0.3, 0.4, 0.5, 0.6, 0.1, 0.2, 0.9]))
    assert found["drawdown"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("reward", "collapsed"),
    [
        ([0.6, 0.6, 0.6, 0.9, 0.3, 0.3, 0.3], 0),  # exactly half is no collapse
        ([0.6, 0.6, 0.6, 0.9, 0.3, 0.3, 0.29], 1),
        ([0.6, 0.0, 0.6, 0.6, 0.6, 0.6, 0.6], 0),  # one bad step is none
        ([0.6, 0.6, 0.6, None, 0.6, 0.6, 0.6], 1),
    ],
)
def test_collapse(reward: list[float | None], collapsed: int) -> None:
    assert run_stability(curves(reward))["collapsed"] == collapsed


def test_a_gradient_that_is_no_number_is_a_collapse() -> None:
    assert run_stability(curves([0.5] * 6, norm=[1.0, 1.0, None, 1.0, 1.0, 1.0]))["collapsed"] == 1


def test_spikes_drift_and_length() -> None:
    found = run_stability(
        curves([0.5] * 8, norm=[1, 1, 1, 5, 5.1, 9, 1, 1], entropy=[2, 2, 2, 0, 0, 1, 1, 1], length=[4] * 5 + [8] * 3)
    )
    assert found["spike_share"] == pytest.approx(2 / 8)
    assert found["entropy_drift"] == pytest.approx(-1)
    assert found["length_ratio"] == pytest.approx(2)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=20), st.floats(0.1, 10))
def test_drawdown_scales_with_the_reward_and_ignores_its_level(reward: list[float], factor: float) -> None:
    before = run_stability(curves(list(reward)))["drawdown"]
    after = run_stability(curves([factor * x + 3 for x in reward]))["drawdown"]
    assert after == pytest.approx(factor * before, abs=1e-9)
    assert 0 <= before <= 1


def test_the_summary_counts_runs_and_names_rates_above_the_base() -> None:
    rows = [
        {
            "learning_rate": rate,
            "method": m,
            "seed": s,
            "collapsed": float(m == "rloo" and rate == 3e-4),
            "drawdown": 0.1 * s,
            "spike_share": 0.0,
            "entropy_drift": 0.0,
            "length_ratio": 1.0,
        }
        for rate in (1e-4, 3e-4)
        for m in ("fspo", "rloo")
        for s in range(3)
    ]
    gain = pd.DataFrame(
        {"learning_rate": [1e-4, 3e-4] * 2, "method": ["fspo", "fspo", "rloo", "rloo"], "low": [0.01, 0.02, 0.01, -0.3]}
    )
    found = stability_summary(pd.DataFrame(rows), gain).set_index("method")
    assert found.loc["rloo", "collapsed"] == pytest.approx(0.5)
    assert found.loc["fspo", "rates_above_base"] == "0.0001, 0.0003"
    assert found.loc["rloo", "rates_above_base"] == "0.0001"
    assert found.loc["fspo", "largest_drawdown"] == pytest.approx(0.2)
    # Wilson: (p + z^2/2n) / (1 + z^2/n) +- z sqrt(p q / n + z^2 / 4 n^2) / (1 + z^2/n), with p = 1/2, n = 6.
    z, n = 1.959963984540054, 6
    half = z * math.sqrt(0.25 / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert found.loc["rloo", "collapsed_low"] == pytest.approx(0.5 - half)
    assert found.loc["rloo", "collapsed_high"] == pytest.approx(0.5 + half)


def run(method: str, seed: int, **costs: float) -> RunResult:
    return RunResult(1, method, seed, {}, (), {}, {}, {"tokens": 100.0 * (seed + 1), **costs}, {})


def differences(**points: float) -> pd.DataFrame:
    rows = [
        {"method": m, "reference": "base", "task": task, "difference": x / 100 * scale}
        for m, x in points.items()
        for task, scale in (("add", 9), ("mean", 1))
    ]
    return pd.DataFrame([*rows, {"method": "a", "reference": "b", "task": "mean", "difference": 7.0}])


def test_the_ledger_adds_phases_and_divides_by_points() -> None:
    phases = ("sample", "score", "update", "evaluate")
    costs: dict[str, Any] = {f"{SECONDS}{phase}": 1.0 + i for i, phase in enumerate(phases)}
    peaks = {f"{PEAK}{phase}": 0.5 for phase in phases}
    runs = [
        run("a", 0, **costs, **peaks),
        run("a", 1, **costs, **{**peaks, f"{PEAK}update": 2.0}),
        run("b", 0, **costs),
    ]
    found = ledger(runs, differences(a=5.0, b=-1.0)).set_index("method")
    assert found.loc["a", "seconds"] == pytest.approx(10)
    assert found.loc["a", "tokens"] == pytest.approx(150)
    assert found.loc["a", "seconds_per_point"] == pytest.approx(2)
    assert found.loc["a", "peak_gib_update"] == 2.0
    assert np.isnan(found.loc["b", "peak_gib_update"])
    assert np.isnan(found.loc["b", "seconds_per_point"])  # nothing was gained
    shown = ledger_table(found.reset_index()).set_index("method")
    assert str(shown.loc["b", "peak, GiB"]) == "– / – / – / –"
    assert str(shown.loc["a", "s a point"]) == "2.0"


def sweep_folder(tmp_path: Path, **changes: Any) -> Path:
    """Two folders that claim to be one comparison at two rates; only their settings are there."""
    source = json.loads((ROOT / "results/demo/comparison.json").read_text())
    for name, changed in (("", {}), ("sweep/x", changes)):
        content = json.loads(json.dumps(source))
        for key, value in changed.items():
            content["config"]["train"][key] = value
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / name / "comparison.json").write_text(json.dumps(content))
    return tmp_path


def test_a_sweep_that_changes_more_than_the_rate_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suite.findings.stability.load_comparison", lambda config, folder: (None, []))
    with pytest.raises(UserError, match=r"sweep/x: differs from .* in train.steps"):
        sweep_of(sweep_folder(tmp_path, steps=3, learning_rate=3e-4))


def test_a_rate_that_is_there_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suite.findings.stability.load_comparison", lambda config, folder: (None, []))
    with pytest.raises(UserError, match=r"learning rate 0\.0001 is there twice"):
        sweep_of(sweep_folder(tmp_path))


def test_a_sweep_is_ordered_by_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suite.findings.stability.load_comparison", lambda config, folder: (None, []))
    assert [part.rate for part in sweep_of(sweep_folder(tmp_path, learning_rate=3e-5))] == [3e-5, 1e-4]
    shutil.rmtree(tmp_path / "sweep")
    assert [part.rate for part in sweep_of(tmp_path)] == [1e-4]
