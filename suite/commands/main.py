"""The command line: `fspo compare demo`. What needs no command, such as `fspo --help`, loads no torch."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper
from traceback import extract_tb
from typing import Any, NoReturn

from suite.commands.families import ENTRIES, GROUPS, OLD, Command, Family

PROGRAM = "fspo"
TORCHRUN = "TORCHELASTIC_RUN_ID"
"""What torchrun sets in the environment of the processes it starts."""
ALLOW = "--allow"
COMPLETION = "--completion"
HELP = ("-h", "--help")

LAST = (
    "--version            the version of the suite, and of a checkout the commit",
    "--completion SHELL   what bash, zsh or tcsh reads to complete commands and options",
    "--allow MODULE:NAME  with any command: import this method of yours where a results folder names it",
)


def main() -> None:
    """Entry point. A mistake the user can mend is one line and exit code 2; Ctrl-C is exit code 130."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without a letter shows a question mark
    try:
        begin(sys.argv[1:])
    except BrokenPipeError:  # whoever read the output has closed it
        _write_no_more()
        sys.exit(1)
    except OSError as error:  # a full disk, a place that cannot be written
        _write_no_more()
        from suite.records.texts import one_line, printable

        with suppress(OSError):
            line = f"fspo: error: {printable(one_line(error))}; mend it and run the same command again"
            print(line, file=sys.stderr, flush=True)
        sys.exit(2)


def _write_no_more() -> None:
    """What waits to be written to a closed or full output is dropped, not tried once more at the end."""
    with suppress(OSError, AttributeError):  # there may be no output at all
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def begin(words: list[str]) -> None:
    """Do what the words of a command line say."""
    if words[:1] and words[0] in OLD:
        old, words = words[0], OLD[words[0]](words[1:])
        print(f"fspo: {old!r} is now: {shlex.join([PROGRAM, *words])}", file=sys.stderr)
    if not words or words[0] in HELP:
        print(overview(), end="", flush=True)
    elif words == ["--version"]:
        from suite.records.installation import suite_version

        print(f"{PROGRAM} {suite_version()}", flush=True)
    elif words[0] == COMPLETION:
        from suite.commands.completion import SHELLS, print_completion

        if words[1:] not in [[shell] for shell in SHELLS]:
            stop(f"{COMPLETION} takes one shell", " ".join(words), {}, f"there are: {_names(dict.fromkeys(SHELLS))}")
        print_completion(words[1])
    elif (found := find(words)) is not None:
        names, command, rest = found
        run(names, command, rest)


def find(words: Sequence[str]) -> tuple[list[str], Command, list[str]] | None:
    """The command that the words name, its names and the words behind them; none where a family's help was asked for.

    An unknown name ends the program with one line that suggests the nearest.
    """
    entry = ENTRIES.get(words[0])
    if entry is None:
        stop(f"unknown command {words[0]!r}", words[0], {**ENTRIES, **_members()}, "fspo --help lists them")
    if isinstance(entry, Command):
        return [words[0]], entry, list(words[1:])
    if len(words) == 1 or words[1] in HELP:
        print(family_help(words[0], entry), end="")
        return None
    if (member := entry.members.get(words[1])) is None:
        known = {f"{words[0]} {name}": None for name in entry.members}
        stop(f"unknown command '{words[0]} {words[1]}'", f"{words[0]} {words[1]}", known, f"there are: {_names(known)}")
    return list(words[:2]), member, list(words[2:])


def _members() -> dict[str, Command]:
    """Commands of families by both of their words."""
    return {
        f"{family} {name}": command
        for family, entry in ENTRIES.items()
        if isinstance(entry, Family)
        for name, command in entry.members.items()
    }


def _names(known: Mapping[str, Any]) -> str:
    return ", ".join(known)


def stop(what: str, name: str, known: Mapping[str, Any], otherwise: str) -> NoReturn:
    """End the program with exit code 2 and one line: what is wrong, the nearest name, and where all of them are."""
    last = {word.split()[-1]: word for word in known}
    near = [*get_close_matches(name, known, n=1), *(last[word] for word in get_close_matches(name, last, n=1))]
    hint = f"did you mean: {PROGRAM} {near[0]}? " if near else ""
    print(f"fspo: error: {what}; {hint}{otherwise}", file=sys.stderr)
    sys.exit(2)


