"""The drift that FSPO read is in the report; estimates that nobody reads are not."""

from __future__ import annotations

import dataclasses

import pytest

from suite.experiments.names import METHODS
from suite.findings.running_estimates import estimates_table, running_estimates
from suite.types import RunResult

DRIFTS = {"state/drift": [-0.002, None, -0.004]}


def run(method: str, curves: dict[str, list[float | None]]) -> RunResult:
    return RunResult(1, method, 0, {}, (), {"reward": [0.0, 0.0, 0.0], **curves}, {}, {}, {})


def test_every_number_is_over_the_steps_and_runs_that_logged_it():
    runs = [run("fspo", DRIFTS), run("fspo", {"state/drift": [-0.001, -0.001, -0.008]})]
    (row,) = running_estimates(runs, METHODS).to_dict("records")
    assert (row["method"], row["estimate"]) == ("fspo", "drift")
    assert (row["first"], row["last"]) == (pytest.approx(-0.0015), pytest.approx(-0.006))
    assert row["mean"] == pytest.approx(-(2 + 4 + 1 + 1 + 8) / 5e3)
    assert (row["lowest"], row["highest"]) == (-0.008, -0.001)
    (shown,) = estimates_table(running_estimates(runs, METHODS)).to_dict("records")
    assert str(shown["mean"]) == "-0.0032"


def test_an_estimate_that_the_band_does_not_read_is_left_out():
    runs = [run("fspo_zero_drift", DRIFTS), run("grpo", {})]
    assert running_estimates(runs, METHODS).empty
    hyper = dataclasses.replace(METHODS["fspo_zero_drift"].hyper, target_clip_rate=0.1)
    reading = {"fspo_zero_drift": dataclasses.replace(METHODS["fspo_zero_drift"], hyper=hyper)}
    assert len(running_estimates(runs[:1], reading)) == 1


def test_a_run_that_logged_nothing_has_no_row():
    assert running_estimates([run("fspo", {}), run("fspo", {"state/drift": [None]})], METHODS).empty
