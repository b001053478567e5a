"""Arguments that several commands share, as tyro reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from suite.config import is_seed
from suite.experiments.recipes import Changes
from suite.types import UserError

Name = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="NAME")]]
Recipe = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="RECIPE")]]
Options = Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="OWNER.FIELD=VALUE")]
MOST_SEEDS = 10_000
RecipeChanges = Annotated[Changes, tyro.conf.arg(name="")]


@dataclass(frozen=True)
class Where:
    """Where the cells of a comparison are computed."""

    on: Literal["local", "ray"] = "local"
    """local: processes on this machine; ray: a cluster, whose machines share the results folder."""
    workers: int | None = None
    """Processes side by side on this machine; default one per GPU that can be seen, or one per core without any.

    Each has as many threads as OMP_NUM_THREADS says, if set, but one under train.portable: threads move last bits."""
    gpus_per_cell: float | None = None
    """With --on ray: share of a GPU for each cell, 0 to 1; default 1 where there are any, whole ones for vLLM."""
    ray_address: str | None = None
    """With --on ray: the cluster's address; default RAY_ADDRESS, then a cluster on this machine, then a fresh one."""


Place = Annotated[Where, tyro.conf.arg(name="")]


def listed(text: str | None, option: str) -> tuple[str, ...] | None:
    """The items of a list with commas between; none where the option was not given, UserError for an empty item."""
    if text is None:
        return None
    items = tuple(word.strip() for word in text.split(","))
    if not all(items):
        raise UserError(f"{option} {text!r}: write names with commas between, and no empty one")
    return items


def first_seeds(count: int | None, first: int = 0) -> tuple[int, ...] | None:
    """So many seeds from `first` on; none where no count was given, UserError where they cannot be seeds."""
    if count is not None and not 1 <= count <= MOST_SEEDS:
        raise UserError(f"--seeds {count}: at least 1, at most {MOST_SEEDS}")
    checked_seed(first, "--first-seed")
    return None if count is None else tuple(range(first, first + count))


def checked_seed(seed: int, option: str = "--seed") -> int:
    """The seed; UserError where a number cannot be one."""
    if not is_seed(seed):
        raise UserError(f"{option} {seed}: 0 or more, below 2^32")
    return seed
