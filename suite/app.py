"""The command-line application that commands register with, and where they print."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import tyro
from rich.console import Console

app = tyro.extras.SubcommandApp()
console = Console()
complaints = Console(stderr=True, soft_wrap=True, highlight=False)


def say(lines: Iterable[str]) -> None:
    """Print lines as they are: nothing in them is markup, none is broken."""
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


Name = tyro.conf.Positional[str]
Options = Annotated[tuple[str, ...], tyro.conf.arg(name="set", metavar="OWNER.FIELD=VALUE")]


@dataclass(frozen=True)
class Where:
    """Where the cells of a comparison are computed."""

    on: Literal["local", "ray"] = "local"
    """local: processes on this machine; ray: a cluster, whose machines share the results folder."""
    workers: int | None = None
    """Processes side by side on this machine; default one per GPU that can be seen, or one per core without any."""
    gpus_per_cell: float | None = None
    """With --on ray: share of a GPU for each cell, 0 to 1; default 1 where there are any, whole ones for vLLM."""
    ray_address: str | None = None
    """With --on ray: the cluster's address; default RAY_ADDRESS, then a cluster on this machine, then a fresh one."""


Place = Annotated[Where, tyro.conf.arg(name="")]
