"""What the command line shows of a comparison."""

from __future__ import annotations

import math
import os
import textwrap
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.console import Console

from suite.experiments.recipe_book import primary_sentence
from suite.records.texts import printable
from suite.report import tables
from suite.report.comparison_text import settings_line
from suite.report.markdown import is_number
from suite.statistics.frames import overall, percent, records, select
from suite.statistics.intervals import few_seeds

if TYPE_CHECKING:
    from suite.findings.claims import Claim
    from suite.findings.comparison import Comparison

LINES, COLUMNS = 40, 100
"""The screen that a comparison ends with; where nobody watches a terminal, the width of all tables."""
CANARIES, VERDICTS = 2, 10
"""Lines of a kind on that screen."""
LEAST = ("truncated", "length", "slope per doubling", "clipped")
"""Columns of its table that are left out on a narrow screen, in this order; the page has them."""


def show(frame: pd.DataFrame, title: str, console: Console) -> None:
    """A data frame of strings as a table; columns that do not fit stand below, the first one beside them again."""
    console.print(f"\n{printable(title)}", highlight=False, soft_wrap=True)
    cells = frame.map(lambda cell: printable(str(cell)))
    cells.columns = pd.Index([printable(str(name)) for name in frame.columns])
    numbers = {new for new, old in zip(cells, frame, strict=True) if all(map(is_number, frame[old]))}
    for part in parts_within(cells, width_of(console)):
        header, *rows = aligned(part, numbers)
        for line in ("", header, "─" * max(map(len, [header, *rows])), *rows):
            console.print(line.rstrip(), highlight=False, soft_wrap=True)
    console.print()


def width_of(console: Console) -> int:
    """The columns of a terminal, or of the variable COLUMNS; where there is neither, COLUMNS of this module."""
    return console.width if console.is_terminal or "COLUMNS" in os.environ else COLUMNS


def parts_within(table: pd.DataFrame, width: int) -> list[pd.DataFrame]:
    """The table cut between columns into parts of at most `width`, each with the first column; no cell is cut.

    A column that is too wide by itself makes a part of its own, wider than `width`.
    """
    first, *others = table.columns
    parts = [[first]]
    for name in others:
        if len(parts[-1]) > 1 and len(aligned(pd.DataFrame(table, columns=pd.Index([*parts[-1], name])))[0]) > width:
            parts.append([first])
        parts[-1].append(name)
    return [pd.DataFrame(table, columns=pd.Index(names)) for names in parts]


def print_claims(found: Sequence[Claim], console: Console) -> None:
    """Every claim with its verdict, then what was measured and on which runs."""
    for number, claim in enumerate(found, start=1):
        console.print(f"{number}. {claim.claim}: {claim.verdict}", highlight=False, markup=False)
        console.print(f"   {claim.measured} ({claim.runs})", highlight=False, markup=False, soft_wrap=True)


def print_report(report: Comparison, path: Path, console: Console) -> None:
    """One screen: what was compared, a table, the declared differences, the five claims, and where the page is."""
    for line in screen(report, path.with_suffix(".html"), min(width_of(console), COLUMNS)):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def screen(report: Comparison, page: Path, columns: int = COLUMNS) -> list[str]:
    """What a comparison says, in at most 40 lines of at most `columns`; the longer tables are on the page."""
    claims = [f"{i}. {one.verdict}: {one.claim} ({one.measured})" for i, one in enumerate(report.claims, start=1)]
    head = [
        settings_line(report),
        primary_sentence(report.config),
        f"Accuracy in %{few_seeds(len(report.config.seeds))}; clip rate at the default range in %, slope in points.",
    ]
    tail = [
        *_at_most([_cut(line, columns) for line in report.canary_lines], CANARIES),
        *_at_most(_wrapped(tables.verdict_lines(report.statistics.differences), columns), VERDICTS),
        "",
        "The claims of the paper's abstract in these runs:",
        *(_cut(line, columns) for line in claims),
        "",
        f"page: {page}",
    ]
    head = [*_wrapped(head, columns), ""]
    overview = _at_most(aligned(_fitting(overview_table(report), columns)), LINES - len(head) - len(tail) - 2)
    return [*head, *overview, "", *tail]


def _wrapped(lines: Sequence[str], columns: int) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, columns, subsequent_indent="  ")]


def _cut(line: str, columns: int) -> str:
    return textwrap.shorten(line, columns, placeholder=" ...")


def _fitting(table: pd.DataFrame, columns: int) -> pd.DataFrame:
    """The table without as many of its least important columns as do not fit."""
    for name in LEAST:
        if len(aligned(table)[0]) > columns and name in table:
            table = table.drop(columns=name)
    return table


def _at_most(lines: Sequence[str], count: int) -> list[str]:
    """The first lines, and how many more there are."""
    return [*lines] if len(lines) <= count else [*lines[:count], f"... and {len(lines) - count} more lines on the page"]


def overview_table(report: Comparison) -> pd.DataFrame:
    """One row a model: accuracy, clip rate and its slope per doubling of length, mean length, truncated share."""
    replayed = records(select(report.arena.fairness, range="default")) if report.ratios_moved else []
    clipped = {str(r["method"]): r for r in replayed}
    rows = []
    for method, part in report.statistics.accuracies.groupby("method", sort=False):
        whole = overall(part)
        row: dict[str, Any] = {"method": str(method)}
        row["accuracy"] = percent(whole["accuracy"], whole["low"], whole["high"])
        clip = clipped.get(str(method), {})
        if not clip.get("band", True):
            clip = {}
        row["clipped"] = percent(clip.get("mean_clipped", math.nan))
        ends = [clip.get(f"clipped_slope{end}", math.nan) for end in ("", "_low", "_high")]
        row["slope per doubling"] = percent(*ends, sign=True)
        cells = tables.answer_cells(whole)
        rows.append(row | {"length": str(cells["length"]), "truncated": str(cells["truncated"])})
    return pd.DataFrame(rows)


def aligned(table: pd.DataFrame, right: Collection[str] | None = None) -> list[str]:
    """A table of texts as lines of equal columns under its header; `right` (else all but the first) to the right."""
    rows = [list(map(str, table.columns)), *([str(cell) for cell in row] for row in table.itertuples(index=False))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if (i > 0 if right is None else table.columns[i] in right) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
