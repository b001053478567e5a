"""The update log and its replay: bytes, bad files, and every method's clip against loops over floats."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import baselines
import fspo
import suite.replay.one_method
from suite.records.update_log import UpdateLog
from suite.replay.one_method import clip_rate, replay
from suite.types import Method, UserError

# Token bands are narrowed so that the log's small ratios leave every method's band.
FIVE = ("ppo", "rloo", "grpo", "gspo", "fspo")
METHODS = {name: {**baselines.METHODS, **fspo.METHODS}[name] for name in FIVE}
METHODS |= {name: METHODS[name].scaled(0.25) for name in ("ppo", "grpo")}


def make_log(
    seed: int = 0, *, cell: str = "grpo", runs: int = 2, steps: int = 2, updates: int = 3, rows: int = 6
) -> UpdateLog:
    """A small log with both signs, zero advantages, truncation, and ratios of 1 at update 0."""
    rng = np.random.default_rng(seed)
    logs = []
    for run in range(runs):
        for step in range(steps):
            for update in range(updates):
                lengths = rng.integers(1, 40, rows)
                ratios = [rng.normal(-0.002, 0.05, n) if update else np.zeros(n) for n in lengths]
                logs.append(
                    UpdateLog(
                        problem_ids=np.array([f"p|{i % 3}" for i in range(rows)]),
                        seed=run,
                        step=step,
                        update=update,
                        reward=rng.integers(0, 2, rows),
                        advantage=rng.choice([-0.5, 0.0, 0.5], rows),
                        truncated=lengths > 35,
                        lengths=lengths,
                        log_probs=(flat := np.concatenate(ratios)),
                        old_log_probs=np.zeros_like(flat),
                        cells=cell,
                    )
                )
    return UpdateLog.concat(logs)


def tokens_of(log: UpdateLog) -> list[list[float]]:
    """The log ratios of every row, cut by hand."""
    rows, start = [], 0
    for length in log.lengths.tolist():
        rows.append(log.log_ratios[start : start + length].tolist())
        start += length
    return rows


def fixed_drift(drift: float | str) -> Method:
    return dataclasses.replace(fspo.FSPO, hyper=dataclasses.replace(fspo.FSPO.hyper, drift=drift))


# --- the file -------------------------------------------------------------------------------------


def test_file_round_trip_and_same_bytes(tmp_path: Path) -> None:
    log = make_log()
    log.save(tmp_path / "a.safetensors")
    log.save(tmp_path / "b.safetensors")
    again = UpdateLog.load(tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    for field in dataclasses.fields(UpdateLog):
        np.testing.assert_array_equal(getattr(again, field.name), getattr(log, field.name))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_empty_log_round_trip(tmp_path: Path) -> None:
    log = make_log().rows(np.zeros(len(make_log()), bool))
    log.save(tmp_path / "log")
    assert len(UpdateLog.load(tmp_path / "log")) == 0
    assert replay(baselines.METHODS["rloo"], log, {}).empty
    assert replay(fspo.FSPO, log, {}).empty


@pytest.mark.parametrize("kept", [0, 5, 200, -1])
def test_cut_file_is_named(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "log.safetensors"
    make_log().save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"log\.safetensors") as error:
        UpdateLog.load(path)
    assert "\n" not in str(error.value)


def test_foreign_and_missing_files_are_named(tmp_path: Path) -> None:
    save_file({"weight": np.zeros(3)}, tmp_path / "model.safetensors")
    (tmp_path / "notes.txt").write_text("hello, this is no log at all")
    for name in ("model.safetensors", "notes.txt", "absent"):
        with pytest.raises(UserError, match=name):
            UpdateLog.load(tmp_path / name)


def test_columns_must_fit() -> None:
    log = make_log()
    with pytest.raises(ValueError, match="old_log_probs"):
        dataclasses.replace(log, old_log_probs=log.old_log_probs[:-1])
    with pytest.raises(ValueError, match="reward"):
        dataclasses.replace(log, reward=log.reward[:-1])
    with pytest.raises(ValueError, match="at least 1"):
        dataclasses.replace(log, lengths=log.lengths * 0)
    with pytest.raises(ValueError, match="no update log"):
        UpdateLog.concat([])


def test_rows_take_their_tokens_along() -> None:
    log, chosen = make_log(), np.array([7, 2, 2, 30])
    assert tokens_of(log.rows(chosen)) == [tokens_of(log)[i] for i in chosen]


# --- the replay -----------------------------------------------------------------------------------


def flags(method: str, tokens: list[float], advantage: float) -> tuple[float, float]:
    """(outside band, clipped) of one response, by the equations and with loops."""
    hyper = METHODS[method].hyper
    total, length = math.fsum(tokens), len(tokens)
    if method in ("ppo", "grpo"):
        weights, low, high = tokens, math.log(1 - hyper.clip_low), math.log(1 + hyper.clip_high)
    elif method == "rloo":
        weights, low, high = [total], math.log(1 - hyper.clip_low), math.log(1 + hyper.clip_high)
    elif method == "gspo":
        weights, low, high = [total / length], math.log(1 - hyper.clip_low), math.log(1 + hyper.clip_high)
    else:
        weights, low, high = [total], -hyper.c_low * math.sqrt(length), hyper.c_high * math.sqrt(length)
    outside = sum(w < low or w > high for w in weights)
    clipped = sum((advantage > 0 and w > high) or (advantage < 0 and w < low) for w in weights)
    return outside / len(weights), clipped / len(weights)


@pytest.mark.parametrize("name", METHODS)
def test_replay_is_the_equation_row_by_row(name: str) -> None:
    log = make_log(3)
    frame = replay(METHODS[name], log, {})
    kept = [i for i in range(len(log)) if log.update[i] > 0]
    assert len(frame) == len(kept)
    for row, i in zip(frame.itertuples(index=False), kept, strict=True):
        tokens, advantage = tokens_of(log)[i], float(log.advantage[i])
        assert (row.outside_band, row.clipped) == pytest.approx(flags(name, tokens, advantage), abs=1e-12)
        assert row.length == len(tokens)
        assert row.sign == (advantage > 0) - (advantage < 0)
        assert row.log_ratio == pytest.approx(math.fsum(tokens), rel=1e-12, abs=1e-12)
        assert (row.problem_id, row.seed, row.step, row.update) == (
            log.problem_ids[i],
            log.seed[i],
            log.step[i],
            log.update[i],
        )
    assert 0 < frame["outside_band"].mean() <= 1


@pytest.mark.parametrize("name", METHODS)
def test_chunks_and_row_order_change_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = make_log(5)
    whole = replay(METHODS[name], log, {})
    monkeypatch.setattr(suite.replay.one_method, "CHUNK_TOKENS", 40)
    pieces = replay(METHODS[name], log, {})
    np.testing.assert_array_equal(whole[["outside_band", "clipped"]], pieces[["outside_band", "clipped"]])
    order = np.random.default_rng(0).permutation(len(log))
    shuffled = replay(METHODS[name], log.rows(order), {})
    kept = order[log.update[order] > 0]
    position = {row: place for place, row in enumerate(np.flatnonzero(log.update > 0))}
    expected = whole.take([position[i] for i in kept])
    np.testing.assert_array_equal(shuffled[["log_ratio", "clipped"]], expected[["log_ratio", "clipped"]])


def test_batch_drift_comes_from_its_own_optimizer_step() -> None:
    log = make_log(7)
    frame = replay(fixed_drift("batch"), log, {})
    keys = list(zip(log.seed, log.step, log.update, strict=True))
    sums = log.sums()
    for row in frame.itertuples(index=False):
        step = [i for i, key in enumerate(keys) if key == (row.seed, row.step, row.update)]
        drift = sum(sums[i] for i in step) / sum(log.lengths[i] for i in step)
        distance = abs(row.log_ratio - row.length * drift) / math.sqrt(row.length)
        assert row.outside_band == (distance > 0.03)


def test_ema_drift_lags_one_step_and_starts_anew_in_every_run() -> None:
    log, decay = make_log(9), 0.9
    log = dataclasses.replace(log, log_probs=log.log_probs - 0.01)
    frame = replay(fixed_drift("ema"), log, {})
    sums = log.sums()
    differing = 0
    for run in (0, 1):
        drift = None
        for step in (0, 1):
            for update in (0, 1, 2):
                rows = (log.seed == run) & (log.step == step) & (log.update == update)
                for row in frame[(frame["seed"] == run) & (frame["step"] == step)].itertuples(index=False):
                    if row.update == update:
                        distance = abs(row.log_ratio - row.length * (drift or 0.0)) / math.sqrt(row.length)
                        assert row.outside_band == (distance > 0.03)
                        differing += row.outside_band != (abs(row.log_ratio) / math.sqrt(row.length) > 0.03)
                new = sums[rows].sum() / log.lengths[rows].sum()
                drift = new if drift is None else decay * drift + (1 - decay) * new
    assert differing > 0, "the drift moved no flag: the test would not notice a drift of 0"


@pytest.mark.parametrize("drift", ["zero", "batch", "ema"])
def test_cells_do_not_leak_into_each_other(drift: str) -> None:
    method, one, two = fixed_drift(drift), make_log(1, cell="fspo"), make_log(2, cell="rloo")
    both = replay(method, UpdateLog.concat([one, two]), {})
    for cell, log in (("fspo", one), ("rloo", two)):
        alone = replay(method, log, {})
        part = both[both["cell"] == cell].reset_index(drop=True)
        np.testing.assert_array_equal(part[["outside_band", "clipped"]], alone[["outside_band", "clipped"]])


@pytest.mark.parametrize("name", METHODS)
def test_clip_rate_counts_rows_with_a_gradient(name: str) -> None:
    log = make_log(11)
    frame = replay(METHODS[name], log, {})
    counted = frame[frame["sign"] != 0]["clipped"]
    assert clip_rate(METHODS[name], log, {}) == pytest.approx(counted.mean(), rel=1e-12)
    assert frame.loc[frame["sign"] == 0, "clipped"].sum() == 0
    assert clip_rate(METHODS[name].scaled(1.5), log, {}) < counted.mean()


def test_divergence_methods_see_real_probabilities() -> None:
    """The same log ratio of 0.5 moves a likely token by .32 and a rare one by .0004: only the likely one is masked."""
    old = np.log(np.array([0.5, 0.001], dtype=np.float32))
    log = UpdateLog(
        problem_ids=np.array(["a", "b"]),
        seed=0,
        step=0,
        update=1,
        reward=np.ones(2),
        advantage=np.ones(2),
        truncated=np.zeros(2, dtype=bool),
        lengths=np.ones(2, dtype=int),
        log_probs=old + 0.5,
        old_log_probs=old,
    )
    for name in ("dppo_tv", "dppo_kl"):
        assert replay(baselines.METHODS[name], log, {})["clipped"].tolist() == [1.0, 0.0]
