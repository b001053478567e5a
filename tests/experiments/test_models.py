"""What the name of a model stands for: one answer for training, evaluation, plans, dry runs and exports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from suite.experiments import models
from suite.experiments.models import load_named, model_folder, model_place
from suite.planning.model_shapes import model_shape
from suite.policy.smollm2 import ORIGIN, WHEEL_SHA256
from suite.types import UserError
from tasks import EMBEDDED_MODEL

NAMES = ("smollm2", "SmolLM2", "SMOLLM2")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("FSPO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def finished_fetch(cache: Path) -> Path:
    folder = cache / "smollm2"
    folder.mkdir(parents=True)
    (folder / ORIGIN).write_text(json.dumps({"wheel_sha256": WHEEL_SHA256}))
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_smollm2_has_a_place_before_it_is_fetched_and_a_folder_after(name: str, cache: Path) -> None:
    assert model_place(name).source == str(cache / "smollm2")
    assert model_place(name).folder is None
    assert model_folder(name) is None
    folder = finished_fetch(cache)
    assert model_folder(name) == folder
    assert model_place(name).absolute == str(folder)


def test_loading_fetches_smollm2_in_any_letter_case_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(models, "fetch_smollm2", lambda: Path("/cache/smollm2"))
    monkeypatch.setattr(models, "load_model", lambda where, **options: asked.append(where))
    for name in (*NAMES, "SmolLM2/folder", "embedded"):
        load_named(name, torch.float32, "cpu")
    assert asked == ["/cache/smollm2"] * len(NAMES) + ["SmolLM2/folder", "embedded"]


def test_the_embedded_model_and_a_folder_lie_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert model_folder("embedded") == EMBEDDED_MODEL
    assert model_folder("mine") == Path("mine")
    assert model_place("mine").absolute == str(tmp_path / "mine")


def test_a_gguf_file_is_no_folder_and_keeps_its_name(tmp_path: Path) -> None:
    file = tmp_path / "small.gguf"
    file.write_bytes(b"GGUF")
    place = model_place(str(file))
    assert (place.source, place.options["gguf_file"], place.folder) == (str(tmp_path), "small.gguf", None)
    assert place.absolute == str(file)


def test_a_hub_id_stays_as_it_is_and_nonsense_is_refused() -> None:
    place = model_place("Qwen/Qwen3-0.6B")
    assert (place.source, place.options, place.folder, place.absolute) == (
        "Qwen/Qwen3-0.6B",
        {},
        None,
        "Qwen/Qwen3-0.6B",
    )
    with pytest.raises(UserError, match="no such model or path"):
        model_place("no/such/model")
    assert model_folder("no/such/model") is None


def test_the_shape_of_smollm2_is_the_published_one_fetched_or_not(cache: Path) -> None:
    before = model_shape("SmolLM2")
    finished_fetch(cache)
    assert model_shape("SmolLM2") == before
    assert before.parameters == 134_515_008
