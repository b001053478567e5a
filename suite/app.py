"""The command-line application that commands register with, and where they print."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Annotated

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
