"""Where commands print: tables and results to stdout, complaints and waiting to stderr."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console

console = Console(markup=False, emoji=False)
complaints = Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
"""No text is markup: names, paths and errors hold brackets of their own."""


def say(lines: Iterable[str]) -> None:
    """Print lines as they are: nothing in them is markup, none is broken."""
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
