"""Cells of a finished comparison made again: which ones, and the jobs that make them in another folder."""

from __future__ import annotations

import random
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from suite.config import CompareConfig
from suite.evaluation.canary import FILE as CANARY_FILE
from suite.experiments.cells import BaseJob, CellJob, FirstRolloutsJob
from suite.experiments.models import model_place
from suite.experiments.names import lookup
from suite.records.result import BASE
from suite.records.rollout_set import RolloutSet
from suite.types import RunResult, UserError
from tasks.own_problems import is_own


@dataclass(frozen=True)
class Chosen:
    """Cells that are made again, each a name and its seed; `base` is the start model's evaluation and has none."""

    cells: tuple[tuple[str, int], ...]
    base: bool = False

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds whose first rollouts are needed, each once."""
        return tuple(dict.fromkeys(seed for _, seed in self.cells))

    def names(self) -> list[str]:
        """METHOD-seedK of every cell, and base in front where it is among them."""
        return [*([BASE] if self.base else []), *(f"{method}-seed{seed}" for method, seed in self.cells)]

    def without(self, names: Collection[str]) -> Chosen:
        """The others."""
        kept = tuple((method, seed) for method, seed in self.cells if f"{method}-seed{seed}" not in names)
        return Chosen(kept, self.base and BASE not in names)

    def stages(self, config: CompareConfig, out: Path) -> list[list[Any]]:
        """The jobs: first rollouts and base, then the cells."""
        first = [FirstRolloutsJob(config, out, seed) for seed in self.seeds]
        cells = [CellJob(config, out, method, seed) for method, seed in self.cells]
        return [[*([BaseJob(config, out)] if self.base else []), *first], cells]


def chosen_cells(config: CompareConfig, cells: str, draw: int) -> Chosen:
    """The cells that `--cells` asks for: so many, drawn with the seed `draw`, or those of its names.

    UserError for a count below 1 and for a name that the comparison does not have.
    """
    known = {f"{method}-seed{seed}": (method, seed) for method in config.methods for seed in config.seeds}
    if cells.isdecimal():
        if int(cells) < 1:
            raise UserError(f"--cells {cells}: at least 1")
        return Chosen(tuple(random.Random(draw).sample(list(known.values()), min(int(cells), len(known)))))
    names = list(dict.fromkeys(word.strip() for word in cells.split(",")))
    for name in names:
        lookup({BASE: None, **known}, name, "cell")
    return Chosen(tuple(known[name] for name in names if name != BASE), BASE in names)


def require_files_here(config: CompareConfig, folder: Path) -> None:
    """UserError where a path that a comparison was begun with leads nowhere from the current folder."""
    given = [name.partition("@")[0] for name in config.all_tasks if is_own(name)]
    given += [str(config.train.data_dir)] if config.train.data_dir is not None else []
    try:
        model_place(config.train.model)
    except UserError:
        given.insert(0, config.train.model)
    if gone := [name for name in given if not Path(name).expanduser().exists()]:
        raise UserError(
            f"{folder}: it was made with {', '.join(gone)}, and nothing is there; a relative path begins at the folder "
            "where fspo compare or train was called: go there and run this again, and next time give absolute paths"
        )


def keep_canary(folder: Path, out: Path) -> None:
    """Put the comparison's canary where the cells that are made again look for it; nothing where none was kept."""
    kept = folder / BASE / CANARY_FILE
    if kept.exists():
        (out / BASE).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kept, out / BASE / CANARY_FILE)


def recorded_threads(results: Sequence[RunResult], otherwise: int) -> int:
    """Threads of the processes that made these results, the fewest, since their count moves last bits."""
    return min((int(run.environment["threads"]) for run in results if "threads" in run.environment), default=otherwise)


def digest_under(first: RolloutSet, versions: Mapping[str, str]) -> str:
    """The digest of a rollout set, had its header named those versions: they stand in it, and change nothing else."""
    named = {name: versions.get(name, here) for name, here in first.header["versions"].items()}
    return replace(first, header={**first.header, "versions": named}).digest
