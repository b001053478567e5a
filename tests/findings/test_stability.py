"""Stability and costs: numbers of planted curves, and a sweep that holds what does not belong to it."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from suite.findings.costs import ledger, ledger_table
from suite.findings.stability import (
    PROBE,
    RateRuns,
    against_base,
    rules_text,
    run_stability,
    seed_spread,
    stability,
    stability_summary,
    sweep_of,
)
from suite.records.costs import PEAK, SECONDS
from suite.records.result import ends
from suite.report.tables import stability_table
from suite.types import EvalResult, RunResult, UserError, Verdict

ROOT = Path(__file__).resolve().parents[2]


def curves(reward: list[float | None], **other: list[float | None]) -> dict[str, list[float | None]]:
    flat: list[float | None] = [1.0] * len(reward)
    named = {"norm": "grad_norm/max", "entropy": "entropy/mean", "length": "length/mean"}
    return {"reward/mean": reward} | {key: other.get(name, flat) for name, key in named.items()}


def probed(*values: float | None) -> float:
    return run_stability(curves([0.5] * len(values)) | {PROBE: list(values)})["probe_fall"]


def test_a_run_that_rises_on_the_probe_set_never_falls() -> None:
    found = run_stability(curves([0.1, 0.2, 0.3]) | {PROBE: [0.1, None, 0.2]})
    assert found == {"broken": 0, "probe_fall": 0, "spike_share": 0, "entropy_drift": 0, "length_ratio": 1}


def test_the_largest_fall_on_the_probe_set_is_below_the_maximum_so_far() -> None:
    assert probed(0.3, None, 0.5, None, 0.4, 0.45, 0.2, 0.9) == pytest.approx(0.3)
    assert probed(0.3, 0.2) == pytest.approx(0.1)


def test_without_two_probes_no_fall_is_known() -> None:
    assert math.isnan(probed(0.3, None, None))
    assert math.isnan(run_stability(curves([0.6, 0.1]))["probe_fall"])  # rewards of training steps are no probe


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20), st.floats(0.1, 10))
def test_falls_scale_with_the_reward_and_ignore_its_level(reward: list[float], factor: float) -> None:
    before = probed(*reward)
    assert probed(*(factor * x + 3 for x in reward)) == pytest.approx(factor * before, abs=1e-9)
    assert 0 <= before <= 1


@pytest.mark.parametrize("broken", [curves([0.5, None, 0.5]), curves([0.5] * 3, norm=[1.0, None, 1.0])])
def test_a_reward_or_gradient_that_is_no_number_breaks_a_run(broken: dict) -> None:
    assert run_stability(broken)["broken"] == 1


def test_spikes_drift_and_length() -> None:
    found = run_stability(
        curves([0.5] * 8, norm=[1, 1, 1, 5, 5.1, 9, 1, 1], entropy=[2, 2, 2, 0, 0, 1, 1, 1], length=[4] * 5 + [8] * 3)
    )
    assert found["spike_share"] == pytest.approx(2 / 8)
    assert found["entropy_drift"] == pytest.approx(-1)
    assert found["length_ratio"] == pytest.approx(2)


@pytest.mark.parametrize(("steps", "compared"), [(2, 1), (3, 1), (4, 2), (5, 2), (6, 3), (7, 3), (30, 3)])
def test_the_ends_of_a_short_run_do_not_overlap(steps: int, compared: int) -> None:
    rising = [float(2**step) for step in range(steps)]
    start, end = sum(rising[:compared]) / compared, sum(rising[steps - compared :]) / compared
    assert ends(rising) == pytest.approx((start, end))
    found = run_stability(curves([0.5] * steps, entropy=[*rising], length=[*rising]))
    assert found["entropy_drift"] == pytest.approx(end - start)
    assert found["length_ratio"] == pytest.approx(end / start)
    assert rules_text(steps).endswith({1: "last step with the first", 2: "last two steps with the first two",
                                       3: "last three steps with the first three"}[compared])  # fmt: skip


def test_a_single_step_has_no_ends_to_compare() -> None:
    run = replace(evaluated("fspo", [1, 1]), curves=curves([0.5]))
    runs = stability([RateRuns(1e-4, evaluated("base", [1, 0]), [run])])
    shown = stability_table(stability_summary(runs, pd.DataFrame(columns=pd.Index(["method", "learning_rate", "low"]))))
    assert [str(shown[name].iloc[0]) for name in ("entropy", "length")] == ["–", "–"]


def evaluated(method: str, *sets: list[int], reward: float | None = 0.5, seed: int = 0) -> RunResult:
    """A run with one sample a problem: 1 is correct, 0 is wrong; one list a set."""
    evals = tuple(
        EvalResult(
            task=f"set{i}",
            task_version="1",
            data_digest="d",
            problem_ids=tuple(map(str, range(len(hits)))),
            verdicts=tuple((Verdict.CORRECT if hit else Verdict.WRONG,) for hit in hits),
            lengths=tuple((1,) for _ in hits),
            truncated_share=0.0,
        )
        for i, hits in enumerate(sets)
    )
    return RunResult(1, method, seed, {}, evals, curves([reward] * 3), {}, {}, {})


def test_ahead_of_the_base_is_paired_by_problem_and_a_mean_of_sets() -> None:
    base, run = evaluated("base", [1, 0, 0, 1], [0, 0]), evaluated("fspo", [1, 1, 0, 1], [1, 0])
    found = against_base(run, base)
    assert found["final"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found["ahead"] == pytest.approx((1 / 4 + 1 / 2) / 2)
    # Gaps 0 1 0 0 and 1 0: variances 1/4 and 1/2, so error^2 = (1/16 + 1/4) / 4; t of the smaller set, one degree.
    half = float(t.ppf(0.975, 1)) * math.sqrt((1 / 16 + 1 / 4) / 4)
    assert (found["ahead_low"], found["ahead_high"]) == pytest.approx((found["ahead"] - half, found["ahead"] + half))


def test_a_run_collapsed_where_its_end_lies_below_the_base_model() -> None:
    """17 points below the base model is a collapse, whatever the training reward did; a level end is none."""
    base = evaluated("base", [1] * 50 + [0] * 50)
    fallen = evaluated("fspo", [1] * 33 + [0] * 67)
    level = evaluated("rloo", [1] * 48 + [0] * 50 + [1] * 2)
    broken = evaluated("gspo", [1] * 50 + [0] * 50, reward=None)
    found = stability([RateRuns(1e-4, base, [fallen, level, broken])]).set_index("method")
    assert found["collapsed"].to_dict() == {"fspo": 1, "rloo": 0, "gspo": 1}


def test_the_spread_over_seeds_is_that_of_the_rate_with_most_seeds() -> None:
    frame = pd.DataFrame(
        {"learning_rate": [1e-4] * 4 + [3e-4] * 2, "seed": [0, 1, 2, 3, 0, 1], "final": [0.3, 0.4, 0.4, 0.5, 0.0, 1.0]}
    )
    spread, low, high = seed_spread(frame)
    assert spread == pytest.approx(math.sqrt(0.02 / 3))
    # chi2 with 3 degrees of freedom at .975 and .025: 9.348 and 0.216.
    assert (low, high) == pytest.approx((math.sqrt(0.02 / 9.3484), math.sqrt(0.02 / 0.21580)), rel=1e-4)
    assert all(math.isnan(x) for x in seed_spread(frame.iloc[:1]))


def test_the_summary_counts_a_seed_once_and_names_rates_above_the_base() -> None:
    rows = [
        {"learning_rate": rate, "method": m, "seed": s, "collapsed": float(m == "rloo" and rate == 3e-4)}
        | {"probe_fall": 0.1 * s, "spike_share": 0.0, "entropy_drift": 0.0, "length_ratio": 1.0, "final": 0.1 * s}
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
    assert found.loc["fspo", "probe_fall"] == pytest.approx(0.1)
    assert found.loc["fspo", "spread"] == pytest.approx(0.1)
    # Wilson: (p + z^2/2n) / (1 + z^2/n) +- z sqrt(p q / n + z^2 / 4 n^2) / (1 + z^2/n), p = 1/2, n = 3 seeds of 6 runs.
    z, n = 1.959963984540054, 3
    half = z * math.sqrt(0.25 / n + z * z / (4 * n * n)) / (1 + z * z / n)
    assert found.loc["rloo", "collapsed_low"] == pytest.approx(0.5 - half)
    assert found.loc["rloo", "collapsed_high"] == pytest.approx(0.5 + half)


def run(method: str, seed: int, **costs: float) -> RunResult:
    return RunResult(1, method, seed, {}, (), {}, {}, {"tokens": 100.0 * (seed + 1), **costs}, {})


def differences(**points: float) -> pd.DataFrame:
    rows = [
        {"method": m, "reference": "base", "task": task, "difference": x / 100 * scale, "low": x / 100 * scale - 0.02}
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
    found = ledger(runs, differences(a=5.0, b=1.0)).set_index("method")
    assert found.loc["a", "seconds"] == pytest.approx(10)
    assert found.loc["a", "tokens"] == pytest.approx(150)
    assert found.loc["a", "seconds_per_point"] == pytest.approx(2)
    assert found.loc["a", "peak_gib_update"] == 2.0
    assert np.isnan(found.loc["b", "peak_gib_update"])
    assert np.isnan(found.loc["b", "seconds_per_point"])  # its interval reaches below 0
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
        sweep_of(sweep_folder(tmp_path, steps=3, learning_rate=1e-4))


def test_a_rate_that_is_there_twice_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suite.findings.stability.load_comparison", lambda config, folder: (None, []))
    with pytest.raises(UserError, match=r"learning rate 0\.0003 is there twice"):
        sweep_of(sweep_folder(tmp_path))


def test_a_sweep_is_ordered_by_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suite.findings.stability.load_comparison", lambda config, folder: (None, []))
    assert [part.rate for part in sweep_of(sweep_folder(tmp_path, learning_rate=3e-5))] == [3e-5, 3e-4]
    shutil.rmtree(tmp_path / "sweep")
    assert [part.rate for part in sweep_of(tmp_path)] == [3e-4]
