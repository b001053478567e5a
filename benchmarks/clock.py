"""The clock of the benchmarks: two programs in turn, every time kept, and the ratio of their medians and minima."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

Program = Callable[[], object]


@dataclass(frozen=True)
class Measurement:
    """Two programs, the ratio of whose times has a limit."""

    name: str
    what: str
    limit: float
    numerator: tuple[str, Program]
    denominator: tuple[str, Program]


def interleaved(programs: Mapping[str, Program], rounds: int) -> dict[str, list[float]]:
    """Seconds of every program, in turn in `rounds` rounds after one round unseen; garbage is collected between them.

    A program that leaves work on a GPU must wait for it itself.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for program in programs.values():
        program()
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, program in programs.items():
                gc.collect()
                start = time.perf_counter()
                program()
                seconds[name].append(time.perf_counter() - start)
    finally:
        if collecting:
            gc.enable()
    return seconds


def timed(measurement: Measurement, rounds: int) -> dict[str, Any]:
    """Both programs in turn, `rounds` times after one round unseen: all seconds, medians, minima and their ratios."""
    programs = dict((measurement.numerator, measurement.denominator))
    seconds = interleaved(programs, rounds)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    minimum = {name: min(values) for name, values in seconds.items()}
    over, under = programs
    return {
        "name": measurement.name,
        "what": measurement.what,
        "numerator": over,
        "denominator": under,
        "seconds": seconds,
        "median": median,
        "minimum": minimum,
        "ratio_of_medians": median[over] / median[under],
        "ratio_of_minima": minimum[over] / minimum[under],
        "limit": measurement.limit,
    }


def table(found: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Ratios with their limits, one row a measurement."""
    return pd.DataFrame(
        {
            "measurement": one["name"],
            "ratio": one["what"],
            "of medians": f"{one['ratio_of_medians']:.3f}",
            "of minima": f"{one['ratio_of_minima']:.3f}",
            "limit": f"{one['limit']:.3f}",
            "medians within": "yes" if one["ratio_of_medians"] <= one["limit"] else "no",
        }
        for one in found
    )
