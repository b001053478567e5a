"""The training log: one JSON line a step, each with its own digest, and the same numbers for trackers."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path

from suite.records.files import digest_of, write_atomically
from suite.records.trackers import Trackers
from suite.types import UserError

FILE = "metrics.jsonl"
DIGEST = "sha256"
"""The key under which a line holds the digest of its other numbers."""
Row = dict[str, float]


class RunLog:
    """Appends steps to metrics.jsonl, then tells trackers. A resumed run first forgets the steps after its checkpoint.

    UserError where a step before the checkpoint is missing: its numbers would be lost from every curve.
    """

    def __init__(self, folder: Path, next_step: int, trackers: Trackers | None = None) -> None:
        self.path, self.trackers = folder / FILE, trackers
        kept = [row for row in read_log(folder) if row["step"] < next_step]
        if [row["step"] for row in kept] != list(range(next_step)):
            raise UserError(
                f"{self.path}: the checkpoint has the steps 0 to {next_step - 1} behind it, and this log does not hold "
                f"each of them once; delete {folder} to start this run anew"
            )
        write_atomically(self.path, "".join(map(_line, kept)))
        if trackers is not None:
            trackers.begin(kept)

    def append(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log one step; every number is a plain float. It is on disk before a checkpoint says that the step is done."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(_line({"step": step, **numbers}))
            file.flush()
            os.fsync(file.fileno())
        if self.trackers is not None:
            self.trackers.log(step, numbers)


def _line(row: Mapping[str, float]) -> str:
    """A row as valid JSON: what is no number is null."""
    plain = {name: value if math.isfinite(value) else None for name, value in row.items()}
    return json.dumps({**plain, DIGEST: digest_of(plain)}, allow_nan=False) + "\n"


def read_log(folder: Path) -> list[Row]:
    """The logged steps of a run, oldest first; empty before the first. Null reads as NaN.

    A last line without an end is left out: a crash cut it. UserError for any other line that is not as it was written.
    """
    path = folder / FILE
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [_row(line, f"{path}, line {number}", folder) for number, line in enumerate(lines, 1)]


def _row(line: bytes, place: str, folder: Path) -> Row:
    try:
        row = json.loads(line)
        said = row.pop(DIGEST)
        whole = digest_of(row) == said
    except (ValueError, KeyError, TypeError, AttributeError):
        whole, row = False, {}
    if not whole:
        raise UserError(f"{place}: altered since it was written, or of another version; delete {folder} to start anew")
    return {name: math.nan if value is None else value for name, value in row.items()}
