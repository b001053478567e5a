"""Files that are read back are held against what lists them: one that is altered, missing or another's is refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faults.pairs import log_of
from suite.experiments.finished import load_comparison
from suite.records.comparison_folder import stored_config
from suite.records.packed import RUNS, read_updates
from suite.records.result import read_file
from suite.records.seals import BLANK, check_seal, write_sealed
from suite.types import UserError

DEMO = Path(__file__).parents[2] / "results" / "demo"
TRIES = 60
Reader = Callable[[Path], Any]


@pytest.fixture
def demo(tmp_path: Path) -> Path:
    folder = tmp_path / "demo"
    folder.mkdir()
    for name in ("comparison.json", RUNS, "verdicts.parquet", "curves.parquet"):
        shutil.copy(DEMO / name, folder / name)
    shutil.copytree(DEMO / "cells" / "fspo-seed10", folder / "cells" / "fspo-seed10")
    shutil.copytree(DEMO / "rollouts", folder / "rollouts")
    return folder


def test_a_packed_update_log_is_held_against_its_list(demo: Path) -> None:
    cell = demo / "cells" / "fspo-seed10"
    sound = read_updates(cell)
    path = cell / "updates.parquet"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"updates\.parquet: altered"):
        read_updates(cell)
    shutil.copy(DEMO / "cells" / "fspo-seed11" / "updates.parquet", path)
    with pytest.raises(UserError, match=r"updates\.parquet: altered"):
        read_updates(cell)
    shutil.copy(DEMO / "cells" / "fspo-seed10" / "updates.parquet", path)
    assert len(read_updates(cell)) == len(sound)


def test_every_step_has_its_own_log(tmp_path: Path) -> None:
    folder = tmp_path / "cell" / "updates"
    folder.mkdir(parents=True)
    for step in range(3):
        log_of(step).save(folder / f"step-{step:05d}.safetensors")
    assert len(read_updates(folder.parent)) == 18
    shutil.copy(folder / "step-00000.safetensors", folder / "step-00001.safetensors")
    with pytest.raises(UserError, match="not the update log of step 1"):
        read_updates(folder.parent)
    (folder / "step-00001.safetensors").unlink()
    with pytest.raises(UserError, match="not the update log of step 1"):
        read_updates(folder.parent)


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("learning_rate", lambda content: content["config"].update(learning_rate=0.123)),
        ("limit", lambda content: content["config"]["evaluation"].update(limit=3)),
        ("seed", lambda content: content.update(seed=99)),
        ("method", lambda content: content.update(method="grpo")),
        ("start model", lambda content: content["digests"].update(model="0" * 64)),
    ],
)
def test_a_cell_of_another_comparison_is_refused_by_field(
    demo: Path, field: str, change: Callable[[dict[str, Any]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a digest of its own that is right, as a cell has that was copied from elsewhere."""
    from suite.experiments import finished

    config = stored_config(demo)
    load_comparison(config, demo)

    def other(folder: Path) -> Any:
        run = read(folder)
        if folder.name != "fspo-seed10":
            return run
        content = json.loads(json.dumps(dataclasses.asdict(run)))
        change(content)
        names = ("method", "seed", "config", "digests")
        return dataclasses.replace(run, **{name: content[name] for name in names})

    read = finished.read_result
    monkeypatch.setattr(finished, "read_result", other)
    with pytest.raises(UserError, match=rf"not a result of this comparison: .*{field}"):
        load_comparison(config, demo)


def test_a_seal_holds_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "sealed.json"
    write_sealed(path, json.dumps({"a": 1, "seal": BLANK}).encode())
    check_seal(path, "x")
    text = path.read_text()
    for other in (text.replace('"a": 1', '"a": 2'), text.replace("fspo-", "fspo_"), text + text, "", "{}"):
        path.write_text(other)
        with pytest.raises(UserError, match=r"sealed\.json"):
            check_seal(path, "make it again")
    with pytest.raises(ValueError, match="once"):
        write_sealed(path, b"nothing to seal")


def test_a_broken_result_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(UserError, match="not a result of this suite"):
        read_file(tmp_path / "result.json")
