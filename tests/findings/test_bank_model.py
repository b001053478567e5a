"""The part of a lab that runs the model: recorded steps are taken again bit for bit, and what changed is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from small_world import ODD, small_config, tiny
from strategies import METHODS
from suite.config import CompareConfig, EvalConfig
from suite.experiments import record_bank, start
from suite.findings import bank_model
from suite.findings.bank_model import SPACES, LabModel, bound_sentence, turn_table
from suite.findings.bank_questions import Lab
from suite.policy.loading import LoadedModel, model_digest
from suite.policy.sampling import TransformersSampler
from suite.records.bank import MANIFEST, Bank
from suite.records.files import digest_of
from suite.replay.update_directions import OWN, log_prob_cosines
from suite.report.write import write_lab
from suite.types import UserError

QUIET = Console(quiet=True)
DRAWN = {name: METHODS[name] for name in ("rloo", "gspo", "fspo", "no_clip")}


def load(config: Any) -> tuple[LoadedModel, TransformersSampler]:
    model, tokenizer = tiny()
    return LoadedModel(model, tokenizer, "tiny", model_digest(model), "tokens"), TransformersSampler(model, tokenizer)


@pytest.fixture
def bank(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bank:
    """Two steps of four updates on the tiny model, driven by fspo."""
    for module in (record_bank, bank_model):
        monkeypatch.setattr(module, "load", load)
    monkeypatch.setattr(start, "tasks_named", lambda names: [ODD])
    monkeypatch.setattr(start, "overlaps_of", lambda config: ())
    monkeypatch.setattr(record_bank, "run_jobs", lambda stages, layout, console: [job.run() for job in stages[0]])
    config = CompareConfig("small", ("fspo",), (0,), small_config(steps=2), EvalConfig(("odd",)))
    return record_bank.record_rollouts(config, tmp_path / "bank", "fspo", ["fspo", "record"], QUIET)


def test_the_recorded_steps_are_taken_again(bank: Bank) -> None:
    cosine, bound, gap = LabModel(bank, DRAWN, 2, print).turns
    assert gap == 0
    assert sorted(set(cosine["update"])) == [2, 3]
    assert set(cosine["space"]) == set(SPACES)
    mine = cosine[cosine["against"] == OWN].set_index(["method", "space", "update"])["cosine"]
    for space in SPACES:
        np.testing.assert_allclose(mine["no_clip"][space], 1.0, atol=1e-6)
    assert mine.dropna().between(-1 - 1e-6, 1 + 1e-6).all()
    assert mine["gspo"].min() < 0.99
    assert turn_table(cosine, OWN)["method"].tolist() == list(DRAWN)
    assert set(bound["space"]) == {"log-probs", "parameters"}
    said = bound[bound["bound"].notna()]
    assert (said["scaled"] >= said["bound"] - 1e-6).all()


def test_directions_in_log_probs_are_those_of_the_replay(bank: Bank) -> None:
    """The model's own steps and the stored log-probs give the same cosines, method by method."""
    lab, model = Lab(bank), LabModel(bank, DRAWN, 3, print)
    stored = log_prob_cosines(DRAWN, lab.arena.log, {})
    stored = stored[(stored["step"] == 0) & (stored["against"] == OWN)].set_index(["method", "update"])["cosine"]
    cosine = model.turns[0]
    cosine = cosine[(cosine["space"] == "log-probs") & (cosine["against"] == OWN)].set_index(["method", "update"])
    for key, value in cosine["cosine"].items():
        assert value == pytest.approx(stored[key], abs=1e-6, nan_ok=True)


def test_another_model_is_refused(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    def other(config: Any) -> tuple[LoadedModel, TransformersSampler]:
        loaded, sampler = load(config)
        with torch.no_grad():
            next(iter(loaded.model.parameters())).add_(1.0)
        return dataclasses.replace(loaded, digest=model_digest(loaded.model)), sampler

    monkeypatch.setattr(bank_model, "load", other)
    with pytest.raises(UserError, match=r"recorded with model .* --no-model"):
        _ = LabModel(bank, DRAWN, 1, print).turns


def test_a_driver_that_changed_is_refused(bank: Bank) -> None:
    path = bank.folder / MANIFEST
    before = path.read_text()
    changed = json.loads(before.replace('"c_low": 0.03', '"c_low": 0.04'))
    said = changed.pop("digest")
    path.write_text(json.dumps({**changed, "digest": digest_of(changed)}))
    assert digest_of(changed) != said
    with pytest.raises(UserError, match="driven by fspo with card"):
        _ = LabModel(Bank.open(bank.folder), DRAWN, 1, print).driver


@pytest.mark.slow
def test_the_page_says_what_the_model_showed(bank: Bank, tmp_path: Path) -> None:
    lab = Lab(bank, LabModel(bank, DRAWN, 1, print))
    pages = [write_lab(lab, tmp_path / name).parent for name in ("a", "b")]
    text = (pages[0] / "lab.md").read_text()
    assert "## The null update" in text
    assert "differ from the recorded ones by at most 0 nats" in text
    assert bound_sentence(lab.model.turns[1]) in text  # type: ignore[union-attr]
    for name in ("null_update", "null_update_clips", "model_directions", "model_directions_bound"):
        assert (pages[0] / f"{name}.csv").read_bytes() == (pages[1] / f"{name}.csv").read_bytes()
