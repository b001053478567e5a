"""Flipped bits and cut ends: every file that is read back is refused by name, or reads as it was."""

from __future__ import annotations

import dataclasses
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from suite.experiments.finished import load_comparison
from suite.records.bank import Bank, PendingFile
from suite.records.comparison_folder import stored_config
from suite.records.packed import RUNS, read_updates
from suite.records.result import read_file
from suite.records.run_log import FILE as METRICS
from suite.records.run_log import RunLog, read_log
from suite.records.seals import BLANK, check_seal, write_sealed
from suite.records.update_log import UpdateLog
from suite.training.checkpoint import load_checkpoint, save_checkpoint
from suite.types import UserError

DEMO = Path(__file__).parents[2] / "results" / "demo"
TRIES = 60
Reader = Callable[[Path], Any]


def log_of(step: int = 0) -> UpdateLog:
    n, rng = 6, np.random.default_rng(step)
    lengths = rng.integers(1, 9, n)
    tokens = rng.normal(size=(2, int(lengths.sum())))
    problems = np.array([f"p/{i}" for i in range(n)])
    zeros = np.zeros(n)
    return UpdateLog(problems, zeros, zeros + step, zeros, zeros, zeros, zeros, lengths, *tokens, cells="fspo-seed0")


def made_checkpoint(folder: Path) -> Path:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save_checkpoint(folder / "checkpoint.safetensors", {"model": model}, {"optimizer": optimizer}, {"next_step": 2})
    return folder / "checkpoint.safetensors"


def read_checkpoint(path: Path) -> Any:
    torch.manual_seed(1)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    numbers = load_checkpoint(path, {"model": model}, {"optimizer": optimizer})
    return [numbers["next_step"], *(p.tolist() for p in model.parameters())]


def made_log(folder: Path) -> Path:
    log_of().save(folder / "step-00000.safetensors")
    return folder / "step-00000.safetensors"


def made_metrics(folder: Path) -> Path:
    log = RunLog(folder, 0)
    for step in range(4):
        log.append(step, {"reward/mean": step / 3, "band/drift": float("nan")})
    log.close()
    return folder / METRICS


def read_metrics(path: Path) -> Any:
    RunLog(path.parent, 4).close()
    return repr(read_log(path.parent))


def made_bank(folder: Path) -> Path:
    log_of().save(folder / "log")
    data = (folder / "log").read_bytes()
    Bank.open_or_new(folder / "bank").append("none-seed0", {"a": 1}, [PendingFile("updates", data, 0, 0, 6, "x")])
    return folder / "bank" / "manifest.json"


KINDS: dict[str, tuple[Callable[[Path], Path], Reader]] = {
    "checkpoint": (made_checkpoint, read_checkpoint),
    "update log": (made_log, lambda path: repr(dataclasses.astuple(UpdateLog.load(path)))),
    "metrics": (made_metrics, read_metrics),
    "bank manifest": (made_bank, lambda path: repr(dataclasses.astuple(Bank.open(path.parent)))),
}


def refusal(read: Reader, path: Path, wanted: Any) -> str | None:
    """What the reader says where it refuses; None where it reads what was written."""
    try:
        assert read(path) == wanted, "silently something else"
    except UserError as error:
        return str(error)
    return None


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_or_a_cut_end_is_refused_by_name_or_harmless(kind: str, tmp_path: Path) -> None:
    make, read = KINDS[kind]
    path = make(tmp_path)
    sound, wanted, rng = path.read_bytes(), read(path), random.Random(kind)
    counts = {"refused": 0, "harmless": 0}
    for _ in range(TRIES):
        data = bytearray(sound)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(data)
        said = refusal(read, path, wanted)
        assert said is None or str(path.parent) in said
        counts["harmless" if said is None else "refused"] += 1
    assert counts["refused"] > 0.7 * TRIES, counts
    path.write_bytes(sound)
    assert read(path) == wanted


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
