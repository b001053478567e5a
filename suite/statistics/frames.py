"""Small readers of data frames, and how a share is written, for everything above."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from suite.config import MEAN

NOTHING = "–"
SMALLEST_P = 1e-4
"""A p-value below it is not told from it: no p is written as 0."""


def select(frame: pd.DataFrame, **values: Any) -> pd.DataFrame:
    """The rows whose columns hold the given values."""
    wanted = np.ones(len(frame), bool)
    for column, value in values.items():
        wanted &= np.asarray(frame[column] == value)
    return frame.take(np.flatnonzero(wanted))


def names_of(frame: pd.DataFrame, column: str) -> list[str]:
    """The different texts of a column, in the order of their first row."""
    return list(dict.fromkeys(frame[column].astype(str).tolist()))


def numbers_of(frame: pd.DataFrame, column: str) -> np.ndarray:
    """A column as floats."""
    return np.asarray(frame[column], float)


def percent(value: float, low: float | None = None, high: float | None = None, *, sign: bool = False) -> str:
    """A share in per cent with its interval, one decimal; what is nan prints as a dash.

    A signed number that one decimal would turn into 0 gets two, so that an interval shows on which side of 0 it ends.

    >>> percent(0.4729, 0.441, 0.5023), percent(-0.0312, -0.05, -0.0002, sign=True), percent(float("nan"))
    ('47.3 [44.1, 50.2]', '-3.1 [-5.0, -0.02]', '–')
    """

    def one(x: float) -> str:
        digits = 2 if sign and x and abs(100 * x) < 0.05 else 1
        # Adding 0.0 turns a rounded -0.0 into 0.0.
        return NOTHING if np.isnan(x) else f"{round(100 * x, digits) + 0.0:{'+' if sign else ''}.{digits}f}"

    if low is None or high is None or np.isnan(value):
        return one(value)
    return f"{one(value)} [{one(low)}, {one(high)}]"


def p_text(p: float) -> str:
    """A p-value with four decimals, "< .0001" below that, a dash for nan.

    >>> p_text(0.0421), p_text(3e-9), p_text(1.0), p_text(float("nan"))
    ('.0421', '< .0001', '1.0000', '–')
    """
    if np.isnan(p):
        return NOTHING
    return "< .0001" if p < SMALLEST_P else f"{p:.4f}".removeprefix("0")


@dataclass(frozen=True)
class Number:
    """A number in the cell of a table, written once: tables align it to the right, and `link` may lead to its origin.

    `link` is an anchor of the page without its hash.

    >>> str(Number.percent(0.4729, 0.441, 0.5023)), str(Number.of(0.26, ".1f")), str(Number.of(float("nan"), ".1f"))
    ('47.3 [44.1, 50.2]', '0.3', '–')
    """

    text: str
    link: str = ""

    @classmethod
    def of(cls, value: float, pattern: str) -> Number:
        """The value in that format, a dash for nan."""
        return ABSENT if np.isnan(value) else cls(format(value, pattern))

    @classmethod
    def percent(
        cls, value: float, low: float | None = None, high: float | None = None, *, sign: bool = False
    ) -> Number:
        """A share as `percent` writes it."""
        return cls(percent(value, low, high, sign=sign))

    def __str__(self) -> str:
        return self.text


ABSENT = Number(NOTHING)
"""Where a number would stand, if there were one."""


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as mappings from column names."""
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def overall(part: pd.DataFrame) -> dict[str, Any]:
    """The row of the mean over the sets, or of the only set."""
    rows = records(part)
    return next((row for row in rows if row["task"] == MEAN), rows[0])


def heading(task: str) -> str:
    """How a set is called at the head of a column."""
    return "mean of sets" if task == MEAN else task
