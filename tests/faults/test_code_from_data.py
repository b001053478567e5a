"""Data cannot make this program run code: neither a folder of results, nor a model's files."""

from __future__ import annotations

import json
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.commands import main
from suite.experiments.names import EMBEDDED_MODEL
from suite.policy.loading import load_model
from suite.policy.model_folders import SUMS
from suite.records import own_methods
from suite.records.comparison_folder import CONFIG_FILE
from suite.types import UserError

DEMO = Path(__file__).parents[2] / "results" / "demo"
HOSTILE = "from pathlib import Path\nPath({here!r}, 'it-ran').touch()\nX = 1\n"
READERS = {
    "report": ["report", "."],
    "claims": ["report", ".", "--claims"],
    "pack": ["report", ".", "--pack"],
    "before and after": ["report", "--compare", ".", "."],
    "plan": ["plan", "--from", ".", "--detect", "1"],
    "calibrate": ["bank", "calibrate", "."],
    "rates": ["compare", ".", "--rates", "1e-5"],
    "verify": ["verify", "."],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A comparison whose methods include a module that lies beside it, in the current folder."""
    stored = json.loads((DEMO / CONFIG_FILE).read_text())
    stored["config"]["methods"][0] = "evil:X"
    (tmp_path / CONFIG_FILE).write_text(json.dumps(stored))
    (tmp_path / "evil.py").write_text(HOSTILE.format(here=str(tmp_path)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(own_methods, "_allowed", set())
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setitem(sys.modules, "evil", sys)  # so that it is taken away again after the test
    monkeypatch.delitem(sys.modules, "evil")
    return tmp_path


def line_of(words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "argv", ["fspo", *words])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("reader", READERS)
def test_a_module_that_a_folder_names_is_not_imported(
    reader: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = line_of(READERS[reader], capsys, monkeypatch)
    assert "names evil:X" in line
    assert "--allow evil:X" in line
    assert not (folder / "it-ran").exists()


def test_nor_one_that_a_stored_setting_names(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = json.loads((DEMO / CONFIG_FILE).read_text())
    stored["config"]["options"] = ["evil:X.a=1"]
    (folder / CONFIG_FILE).write_text(json.dumps(stored))
    assert "names evil:X" in line_of(["report", "."], capsys, monkeypatch)
    assert not (folder / "it-ran").exists()


@pytest.mark.parametrize("section", ["train", "evaluation"])
@pytest.mark.parametrize("task", ["mine.jsonl@evil:X", "mine.jsonl@plain@evil:X", "gcd@evil:X"])
def test_nor_a_reward_that_a_stored_task_names(
    task: str, section: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = json.loads((DEMO / CONFIG_FILE).read_text())
    stored["config"][section]["tasks"] = [task]
    (folder / CONFIG_FILE).write_text(json.dumps(stored))
    (folder / "mine.jsonl").write_text('{"id": "1", "problem": "1+1", "answer": "2"}\n')
    assert "names evil:X" in line_of(["report", "."], capsys, monkeypatch)
    assert not (folder / "it-ran").exists()


@pytest.mark.parametrize("name", ["evil-er:X", "evil er:X", "a=b:X", "a,b:X"])
def test_nor_one_whose_name_no_program_would_write(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = json.loads((DEMO / CONFIG_FILE).read_text())
    stored["config"]["methods"][0] = name
    (folder / CONFIG_FILE).write_text(json.dumps(stored))
    (folder / "evil.py").rename(folder / f"{name.partition(':')[0]}.py")
    assert f"names {name}" in line_of(["report", "."], capsys, monkeypatch)
    assert not (folder / "it-ran").exists()


@pytest.mark.parametrize("words", [["--allow", "evil:X"], ["--allow=evil:X"]])
def test_it_is_once_the_user_says_so(
    words: list[str], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "evil:X is an int" in line_of(["report", ".", *words], capsys, monkeypatch)
    assert (folder / "it-ran").exists()


@pytest.mark.parametrize("words", [["--allow"], ["--allow", "evil"], ["--allow=..:X"]])
def test_allow_takes_a_method_of_a_module(
    words: list[str], folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "write it as MODULE:NAME" in line_of(["report", ".", *words], capsys, monkeypatch)


class Hostile:
    """What it would do when its pickle is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


CODE = """
from pathlib import Path
Path({mark!r}).touch()
class Evil: pass
"""
KINDS = {
    "model": ("config.json", {"auto_map": {"AutoModelForCausalLM": "evil.Evil"}}),
    "config": ("config.json", {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}),
    "tokenizer": ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}),
    "tokenizer of an unknown class": (
        "tokenizer_config.json",
        {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", None]}},
    ),
    "generation": ("generation_config.json", {"custom_generate": "evil"}),
}


@pytest.mark.parametrize("answer", ["y\n", ""])
@pytest.mark.parametrize("kind", KINDS)
def test_the_code_of_a_model_folder_is_not_run(
    kind: str, answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, mark = tmp_path / "model", tmp_path / "it-ran"
    shutil.copytree(EMBEDDED_MODEL, model, ignore=shutil.ignore_patterns(SUMS))
    name, changes = KINDS[kind]
    (model / name).write_text(json.dumps(json.loads((model / name).read_text()) | changes))
    for place in (model / "evil.py", model / "custom_generate" / "generate.py"):
        place.parent.mkdir(exist_ok=True)
        place.write_text(CODE.format(mark=str(mark)))
    (tmp_path / "answer").write_text(answer)
    with (tmp_path / "answer").open() as typed:
        monkeypatch.setattr(sys, "stdin", typed)
        with suppress(UserError):  # some are refused; others load, without what the code would have done
            load_model(str(model), dtype=torch.float32, device="cpu")
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["hostile", "sound", "torn", "an index that names another file"])
def test_weights_in_a_pickle_are_refused_unread(kind: str, tmp_path: Path) -> None:
    model, mark = tmp_path / "model", tmp_path / "it-ran"
    shutil.copytree(EMBEDDED_MODEL, model, ignore=shutil.ignore_patterns(SUMS))
    (model / "model.safetensors").unlink()
    weights = model / "pytorch_model.bin"
    torch.save({"a": torch.ones(2)} if kind == "sound" else Hostile(mark), weights)
    if kind == "torn":
        weights.write_bytes(weights.read_bytes()[:100])
    if kind.startswith("an index"):
        (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "/etc/passwd"}}))
    with pytest.raises(UserError, match="does not load from"):
        load_model(str(model), dtype=torch.float32, device="cpu")
    assert not mark.exists()
