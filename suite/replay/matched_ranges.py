"""Ranges at which methods clip one and the same mean share of recorded responses, by bisection."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from suite.records.packed import read_updates
from suite.records.update_log import UpdateLog
from suite.replay.one_method import clip_rate
from suite.types import Method, UserError

WIDEST = 1e6
TOLERANCE = 1e-3

NARROWEST = 1e-6  # relative width of a bracket that holds nothing but a jump of the measured rate


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
    rates = {name: clip_rate(method, log, {}) for name, method in methods.items()}
    return rates.get(reference or "", float(np.median(list(rates.values()))))


def matched_ranges(
    methods: Mapping[str, Method], log: UpdateLog, rate: float
) -> tuple[dict[str, Matched], dict[str, str]]:
    """(methods whose widths were scaled until they clip `rate` of the log's responses, for every other one why not).

    The share is that of `suite.replay.one_method.clip_rate`: over responses with a gradient, the first update left out.
    """
    found, reasons = {}, {}
    for name, method in methods.items():
        try:
            factor = match_clip_rate(
                lambda k, method=method: clip_rate(method.scaled(k), log, {}),
                rate,
                lower=1 / WIDEST,
                upper=WIDEST,
                tolerance=TOLERANCE,
            )
        except UserError as reason:
            reasons[name] = str(reason)
        else:
            scaled = method.scaled(factor)
            found[name] = Matched(scaled, factor, clip_rate(scaled, log, {}))
    return found, reasons


def match_clip_rate(
    measure: Callable[[float], float], target: float, *, lower: float, upper: float, tolerance: float
) -> float:
    """The factor k in [lower, upper] on a method's clip widths at which its mean clipped share is the target.

    Bisection in log k; `measure(k)` must fall or stay as k grows. The share of finitely many responses moves in jumps:
    where one jump passes over the target by more than the tolerance, the side of the jump that is nearer is returned,
    so print the measured share beside the target. Raises UserError where the target lies beyond both ends of the range.

    >>> round(match_clip_rate(lambda k: 1 / (1 + k), 0.2, lower=0.1, upper=100, tolerance=1e-6), 3)
    4.0

    Source: ours.
    """
    if not 0 < lower < upper:
        raise ValueError(f"0 < lower < upper is needed, not {lower} and {upper}")
    rates = {lower: measure(lower), upper: measure(upper)}
    if any(math.isnan(rate) for rate in rates.values()):
        raise UserError("clip rate cannot be matched: no recorded response has a gradient; record more steps")
    if not rates[upper] - tolerance <= target <= rates[lower] + tolerance:
        raise UserError(
            f"clip rate {target:.4g} is out of reach: widths times {lower:g} to {upper:g} give {rates[lower]:.4g} to "
            f"{rates[upper]:.4g}; choose a target between them"
        )
    for factor in (lower, upper):
        if abs(rates[factor] - target) <= tolerance:
            return factor
    while upper > lower * (1 + NARROWEST):
        middle = math.sqrt(lower * upper)
        rates[middle] = measure(middle)
        if abs(rates[middle] - target) <= tolerance:
            return middle
        lower, upper = (middle, upper) if rates[middle] > target else (lower, middle)
    return min((lower, upper), key=lambda factor: abs(rates[factor] - target))
