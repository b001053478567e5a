"""Texts that are not ours, made safe to show: errors as one line, names without what a terminal would obey."""

from __future__ import annotations

import re


def one_line(error: BaseException) -> str:
    """An error as one line: its kind and what it says."""
    if isinstance(error, OSError) and error.strerror:
        places = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([*places, error.strerror])
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def printable(text: str, keep: str = "") -> str:
    """A text of strangers without characters that a terminal would obey or cannot show, other than those to keep."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode() for c in text)


def code(text: str) -> str:
    """A text of strangers as a span of code in Markdown, on one line, which nothing in it can end.

    >>> code("a b"), code("``x")
    ('`a b`', '``` ``x ```')
    """
    shown = printable(text) or " "
    edge, space = "`" * (_longest_ticks(shown) + 1), " " if "`" in shown else ""
    return f"{edge}{space}{shown}{space}{edge}"


def fenced(text: str) -> str:
    """A text of strangers as a block of code in Markdown, which nothing in it can end."""
    fence = "`" * max(3, _longest_ticks(text) + 1)
    return f"{fence}text\n{printable(text, keep=chr(10))}\n{fence}"


def _longest_ticks(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)
