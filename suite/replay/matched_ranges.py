"""Ranges at which methods clip one and the same mean share of recorded responses."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from suite.records.packed import read_updates
from suite.records.update_log import UpdateLog
from suite.replay.one_method import clip_rate
from suite.types import Method, UserError

WIDEST = 1e6
TOLERANCE = 1e-3

NARROWEST = 1e-6
"""Relative width of a bracket that holds nothing but a jump of the measured rate."""
STEP = 4.0
"""By how much the widths grow or shrink while no bracket is known."""


@dataclass(frozen=True)
class Matched:
    """One method's range after matching: the method, what its widths were multiplied by, and the measured share."""

    method: Method
    factor: float
    rate: float

    def changes(self, start: Method) -> list[tuple[str, Any]]:
        """(field, value) of every hyper-parameter that the scaling changed."""
        names = [field.name for field in dataclasses.fields(self.method.hyper)]
        pairs = [(name, getattr(self.method.hyper, name)) for name in names]
        return [(name, value) for name, value in pairs if value != getattr(start.hyper, name)]


def recorded_updates(cells: Sequence[Path]) -> UpdateLog:
    """What every optimizer step of the cells saw, each row labelled with its cell's folder name.

    UserError where a cell holds no update log.
    """
    return UpdateLog.concat([read_updates(cell).labelled(cell.name) for cell in cells])


def common_rate(methods: Mapping[str, Method], log: UpdateLog, reference: str | None) -> float:
    """The clipped share that ranges are matched to: the reference's where it takes part, else the median."""
    if reference is not None and reference in methods:
        return clip_rate(methods[reference], log, {})
    return float(np.median([clip_rate(method, log, {}) for method in methods.values()]))


def matched_ranges(
    methods: Mapping[str, Method], log: UpdateLog, rate: float
) -> tuple[dict[str, Matched], dict[str, str]]:
    """(methods whose widths were scaled until they clip `rate` of the log's responses, for every other one why not).

    The share is that of `suite.replay.one_method.clip_rate`: over responses with a gradient, the first update left out.
    """
    found, reasons = {}, {}
    for name, method in methods.items():
        try:
            point = matching_point(
                lambda k, method=method: clip_rate(method.scaled(k), log, {}),
                rate,
                lower=1 / WIDEST,
                upper=WIDEST,
                tolerance=TOLERANCE,
            )
        except UserError as reason:
            reasons[name] = str(reason)
        else:
            found[name] = Matched(method.scaled(point.factor), point.factor, point.rate)
    return found, reasons


@dataclass(frozen=True)
class Point:
    """A factor on the widths, and the clipped share that was measured with it."""

    factor: float
    rate: float

    @classmethod
    def at(cls, measure: Callable[[float], float], factor: float) -> Self:
        """Measured there; UserError where no response has a gradient."""
        rate = measure(factor)
        if math.isnan(rate):
            raise UserError("clip rate cannot be matched: no recorded response has a gradient; record more steps")
        return cls(factor, rate)


def _bracket(
    measure: Callable[[float], float], target: float, lower: float, upper: float, tolerance: float
) -> tuple[Point, Point]:
    """Two points of [lower, upper], the narrower first, between which the target lies; twice one that has it."""
    point = Point.at(measure, min(max(1.0, lower), upper))
    too_narrow, end = point.rate > target, upper if point.rate > target else lower
    step = STEP if too_narrow else 1 / STEP
    while abs(point.rate - target) > tolerance:
        if point.factor == end:
            other = Point.at(measure, lower if too_narrow else upper)
            narrow, wide = (other, point) if too_narrow else (point, other)
            raise UserError(
                f"clip rate {target:.4g} is out of reach: widths times {lower:g} to {upper:g} give {narrow.rate:.4g} "
                f"to {wide.rate:.4g}; choose a target between them"
            )
        before, point = point, Point.at(measure, min(max(point.factor * step, lower), upper))
        if (point.rate > target) != too_narrow and abs(point.rate - target) > tolerance:
            return (before, point) if too_narrow else (point, before)
    return point, point


def matching_point(
    measure: Callable[[float], float], target: float, *, lower: float, upper: float, tolerance: float
) -> Point:
    """The factor k in [lower, upper] on a method's clip widths at which its mean clipped share is the target.

    Returned with the share that was measured there. `measure(k)` must fall or stay as k grows. From k = 1 the search
    steps out by powers of 4 until the target is bracketed, then closes the bracket in log k, by secants and, where
    they are slow, by halves. The share of finitely many responses moves in jumps: where one jump passes over the
    target by more than the tolerance, the side of the jump that is nearer is returned. Raises UserError where the
    target lies beyond both ends of the range.

    >>> point = matching_point(lambda k: 1 / (1 + k), 0.2, lower=0.1, upper=100, tolerance=1e-6)
    >>> round(point.factor, 3), round(point.rate, 3)
    (4.0, 0.2)

    Source: ours.
    """
    if not 0 < lower < upper:
        raise ValueError(f"0 < lower < upper is needed, not {lower} and {upper}")
    narrow, wide = _bracket(measure, target, lower, upper, tolerance)
    halve = False
    while wide.factor > narrow.factor * (1 + NARROWEST):
        nearest = min((narrow, wide), key=lambda point: abs(point.rate - target))
        if abs(nearest.rate - target) <= tolerance:
            return nearest
        share = 0.5 if halve else (narrow.rate - target) / (narrow.rate - wide.rate)
        share = min(max(share, 0.02), 0.98)
        between = Point.at(measure, narrow.factor * (wide.factor / narrow.factor) ** share)
        width = math.log(wide.factor / narrow.factor)
        narrow, wide = (between, wide) if between.rate > target else (narrow, between)
        halve = math.log(wide.factor / narrow.factor) > width / 2
    return min((narrow, wide), key=lambda point: abs(point.rate - target))
