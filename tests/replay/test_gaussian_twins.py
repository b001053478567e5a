"""Gaussian twins and online statistics: the moments asked for, the normal tail, and the replay's own numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from small_world import small_config, small_trainer
from strategies import METHODS
from suite.records.run_log import read_log
from suite.records.update_log import UpdateLog
from suite.replay.growth import expected_outside_share, growth_by_update, sqrt_band
from suite.replay.length_log import length_logger
from suite.replay.one_method import replay
from suite.replay.replays import Arena
from suite.replay.resampling import power_edges
from suite.replay.simulation import Simulation, gaussian_twin

LENGTHS = ((4, 3000), (64, 3000))


def bank(sigma: float = 0.02, seed: int = 0) -> UpdateLog:
    simulation = Simulation(sigma=sigma, drift=-2e-4, lengths=LENGTHS, problems=50, updates=2, start=True)
    return UpdateLog(**simulation.columns(np.random.default_rng(seed)))


def test_a_twin_has_the_moments_of_its_updates() -> None:
    log = bank()
    moments = pd.DataFrame({"update": [1, 2], "drift": [1e-3, -5e-3], "sigma": [0.01, 0.05]})
    twin = gaussian_twin(log, moments, np.random.default_rng(1))
    np.testing.assert_array_equal(twin.lengths, log.lengths)
    np.testing.assert_array_equal(twin.advantage, log.advantage)
    assert np.abs(twin.rows(twin.update == 0).log_ratios).max() == 0
    found = growth_by_update(replay(METHODS["rloo"], twin, {}), rng=np.random.default_rng(0), repetitions=2)
    n = sum(count for _, count in LENGTHS)
    for row, (_, wanted) in zip(found.to_dict("records"), moments.iterrows(), strict=True):
        assert row["sigma"] == pytest.approx(wanted["sigma"], rel=4 / math.sqrt(2 * n))
        tokens = sum(length * count for length, count in LENGTHS)
        assert row["drift"] == pytest.approx(wanted["drift"], abs=4 * wanted["sigma"] / math.sqrt(tokens))


def test_an_update_without_moments_is_left_out() -> None:
    moments = pd.DataFrame({"update": [2], "drift": [0.0], "sigma": [0.01]})
    assert set(gaussian_twin(bank(), moments, np.random.default_rng(0)).update.tolist()) == {0, 2}


def test_what_is_predicted_is_the_normal_tail() -> None:
    """On a Gaussian bank prediction, measurement and the tail of the two updates' own moments are one number."""
    arena = Arena({name: METHODS[name] for name in ("fspo", "rloo", "grpo")}, bank(), 0.1)
    table = arena.predicted[(arena.predicted["range"] == "default") & (arena.predicted["method"] == "fspo")]
    assert set(arena.predicted["method"]) == {"fspo", "rloo"}
    for row in table.to_dict("records"):
        lengths = np.array([4.0 if row["mean_length"] < 10 else 64.0])
        tails = [
            float(expected_outside_share(m["sigma"], lengths, *sqrt_band(lengths, 0.03, 0.03), m["drift"])[0])
            for m in arena.growth_by_update.to_dict("records")
        ]
        expected = sum(tails) / len(tails)
        error = math.sqrt(expected * (1 - expected) / row["responses"])
        assert row["predicted"] == pytest.approx(expected, abs=4 * error / 2)
        assert row["outside_band"] == pytest.approx(expected, abs=4 * error)


def test_signs_and_fixed_bins_are_parts_of_the_whole() -> None:
    arena = Arena({"rloo": METHODS["rloo"]}, bank(), 0.1)
    table = arena.by_length_and_sign
    whole = table[(table["bins"] == "quantiles") & (table["sign"] == "all")]
    shared = list(arena.by_length.columns)
    pd.testing.assert_frame_equal(whole[shared].reset_index(drop=True), arena.by_length)
    for _, part in table[table["sign"] != "all"].groupby(["range", "bins", "bin"]):
        assert set(part["sign"]) == {"A > 0", "A < 0"}
    powers = table[table["bins"] == "powers of two"]
    assert set(powers["bin"]) == {"4–7", "64–127"}
    assert power_edges(64).tolist() == [1, 2, 4, 8, 16, 32, 64, 128]


def test_training_logs_what_a_replay_of_its_updates_says(tmp_path: Path) -> None:
    """`by_length` numbers of every step against the step's own log, replayed and counted by hand."""
    method = METHODS["grpo"]
    trainer = small_trainer(method, tmp_path, small_config(steps=2), on_updates=length_logger(method, 24))
    trainer.run()
    for row in read_log(tmp_path):
        log = UpdateLog.load(tmp_path / "updates" / f"step-{int(row['step']):05d}.safetensors")
        frame = replay(method, log, {})
        total = 0
        for low in (1, 2, 4, 8, 16):
            label = f"{low}" if low == 1 else f"{low}-{2 * low - 1}"
            part = frame[(frame["length"] >= low) & (frame["length"] < 2 * low) & ~frame["truncated"]]
            assert row[f"by_length/{label}/responses"] == len(part)
            if len(part):
                assert row[f"by_length/{label}/outside_band"] == pytest.approx(part["outside_band"].mean())
            else:
                assert math.isnan(row[f"by_length/{label}/outside_band"])
            total += len(part)
        assert total + row["by_length/truncated/responses"] == len(frame)
