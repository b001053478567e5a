"""What the command line shows of a comparison."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from suite.experiments.recipe_book import primary_sentence
from suite.records.texts import printable
from suite.report import tables
from suite.report.comparison_text import settings_line
from suite.statistics.frames import overall, percent, records, select
from suite.statistics.intervals import few_seeds

if TYPE_CHECKING:
    from suite.findings.claims import Claim
    from suite.findings.comparison import Comparison

WIDE = 180
LINES, COLUMNS = 40, 100
"""The screen that a comparison ends with."""
CANARIES, VERDICTS = 2, 10
"""Lines of a kind on that screen."""


def show(frame: pd.DataFrame, title: str, console: Console) -> None:
    """A data frame of strings as a table; where nobody watches a terminal, as wide as it needs to be."""
    table = Table(
        *map(printable, map(str, frame.columns)), title=printable(title), title_justify="left", box=SIMPLE_HEAD
    )
    for row in frame.itertuples(index=False):
        table.add_row(*map(printable, map(str, row)))
    (console if console.is_terminal else Console(width=WIDE, markup=False, emoji=False)).print(table, highlight=False)


def print_claims(found: Sequence[Claim], console: Console) -> None:
    """Every claim with its verdict, then what was measured and on which runs."""
    for number, claim in enumerate(found, start=1):
        console.print(f"{number}. {claim.claim}: {claim.verdict}", highlight=False, markup=False)
        console.print(f"   {claim.measured} ({claim.runs})", highlight=False, markup=False, soft_wrap=True)


def print_report(report: Comparison, path: Path, console: Console) -> None:
    """One screen: what was compared, a table, the declared differences, the five claims, and where the page is."""
    for line in screen(report, path.with_suffix(".html")):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def screen(report: Comparison, page: Path) -> list[str]:
    """What a comparison says, in at most 40 lines of at most 100 columns; the longer tables are on the page."""
    claims = [f"{i}. {one.verdict}: {one.claim} ({one.measured})" for i, one in enumerate(report.claims, start=1)]
    head = [
        settings_line(report),
        primary_sentence(report.config),
        f"Accuracy in %{few_seeds(len(report.config.seeds))}; clip rate at the default range in %, slope in points.",
    ]
    tail = [
        *_at_most([_cut(line) for line in report.canary_lines], CANARIES),
        *_at_most(_wrapped(tables.verdict_lines(report.statistics.differences)), VERDICTS),
        "",
        "The claims of the paper's abstract in these runs:",
        *map(_cut, claims),
        "",
        f"page: {page}",
    ]
    head = [*_wrapped(head), ""]
    overview = _at_most(aligned(overview_table(report)), LINES - len(head) - len(tail) - 2)
    return [*head, *overview, "", *tail]


def _wrapped(lines: Sequence[str]) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, COLUMNS, subsequent_indent="  ")]


def _cut(line: str) -> str:
    return textwrap.shorten(line, COLUMNS, placeholder=" ...")


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


def aligned(table: pd.DataFrame) -> list[str]:
    """A table of texts as lines of equal columns, numbers to the right, under its header."""
    rows = [list(map(str, table.columns)), *([str(cell) for cell in row] for row in table.itertuples(index=False))]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
