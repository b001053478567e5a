"""Independent oracles: each method's equation as loops over plain Python floats, without torch.

A method's module has `response(row, hyper, state) -> Response`, `DIVISOR` and `credit(...)`. What is common to all
(summing a step, dividing once, finite differences) lives here. Slow on purpose, and shares no line with the code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Floats = Sequence[float]
State = Mapping[str, float]


@dataclass(frozen=True)
class Row:
    """One padded response: T numbers a column (advantages: one or T). Padding is never read."""

    log_probs: Floats
    old_log_probs: Floats
    advantages: Floats
    mask: Sequence[bool]
    values: Floats | None = None
    old_values: Floats | None = None
    returns: Floats | None = None


@dataclass(frozen=True)
class Response:
    """What the equation says of one response: the weights and flags are lists of one (sequence) or T (tokens).

    `margin` is the distance of the nearest log weight to a kink of the objective (inf when there is none).
    """

    objective: float
    unclipped: float
    log_weight: list[float]
    outside: list[bool]
    clipped: list[bool]
    margin: float


Rule = Callable[[Row, Any, State], Response]


def counted(mask: Sequence[bool]) -> list[int]:
    """Positions that count."""
    return [t for t in range(len(mask)) if mask[t]]


def log_ratio_sum(row: Row) -> float:
    """S = sum over counted tokens of (new - old) log-probability."""
    return math.fsum(row.log_probs[t] - row.old_log_probs[t] for t in counted(row.mask))


def exp(x: float) -> float:
    """e^x, infinite where a double overflows."""
    return math.exp(x) if x < 709.0 else math.inf


def log(x: float) -> float:
    """ln x, minus infinity for x <= 0 (a lower clip of one or more never binds)."""
    return math.log(x) if x > 0 else -math.inf


def times(weight: float, advantage: float) -> float:
    """weight * advantage, with infinity * 0 = 0: a response without advantage teaches nothing."""
    return 0.0 if advantage == 0 else weight * advantage


def pessimistic(x: float, low: float, high: float, dual: float | None, advantage: float) -> float:
    """min(e^x A, e^clip(x, low, high) A); for A < 0 never below e^dual A. All edges in log space."""
    value = min(times(exp(x), advantage), times(exp(min(max(x, low), high)), advantage))
    if dual is not None and advantage < 0:
        value = max(value, exp(dual) * advantage)
    return value


def flags(x: float, low: float, high: float, dual: float | None, advantage: float) -> tuple[bool, bool]:
    """(left the band, gradient cut there): the min is active above for A > 0 and below for A < 0."""
    cut = (advantage > 0 and x > high) or (advantage < 0 and x < low)
    cut = cut or (dual is not None and advantage < 0 and x > dual)
    return x < low or x > high, cut


def distance_to_kink(x: float, low: float, high: float, dual: float | None) -> float:
    """How far x is from the nearest edge."""
    return min(abs(x - edge) for edge in (low, high, *([] if dual is None else [dual])))


def step_loss(rule: Rule, divisor: str, rows: Sequence[Row], hyper: Any, state: State) -> float:
    """The loss of one optimizer step: minus the summed objectives over the step-wide count."""
    count = len(rows) if divisor == "responses" else sum(len(counted(row.mask)) for row in rows)
    return -math.fsum(rule(row, hyper, state).objective for row in rows) / count


def step_gradient(
    rule: Rule, divisor: str, rows: Sequence[Row], hyper: Any, state: State, h: float = 1e-6
) -> list[list[float]]:
    """d step_loss / d log_probs by central differences; 0 at padding. Exact to about 1e-9 away from kinks."""
    count = len(rows) if divisor == "responses" else sum(len(counted(row.mask)) for row in rows)

    def derivative(row: Row, t: int) -> float:
        sides = []
        for nudge in (h, -h):
            nudged = [p + nudge if k == t else p for k, p in enumerate(row.log_probs)]
            sides.append(rule(replace(row, log_probs=nudged), hyper, state).objective)
        return -(sides[0] - sides[1]) / (2 * h * count)

    return [[derivative(row, t) if row.mask[t] else 0.0 for t in range(len(row.mask))] for row in rows]
