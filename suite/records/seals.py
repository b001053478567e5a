"""Files that carry the sha256 of their own content: what is flipped or cut is noticed when it is read.

A sealed file holds the mark `fspo-sha256:` and 64 hex digits in one place, wherever its format keeps words: the sha256
of the file with zeros in their place. So one file is whole or refused, and no second file can be lost beside it.

Source: ours.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Sequence
from pathlib import Path

from suite.records.files import write_atomically
from suite.types import UserError

MARK = b"fspo-sha256:"
DIGITS = 64
BLANK = (MARK + b"0" * DIGITS).decode()
"""What a writer puts where the seal is to be."""


def write_sealed(path: Path, data: bytes) -> None:
    """Write data that holds BLANK once, with its digest in the place of the zeros; ValueError for other data."""
    write_atomically(path, sealed(data))


def sealed(data: bytes) -> Sequence[bytes | memoryview]:
    """The parts of what `write_sealed` writes."""
    start = _place(data)
    if start is None:
        raise ValueError(f"the data must hold {BLANK[:16]}... once")
    return _parts(data, start, hashlib.sha256(data).hexdigest().encode())


def is_sealed(path: Path) -> bool:
    """Whether a file bears a seal, right or wrong."""
    return MARK in path.read_bytes()


def check_seal(path: Path, remedy: str) -> None:
    """UserError, which says what to do, for a file that is not as it was written, or that was never sealed."""
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        if not size:
            raise UserError(f"{path}: empty; {remedy}")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start = _place(data)
            if start is None:
                raise UserError(
                    f"{path}: altered, cut short, or not written by this version (it has no seal); {remedy}"
                )
            found = hashlib.sha256()
            with memoryview(data) as view:
                for part in _parts(view, start, b"0" * DIGITS):
                    found.update(part)
                    del part
            said = data[start : start + DIGITS]
    if found.hexdigest().encode() != said:
        raise UserError(f"{path}: altered or cut short after it was written (its sha256 differs); {remedy}")


def _place(data: bytes | mmap.mmap) -> int | None:
    """Where the digits of the seal begin; None where there is none, or more than one."""
    start = data.find(MARK)
    alone = start >= 0 and data.find(MARK, start + 1) < 0 and start + len(MARK) + DIGITS <= len(data)
    return start + len(MARK) if alone else None


def _parts(data: bytes | memoryview, start: int, digits: bytes) -> Sequence[bytes | memoryview]:
    """The data with other digits in the place of its seal, not copied."""
    view = memoryview(data)
    return view[:start], digits, view[start + DIGITS :]
