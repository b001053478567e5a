"""Banks: append-only, every byte checked, the same replay twice."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small_world import ODD, small_config, tiny
from strategies import METHODS
from suite.commands import main
from suite.config import CompareConfig, EvalConfig
from suite.experiments import record_bank, start
from suite.experiments.record_bank import RecordJob
from suite.policy.loading import LoadedModel, model_digest
from suite.policy.sampling import TransformersSampler
from suite.records.bank import MANIFEST, Bank, PendingFile
from suite.records.update_log import UpdateLog
from suite.replay.replays import Arena
from suite.types import UserError


def small_log(seed: int) -> UpdateLog:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 30, 24)
    old = -rng.random(int(lengths.sum()))
    return UpdateLog(
        problem_ids=np.array([f"p{i // 4}" for i in range(24)]),
        seed=seed,
        step=0,
        update=np.repeat([0, 1, 2], 8),
        reward=rng.integers(0, 2, 24),
        advantage=rng.choice([-0.5, 0.5], 24),
        truncated=np.zeros(24, bool),
        lengths=lengths,
        log_probs=old + rng.normal(0, 0.05, len(old)),
        old_log_probs=old,
    )


def recorded(tmp_path: Path, seed: int, kind: str = "updates") -> PendingFile:
    path = tmp_path / f"log-{seed}"
    small_log(seed).save(path)
    return PendingFile(kind, path.read_bytes(), seed, 0, 24, "policy")


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    empty = Bank.open_or_new(tmp_path / "bank")
    return empty.append("none-seed0", {"why": "a test"}, [recorded(tmp_path, 0)])


def test_a_bank_gives_back_what_was_appended(bank: Bank, tmp_path: Path) -> None:
    more = bank.append("none-seed1", {}, [recorded(tmp_path, 1)])
    again = Bank.open(bank.folder)
    assert again.recordings == more.recordings
    log = again.updates()
    assert sorted(set(log.cells.tolist())) == ["none-seed0", "none-seed1"]
    np.testing.assert_array_equal(log.rows(log.seed == 1).log_probs, small_log(1).log_probs)


def test_nothing_is_replaced(bank: Bank, tmp_path: Path) -> None:
    before = (bank.folder / MANIFEST).read_bytes()
    with pytest.raises(UserError, match="holds the recording none-seed0 already"):
        bank.append("none-seed0", {}, [recorded(tmp_path, 5)])
    assert (bank.folder / MANIFEST).read_bytes() == before


@pytest.mark.parametrize("place", [0, 100, -1])
def test_one_byte_flipped_is_refused_and_the_file_named(bank: Bank, place: int) -> None:
    path = bank.folder / bank.entries[0].path
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    for reader in (bank.check, bank.updates):
        with pytest.raises(UserError, match=rf"{path.name}: altered or truncated"):
            reader()


def test_a_file_cut_short_or_missing_is_refused(bank: Bank) -> None:
    path = bank.folder / bank.entries[0].path
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(UserError, match="altered or truncated"):
        bank.updates()
    path.unlink()
    with pytest.raises(UserError, match="missing from the bank"):
        bank.updates()


def test_what_is_no_bank_is_refused(tmp_path: Path, bank: Bank) -> None:
    with pytest.raises(UserError, match="make one with fspo bank record"):
        Bank.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match="not empty and no bank"):
        Bank.open_or_new(tmp_path)
    manifest = bank.folder / MANIFEST
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "schema": "fspo-bank-0"}))
    with pytest.raises(UserError, match="fspo-bank-0"):
        Bank.open(bank.folder)


def test_an_empty_bank_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no updates"):
        Bank(tmp_path, {}, ()).updates()


def test_two_replays_of_one_bank_are_equal_byte_for_byte(bank: Bank) -> None:
    chosen = {name: METHODS[name] for name in ("fspo", "rloo", "grpo", "dppo_tv")}
    texts = [Arena(chosen, bank.updates(), 0.2).by_length.to_csv() for _ in range(2)]
    assert texts[0] == texts[1]
    frame = Arena(chosen, bank.updates(), 0.2).fairness
    assert set(frame["range"]) == {"default", "matched"}


# --- recording ------------------------------------------------------------------------------------------


@pytest.fixture
def small_recipe(monkeypatch: pytest.MonkeyPatch) -> CompareConfig:
    """A recipe on the tiny model and the odd task, run in this process."""

    def load(config: Any) -> tuple[LoadedModel, TransformersSampler]:
        model, tokenizer = tiny()
        return LoadedModel(model, tokenizer, "tiny", model_digest(model), "tokens"), TransformersSampler(
            model, tokenizer
        )

    monkeypatch.setattr(record_bank, "load", load)
    monkeypatch.setattr(start, "tasks_named", lambda names: [ODD])
    monkeypatch.setattr(start, "overlaps_of", lambda config: ())
    monkeypatch.setattr(record_bank, "run_jobs", lambda stages, layout, console: [job.run() for job in stages[0]])
    return CompareConfig("small", ("no_clip",), (0, 1), small_config(steps=3), EvalConfig(("odd",)))


def test_a_recording_holds_every_update_of_every_step(small_recipe: CompareConfig, tmp_path: Path) -> None:
    bank = record_bank.record_rollouts(small_recipe, tmp_path / "bank", "none", ["fspo", "record"], None)  # type: ignore[arg-type]
    assert set(bank.recordings) == {"none-seed0", "none-seed1"}
    log = bank.updates()
    assert len(log) == 2 * 3 * 16
    assert sorted(set(log.update.tolist())) == [0, 1, 2, 3]
    first = log.rows(log.update == 0)
    np.testing.assert_array_equal(first.log_probs, first.old_log_probs)
    assert np.abs(log.rows(log.update == 3).log_ratios).max() > 0
    policies = [entry.policy for entry in bank.entries if entry.recording == "none-seed0" and entry.kind == "rollouts"]
    assert len(set(policies)) == 3
    facts = bank.recordings["none-seed0"]
    assert facts["command"] == ["fspo", "record"]
    assert facts["driver"]["method"] == "no_clip"
    assert not (tmp_path / "bank.recording").exists()
    before = (bank.folder / MANIFEST).read_bytes()
    again = record_bank.record_rollouts(small_recipe, tmp_path / "bank", "none", ["again"], None)  # type: ignore[arg-type]
    assert again == bank
    assert (bank.folder / MANIFEST).read_bytes() == before


def test_a_recording_killed_between_two_of_its_seeds_goes_on(
    small_recipe: CompareConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first seed is in the bank, its working folder perhaps not yet gone; the second is recorded, not yet kept."""

    def record() -> Bank:
        return record_bank.record_rollouts(small_recipe, tmp_path / "bank", "none", ["x"], None)  # type: ignore[arg-type]

    def killed(folder: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(record_bank.shutil, "rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            record()
    assert set(Bank.open(tmp_path / "bank").recordings) == {"none-seed0"}
    assert set(record().recordings) == {"none-seed0", "none-seed1"}
    assert not (tmp_path / "bank.recording").exists()


def test_a_recording_with_other_settings_is_another_one(small_recipe: CompareConfig, tmp_path: Path) -> None:
    one = dataclasses.replace(small_recipe, seeds=(0,))
    record_bank.record_rollouts(one, tmp_path / "bank", "none", [], None)  # type: ignore[arg-type]
    faster = dataclasses.replace(small_recipe, train=dataclasses.replace(small_recipe.train, learning_rate=0.5))
    with pytest.raises(UserError, match="holds another recording none-seed0"):
        record_bank.record_rollouts(faster, tmp_path / "bank", "none", [], None)  # type: ignore[arg-type]
    both = record_bank.record_rollouts(small_recipe, tmp_path / "bank", "none", [], None)  # type: ignore[arg-type]
    assert list(both.recordings) == ["none-seed0", "none-seed1"]


def test_an_interrupted_recording_goes_on_with_its_own_settings_alone(
    small_recipe: CompareConfig, tmp_path: Path
) -> None:
    one = dataclasses.replace(small_recipe, seeds=(0,))
    faster = dataclasses.replace(one, train=dataclasses.replace(one.train, learning_rate=0.5))
    job = RecordJob(one, tmp_path / "bank", "none", 0)
    job.claim()
    job.run()  # and was stopped before the bank took it
    with pytest.raises(UserError, match="none-seed0: an interrupted recording with other settings; give those again"):
        record_bank.record_rollouts(faster, tmp_path / "bank", "none", [], None)  # type: ignore[arg-type]
    bank = record_bank.record_rollouts(one, tmp_path / "bank", "none", [], None)  # type: ignore[arg-type]
    assert bank.recordings["none-seed0"]["train"]["learning_rate"] == one.train.learning_rate


def test_recording_twice_gives_the_same_files(small_recipe: CompareConfig, tmp_path: Path) -> None:
    names = []
    for folder in ("a", "b"):
        bank = record_bank.record_rollouts(small_recipe, tmp_path / folder, "fspo", [], None)  # type: ignore[arg-type]
        names.append([entry.path for entry in bank.entries])
    assert names[0] == names[1]


def test_a_job_counts_its_steps(small_recipe: CompareConfig, tmp_path: Path) -> None:
    job = RecordJob(small_recipe, tmp_path / "bank", "none", 0)
    assert (job.total, job.finished_units(), job.done()) == (3, 0, False)
    job.run()
    assert (job.finished_units(), job.done()) == (3, True)


def test_replay_on_the_command_line(bank: Bank, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["fspo", "replay", str(bank.folder), "--methods", "fspo,rloo"])
    main.main()
    text = capsys.readouterr().out
    assert "fspo, default range:" in text
    written = {path.name for path in (bank.folder / "replay").iterdir()}
    assert written == {
        "clip_by_length.csv",
        "clip_by_length_and_sign.csv",
        "fairness.csv",
        "weights.csv",
        "overlap.csv",
        "overlap_by_length.csv",
    }
