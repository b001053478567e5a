"""A data frame as a Markdown table for people, or as a CSV file of the numbers behind it."""

from __future__ import annotations

import io
import math
import re
from numbers import Real
from pathlib import Path
from typing import Any

import pandas as pd

from suite.records.files import write_atomically
from suite.statistics.frames import Number

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a text begins that a spreadsheet takes for a formula."""
_CODE_OR_TAG = re.compile(
    r"(?P<code>^(?P<fence>`{3,})[^\n`]*\n(?:.*\n)*?(?P=fence)`*$"
    r"|(?<!`)(?P<ticks>`+)(?!`)(?:(?!\n\s*\n)[\s\S])+?(?<!`)(?P=ticks)(?!`))|(?<!\\)<(?=[A-Za-z/!?])",
    re.MULTILINE,
)
"""Code, in a block or a span, which ends with its paragraph; or what could begin a tag."""


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table of the columns as they stand: columns of numbers right-aligned, pipes and line breaks escaped.

    Numbers are cells of the type `Number`, and finite ints and floats. An empty table keeps its header. The same frame
    gives the same text.
    """
    rows = list(table.itertuples(index=False, name=None))
    header = [_escaped(name) for name in table.columns]
    rule = ["---:" if rows and all(is_number(row[i]) for row in rows) else "---" for i in range(len(header))]
    body = [[_escaped(value) for value in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in [header, rule, *body])


def without_html(text: str) -> str:
    """A page's Markdown with every `<` that could begin a tag escaped; code, where none does, stays as it is.

    >>> print(without_html("a <b>name</b>, `<b>`, 2 < 3"))
    a \\<b>name\\</b>, `<b>`, 2 < 3
    """
    return _CODE_OR_TAG.sub(lambda found: found["code"] or "\\<", text)


def write_csv(path: Path, tidy: pd.DataFrame) -> None:
    """The tidy numbers with ten significant digits, nan as an empty field, lines ended by a line feed.

    A text that a spreadsheet would compute, such as a name that begins with `=`, gets an apostrophe in front.
    """
    text = io.StringIO()
    texts = tidy.select_dtypes(exclude=["number", "bool"]).columns
    safe = tidy.assign(**{name: tidy[name].map(_no_formula) for name in texts})
    safe.to_csv(text, index=False, float_format="%.10g", lineterminator="\n")
    write_atomically(path, text.getvalue())


def _no_formula(cell: Any) -> Any:
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA) else cell


def is_number(cell: Any) -> bool:
    """Whether a cell holds a number, written or not; nan and infinities are words."""
    return isinstance(cell, Number) or (isinstance(cell, Real) and not isinstance(cell, bool) and math.isfinite(cell))


def _escaped(value: Any) -> str:
    text = f"[{value}](#{value.link})" if isinstance(value, Number) and value.link else str(value)
    plain = " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")
    return re.sub(r"<(?=[A-Za-z/!?])|!(?=\[)", lambda found: "\\" + found[0], plain)
