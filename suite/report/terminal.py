"""What the command line shows of a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from suite.report import tables
from suite.report.tables import accuracies_of

if TYPE_CHECKING:
    from suite.findings.claims import Claim
    from suite.findings.comparison import Comparison

WIDE = 180


def printable(text: str, keep: str = "") -> str:
    """A text of strangers without characters that a terminal would obey or cannot show, other than those to keep."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def show(frame: pd.DataFrame, title: str, console: Console) -> None:
    """A data frame of strings as a table; where nobody watches a terminal, as wide as it needs to be."""
    table = Table(*map(str, frame.columns), title=title, title_justify="left", box=SIMPLE_HEAD)
    for row in frame.itertuples(index=False):
        table.add_row(*map(str, row))
    (console if console.is_terminal else Console(width=WIDE)).print(table, highlight=False)


def print_claims(found: Sequence[Claim], console: Console) -> None:
    """Every claim with its verdict, then what was measured and on which runs."""
    for number, claim in enumerate(found, start=1):
        console.print(f"{number}. {claim.claim}: {claim.verdict}", highlight=False, markup=False)
        console.print(f"   {claim.measured} ({claim.runs})", highlight=False, markup=False, soft_wrap=True)


def print_report(report: Comparison, path: Path, console: Console) -> None:
    """Accuracies, differences to the base model, clipping by length, and the computed verdicts."""
    stats, fairness = report.statistics, report.arena.fairness
    default = pd.DataFrame(fairness[fairness["range"] == "default"])
    show(accuracies_of(report), "accuracy in per cent, 95 % intervals (seeds, problems)", console)
    for line in report.canary_lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    show(tables.difference_table(stats.differences), "difference to the base model in points", console)
    clipping = tables.fairness_table(default).drop(columns="range")
    show(clipping, "clipping by length, the same responses for every method", console)
    for line in tables.verdict_lines(stats.differences):
        console.print(line, highlight=False)
    print_claims(report.claims, console)
    updates = report.config.train.updates_per_rollout
    mode = "shared first rollouts, then common random numbers"
    console.print(f"updates per rollout: {updates}; {mode}", highlight=False)
    console.print(f"report, tables and figures: {path}", highlight=False)
