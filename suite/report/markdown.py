"""A data frame as a Markdown table for people, or as a CSV file of the numbers behind it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from suite.records.files import write_atomically
from suite.statistics.frames import NOTHING

NUMERIC = (*"0123456789+-.", NOTHING)


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table of the columns as they stand: columns of numbers right-aligned, pipes and line breaks escaped.

    An empty table keeps its header. The same frame gives the same text.
    """
    header = [_escaped(name) for name in table.columns]
    body = [[_escaped(value) for value in row] for row in table.itertuples(index=False, name=None)]
    rule = ["---:" if body and all(_is_number(row[i]) for row in body) else "---" for i in range(len(header))]
    return "".join(f"| {' | '.join(row)} |\n" for row in [header, rule, *body])


def write_markdown(path: Path, title: str, table: pd.DataFrame, notes: Sequence[str] = ()) -> None:
    """A file with a heading, the table, and one bullet for every note under it."""
    bullets = "".join(f"- {_escaped(note)}\n" for note in notes)
    write_atomically(path, f"# {title}\n\n{markdown(table)}" + (f"\n{bullets}" if bullets else ""))


def write_csv(path: Path, tidy: pd.DataFrame) -> None:
    """The tidy numbers with ten significant digits, nan as an empty field, lines ended by a line feed."""
    text = io.StringIO()
    tidy.to_csv(text, index=False, float_format="%.10g", lineterminator="\n")
    write_atomically(path, text.getvalue())


def _is_number(cell: str) -> bool:
    """Whether a cell, or the text of a link, begins like a number or is empty."""
    return cell.lstrip("[")[:1] in NUMERIC


def _escaped(value: Any) -> str:
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|")
