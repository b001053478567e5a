"""Ranges at which methods clip one and the same mean share of recorded responses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fspo.calibration import match_clip_rate
from suite.replay import UpdateLog, clip_rate
from suite.types import Method, UserError

WIDEST = 1e6
TOLERANCE = 1e-3


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
    logs = []
    for cell in cells:
        paths = sorted((cell / "updates").glob("step-*.safetensors"))
        if not paths:
            raise UserError(f"{cell}: no recorded updates; give the --out folder of a finished fspo compare")
        logs += [UpdateLog.load(path).labelled(cell.name) for path in paths]
    return UpdateLog.concat(logs)


def common_rate(methods: Mapping[str, Method], log: UpdateLog) -> float:
    """The clipped share that ranges are matched to: FSPO's own where it takes part, else the methods' median."""
    rates = {name: clip_rate(method, log, {}) for name, method in methods.items()}
    return rates.get("fspo", float(np.median(list(rates.values()))))


def matched_ranges(
    methods: Mapping[str, Method], log: UpdateLog, rate: float
) -> tuple[dict[str, Matched], dict[str, str]]:
    """(methods whose widths were scaled until they clip `rate` of the log's responses, for every other one why not).

    The share is that of `suite.replay.clip_rate`: over responses with a gradient, the first update left out.
    """
    found, reasons = {}, {}
    for name, method in methods.items():
        try:
            factor = match_clip_rate(
                lambda k, method=method: clip_rate(method.scaled(k), log, {}),
                rate, lower=1 / WIDEST, upper=WIDEST, tolerance=TOLERANCE,
            )  # fmt: skip
        except UserError as reason:
            reasons[name] = str(reason)
        else:
            scaled = method.scaled(factor)
            found[name] = Matched(scaled, factor, clip_rate(scaled, log, {}))
    return found, reasons
