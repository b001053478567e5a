"""What every benchmark's file has in common: the ratios that the summary reads, and where they were made."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from suite.records.files import write_atomically
from suite.records.provenance import machine, versions


@dataclass(frozen=True)
class Ratio:
    """One row of the table of ratios. goal: what the ratio should reach, None where it only informs.

    better: whether a `higher` or a `lower` ratio is good; padding: share of a peer's tokens that are padding, in
    [0, 1], None where nothing is padded.
    """

    name: str
    what: str
    ratio: float
    goal: float | None
    better: Literal["higher", "lower"]
    padding: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the ratio reaches its goal, None without one."""
        if self.goal is None:
            return None
        return self.ratio >= self.goal if self.better == "higher" else self.ratio <= self.goal


def write(out: Path, benchmark: str, quick: bool, ratios: Sequence[Ratio], **content: Any) -> None:
    """Write a benchmark's JSON: ratios first, then what it measured, the command, versions, machine and load."""
    whole = {
        "benchmark": benchmark,
        "command": ["python", "-m", f"benchmarks.{benchmark}", *sys.argv[1:]],
        "quick": quick,
        "ratios": [asdict(ratio) for ratio in ratios],
        **content,
        "versions": versions(),
        "machine": machine(),
        "load_average": os.getloadavg(),
    }
    write_atomically(out, json.dumps(whole, indent=1) + "\n")


def line(ratio: Ratio) -> str:
    """A ratio in a line of text.

    >>> line(Ratio("arena replay", "a forward and 17 methods / a forward", 1.24, 1.3, "lower"))
    'arena replay: a forward and 17 methods / a forward: 1.240 (goal: at most 1.300, met)'
    """
    goal = ""
    if ratio.goal is not None:
        word = "at least" if ratio.better == "higher" else "at most"
        goal = f" (goal: {word} {ratio.goal:.3f}, {'met' if ratio.met else 'missed'})"
    return f"{ratio.name}: {ratio.what}: {ratio.ratio:.3f}{goal}"
