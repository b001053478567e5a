"""Texts that are not ours, made safe to show: errors as one line, names without what a terminal would obey."""

from __future__ import annotations


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
