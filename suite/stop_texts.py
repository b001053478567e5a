"""Texts that end a response. Imports nothing heavy: other trainers' reward processes need it too."""

from __future__ import annotations

from collections.abc import Sequence


def before_stop(text: str, stop: Sequence[str]) -> str:
    """The response without its stop text and what its last token may hold behind it: that part answers nothing.

    >>> before_stop("#### 7Question: How", ("\\n\\n", "Question:"))
    '#### 7'
    """
    return text[: min((place for mark in stop if (place := text.find(mark)) >= 0), default=len(text))]