def overview() -> str:
    """The text of `fspo --help`: the entries by what a person wants to do."""
    width = max(map(len, ENTRIES))
    lines = [
        f"usage: {PROGRAM} COMMAND ...",
        "",
        "FSPO and its rivals on identical rollouts. `fspo COMMAND --help` says more of one.",
    ]
    for title, entries in GROUPS.items():
        lines += ["", title]
        for name, entry in entries.items():
            lines += [f"  {name:<{width}}  {entry.does}"]
            if isinstance(entry, Family):
                lines += [f"  {'':<{width}}  {' | '.join(entry.members)}"]
    return "\n".join([*lines, "", *LAST, ""])


def family_help(name: str, family: Family) -> str:
    """The text of `fspo FAMILY --help`."""
    width = max(map(len, family.members))
    rows = [f"  {member:<{width}}  {command.does}" for member, command in family.members.items()]
    return "\n".join([f"usage: {PROGRAM} {name} COMMAND ...", "", f"{name}: {family.does}", "", *rows, ""])


def run(names: Sequence[str], command: Command, rest: Sequence[str]) -> None:
    """Run one command; UserError and Ctrl-C end in one line, and a package that does not import in the doctor's."""
    try:
        import tyro

        from suite.commands.console import complaints
        from suite.experiments.known import refuse_unknown_methods
        from suite.methods.from_outside import find_modules_here
        from suite.records.own_methods import allow
        from suite.records.texts import printable
        from suite.types import UserError
    except (ImportError, OSError, AttributeError) as error:
        diagnose(error)

    find_modules_here()
    allow([word.removeprefix(f"{ALLOW}=") for word in rest])
    try:
        if TORCHRUN in os.environ and list(names) != ["train"]:
            raise UserError(
                "torchrun is for one training run: torchrun --nproc-per-node N --no-python fspo train RECIPE ..."
            )
        refuse_unknown_methods(rest)
        tyro.cli(typed(command), prog=" ".join([PROGRAM, *names]), args=without_allowed(rest))
        if sys.stdout is not None:
            sys.stdout.flush()
    except UserError as error:
        complaints.print(f"fspo: error: {printable(str(error))}")
        sys.exit(2)
    except KeyboardInterrupt:
        complaints.print("fspo: interrupted; the same command resumes where it stopped")
        sys.exit(130)
    except (ImportError, OSError, AttributeError) as error:
        if not any(frame.name == "<module>" for frame in extract_tb(error.__traceback__)):
            raise  # not from a package that was being imported
        diagnose(error)


def diagnose(error: Exception) -> NoReturn:
    """End the program where packages are so broken that no command can begin: the error, then what the doctor finds."""
    from suite.commands.doctor import doctor
    from suite.records.texts import one_line, printable

    print(f"fspo: error: this installation is broken: {printable(one_line(error))}", file=sys.stderr, flush=True)
    doctor()
    sys.exit(1)


def without_allowed(words: Sequence[str]) -> list[str]:
    """The words without `--allow MODULE:NAME`, which every command takes. UserError for one that names no method."""
    from suite.records.own_methods import references_in
    from suite.types import UserError

    kept: list[str] = []
    coming = iter(words)
    for word in coming:
        option, _, name = word.partition("=")
        if option != ALLOW:
            kept.append(word)
        elif not references_in([name := name or next(coming, "")]):
            raise UserError(f"{ALLOW} {name!r}: write it as MODULE:NAME")
    return kept


def function_of(command: Command) -> Callable[..., None]:
    """The function that does a command."""
    module, _, name = command.function.partition(":")
    return getattr(import_module(f"suite.commands.{module}"), name)


def typed(command: Command) -> Any:
    """A command as tyro reads it: a switch is one option, without a second one that says its default."""
    from tyro.conf import FlagCreatePairsOff

    return FlagCreatePairsOff[function_of(command)]


if __name__ == "__main__":
    main()
