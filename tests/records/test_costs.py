"""Costs of phases: memory of one phase is not that of the one before it, and no cost is part of a result."""

from __future__ import annotations

import os

import pytest
import torch

from suite.records.costs import COSTS, PEAK, SECONDS, Clock
from suite.records.result import curves_of

MIB = 2**20
FRESH_PEAKS = os.access("/proc/self/clear_refs", os.W_OK) and not torch.cuda.is_available()


@pytest.mark.skipif(not FRESH_PEAKS, reason="this system does not let the peak of resident memory begin again")
def test_a_phase_shows_its_own_peak() -> None:
    clock = Clock()
    clock.lap("before")
    large = torch.ones(256 * MIB // 4)
    del large
    clock.lap("large")
    clock.lap("after")
    added = (clock.costs[f"{PEAK}large"] - clock.costs[f"{PEAK}before"]) * 1024
    assert added == pytest.approx(256, abs=16)
    assert clock.costs[f"{PEAK}after"] < clock.costs[f"{PEAK}large"] - 200 / 1024


def test_phases_share_out_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 11.0, 11.0, 15.0, 15.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    clock = Clock()
    clock.lap("sample")
    clock.lap("update")
    assert clock.costs[f"{SECONDS}sample"] == 1.0
    assert clock.costs[f"{SECONDS}update"] == 4.0


def test_costs_stay_out_of_curves() -> None:
    clock = Clock()
    clock.lap("sample")
    assert set(clock.costs) == {name for name in clock.costs if name.startswith(COSTS)}
    assert curves_of([{"step": 0, "reward/mean": 0.5, **clock.costs}]) == {"reward/mean": [0.5]}
