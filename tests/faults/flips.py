"""Flipped bits and cut ends in every kind of file that is read back: refused by name, or read as it was written."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from faults.outcomes import HARMLESS, REFUSED, SILENT, TRACEBACK, Counts
from faults.pairs import log_of, result_of
from suite.config import plain_data
from suite.evaluation.sample_store import read_frame, read_manifest, samples_folder
from suite.experiments.cells import FirstRolloutsJob
from suite.experiments.finished import load_comparison
from suite.policy.loading import load_model
from suite.policy.model_folders import CARD
from suite.records.bank import Bank, PendingFile
from suite.records.comparison_folder import stored_config
from suite.records.packed import read_updates
from suite.records.ranges import Ranges
from suite.records.result import read_file, write_result
from suite.records.run_log import FILE as METRICS
from suite.records.run_log import RunLog, read_log
from suite.records.update_log import UpdateLog
from suite.training.checkpoint import load_checkpoint, save_checkpoint
from suite.types import UserError

Reader = Callable[[Path], Any]
Made = tuple[list[Path], Reader]
"""The files of one kind, and what reads them; what it returns is compared by its repr."""


def checkpoint(folder: Path) -> Made:
    path = folder / "checkpoint.safetensors"
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    save_checkpoint(path, {"model": model}, {"optimizer": optimizer}, {"next_step": 2})

    def read(_: Path) -> Any:
        torch.manual_seed(1)
        model = torch.nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(model.parameters())
        numbers = load_checkpoint(path, {"model": model}, {"optimizer": optimizer})
        return [numbers["next_step"], *(p.tolist() for p in model.parameters()), optimizer.state_dict()["state"]]

    return [path], read


def update_log(folder: Path) -> Made:
    log_of().save(folder / "step-00000.safetensors")
    return [folder / "step-00000.safetensors"], lambda path: dataclasses.astuple(UpdateLog.load(path))


def metrics(folder: Path) -> Made:
    log = RunLog(folder, 0)
    for step in range(4):
        log.append(step, {"reward/mean": step / 3, "band/drift": float("nan")})

    def read(path: Path) -> Any:
        RunLog(path.parent, 4)
        return read_log(path.parent)

    return [folder / METRICS], read


def bank(folder: Path) -> Made:
    log_of().save(folder / "log")
    file = PendingFile("updates", (folder / "log").read_bytes(), 0, 0, 6, "x")
    Bank.open_or_new(folder / "bank").append("none-seed0", {"a": 1}, [file])
    (folder / "log").unlink()

    def read(_: Path) -> Any:
        opened = Bank.open(folder / "bank")
        opened.check()
        return dataclasses.astuple(opened), dataclasses.astuple(opened.updates())

    return [path for path in (folder / "bank").rglob("*") if path.is_file() and path.name != ".lock"], read


def result(folder: Path) -> Made:
    write_result(result_of(1), folder)
    return [folder / "result.json"], lambda path: dataclasses.astuple(read_file(path))


MADE_HERE: dict[str, Callable[[Path], Made]] = {
    "checkpoint": checkpoint,
    "update log": update_log,
    "metrics": metrics,
    "bank": bank,
    "result": result,
}


def model_folder(folder: Path) -> Made:
    """A trained model, as a cell leaves it, without its card: no program reads that, and its owner may edit it."""

    def read(path: Path) -> Any:
        loaded = load_model(str(path.parent), dtype=torch.float32, device="cpu")
        generation: Any = loaded.model.generation_config
        return loaded.digest, loaded.tokenizer_digest, loaded.model.config.to_dict(), generation.to_dict()

    return [path for path in folder.iterdir() if path.is_file() and path.name != CARD], read


def comparison(folder: Path) -> Made:
    """A finished comparison: everything in its folder that its report is made from."""

    def read(_: Path) -> Any:
        config = stored_config(folder)
        base, runs = load_comparison(config, folder)
        cells = [path for path in folder.glob("cells/*") if path.is_dir()]
        noise = UpdateLog.load(folder / "null-update.safetensors")
        logs = [dataclasses.astuple(log) for log in (*map(read_updates, sorted(cells)), noise)]
        return plain_data(config), dataclasses.astuple(base), [dataclasses.astuple(run) for run in runs], logs

    names = ("comparison.json", "null-update.safetensors", "base/result.json", "cells/*/result.json")
    names += ("cells/*/updates/*", "cells/*/updates.parquet", "runs.json", "verdicts.parquet", "curves.parquet")
    return [path for name in names for path in sorted(folder.glob(name))], read


def first_rollouts(folder: Path) -> Made:
    """Of a comparison the rollout set that all methods start from, and the file that names it."""
    config = stored_config(folder)
    job = FirstRolloutsJob(config, folder, config.seeds[0])

    def read(_: Path) -> Any:
        found, digest = job.read()
        return dataclasses.astuple(found), digest

    return [job.pointer, *job.folder.glob("*.safetensors")], read


def samples(folder: Path) -> Made:
    """Of an evaluation every sample and verdict, and what was asked."""
    folder = samples_folder(folder)
    files = [path for path in folder.rglob("*") if path.suffix in (".parquet", ".json")]

    def read(_: Path) -> Any:
        frame = read_frame(folder)
        return read_manifest(folder), frame.columns.tolist(), frame.astype(str).to_numpy().tolist()

    return files, read


def range_file(folder: Path) -> Made:
    return [folder / "ranges.json"], lambda path: dataclasses.astuple(Ranges.read(path))


def altered(path: Path, rng: random.Random) -> None:
    """Flip a bit of a file, or cut its end off."""
    data = bytearray(path.read_bytes())
    if rng.random() < 0.3:
        del data[rng.randrange(len(data)) :]
    else:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def tried(made: Made, name: str, wanted: str, rng: random.Random, counts: Counts) -> None:
    """One alteration of one of the files, read, and mended again."""
    files, read = made
    path = rng.choice(files)
    sound = path.read_bytes()
    altered(path, rng)
    try:
        word, said = (HARMLESS if repr(read(path)) == wanted else SILENT), "read as something else"
    except UserError as error:
        said = str(error)
        word = REFUSED if str(path.parent) in said or path.parent.name in said else TRACEBACK
    except Exception as error:
        word, said = TRACEBACK, repr(error)
    counts.add(word, f"{name}, {path.name}: {said[:300]}")
    path.write_bytes(sound)


def campaign(size: int, seed: int, folder: Path, more: dict[str, Made] | None = None) -> Counts:
    """So many alterations, every kind in turn: `more` are kinds whose files are there already."""
    counts, rng = Counts("flips and cuts"), random.Random(f"flips {seed}")
    kinds = dict(more or {})
    for name, make in MADE_HERE.items():
        (folder / name).mkdir(parents=True)
        kinds[name] = make(folder / name)
    wanted = {name: repr(read(files[0])) for name, (files, read) in kinds.items()}
    for number in range(size):
        name = list(kinds)[number % len(kinds)]
        tried(kinds[name], name, wanted[name], rng, counts)
    return counts
