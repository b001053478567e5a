"""Longer texts on a terminal: Markdown with whole tables, and lists whose last column folds."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from typing import ClassVar

from rich.console import Console, ConsoleOptions, RenderResult
from rich.markdown import Markdown, MarkdownElement, TableElement
from rich.table import Table

from suite.commands.console import console


class _WholeTable(TableElement):
    """A table of Markdown in which nothing is cut: names, in the first column, stay on one line, other cells fold."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for table in super().__rich_console__(console, options):
            if isinstance(table, Table):
                for number, column in enumerate(table.columns):
                    column.no_wrap, column.overflow = number == 0, "fold"
            yield table


class Page(Markdown):
    """Markdown as a terminal shows it, with whole tables."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {**Markdown.elements, "table_open": _WholeTable}


def listing(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of texts as lines under each other; on a terminal the last column folds, elsewhere a row is one line."""
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    heads = ["".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False)) for row in rows]
    if not (console.is_terminal or "COLUMNS" in os.environ):
        return [head + row[-1] for head, row in zip(heads, rows, strict=True)]
    return [
        line
        for head, row in zip(heads, rows, strict=True)
        for line in textwrap.wrap(
            row[-1],
            max(console.width, len(head) + 20),
            initial_indent=head,
            subsequent_indent=" " * len(head),
            break_long_words=False,
            break_on_hyphens=False,
        )
    ]
