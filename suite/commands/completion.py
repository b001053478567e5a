"""What a shell reads to complete the words of `fspo`: every command with its options, in one script."""

from __future__ import annotations

from typing import Annotated, Any, Union

import tyro

from suite.commands.families import ENTRIES, Command, Family
from suite.commands.main import PROGRAM, function_of

SHELLS = ("bash", "zsh", "tcsh")


def print_completion(shell: str) -> None:
    """Print the script of one of `SHELLS`; SystemExit when it is printed."""
    entries: Any = Union[tuple(_typed(name, entry) for name, entry in ENTRIES.items())]  # noqa: UP007 (made of a tuple)
    tyro.cli(tyro.conf.FlagCreatePairsOff[entries], prog=PROGRAM, args=["--tyro-print-completion", shell])


def _typed(name: str, entry: Command | Family) -> Any:
    """A command, or a family with its commands, as tyro's own kind of subcommand."""
    called = tyro.conf.subcommand(name, description=entry.does)
    if isinstance(entry, Command):
        return Annotated[Any, tyro.conf.arg(constructor=function_of(entry)), called]
    members = tuple(_typed(member, command) for member, command in entry.members.items())
    return Annotated[Union[members], called]  # noqa: UP007
