"""Independent oracles: each method's equation as loops over plain Python floats, without torch.

A method's module has `response(row, hyper, state) -> Response`, `DIVISOR` and `credit(...)`. What is common to all
(summing a step, dividing once, finite differences) lives here. Slow on purpose, and shares no line with the code.

A method with stop-gradients has `response(row, hyper, state, frozen=None)`: whatever stands inside sg[...] is computed
from `frozen` (None: from the row itself). Finite differences move the row and leave `frozen` where it was.
"""

from __future__ import annotations

import inspect
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

    `margin` is the distance of the nearest log weight to a kink of the objective, or to where a frozen mask or weight
    changes its rule (inf when there is none). A response without counted tokens has no flag and no kink.
    """

    objective: float
    unclipped: float
    log_weight: list[float]
    outside: list[bool]
    clipped: list[bool]
    margin: float


@dataclass(frozen=True)
class Term:
    """What the equation says of one weight, be it of a token or of a whole response."""

    log_weight: float
    objective: float
    unclipped: float
    outside: bool = False
    clipped: bool = False
    margin: float = math.inf


Rule = Callable[..., Response]
"""(row, hyper, state) or (row, hyper, state, frozen) -> Response."""


def counted(mask: Sequence[bool]) -> list[int]:
    """Positions that count."""
    return [t for t in range(len(mask)) if mask[t]]


def log_ratio(row: Row, t: int) -> float:
    """x_t = new - old log-probability."""
    return row.log_probs[t] - row.old_log_probs[t]


def log_ratio_sum(row: Row) -> float:
    """S = sum over counted tokens of x_t."""
    return math.fsum(log_ratio(row, t) for t in counted(row.mask))


def log_ratio_mean(row: Row) -> float:
    """S / L, 0 without counted tokens."""
    length = len(counted(row.mask))
    return log_ratio_sum(row) / length if length else 0.0


def log_prob_sum(row: Row) -> float:
    """log pi(y) = sum over counted tokens of the new log-probability."""
    return math.fsum(row.log_probs[t] for t in counted(row.mask))


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


def clip_term(x: float, low: float, high: float, dual: float | None, advantage: float) -> Term:
    """The pessimistic objective of one log weight, with its flags."""
    outside, clipped = flags(x, low, high, dual, advantage)
    return Term(
        log_weight=x,
        objective=pessimistic(x, low, high, dual, advantage),
        unclipped=times(exp(x), advantage),
        outside=outside,
        clipped=clipped,
        margin=distance_to_kink(x, low, high, dual),
    )


def of_sequence(row: Row, term: Term) -> Response:
    """A response judged by one weight: lists of one."""
    margin = term.margin if counted(row.mask) else math.inf
    return Response(term.objective, term.unclipped, [term.log_weight], [term.outside], [term.clipped], margin)


def of_tokens(row: Row, terms: Mapping[int, Term]) -> Response:
    """The sum over a response's counted tokens: lists of T, with 0 and False at padding."""
    width = len(row.mask)
    weight, outside, clipped = [0.0] * width, [False] * width, [False] * width
    for t, term in terms.items():
        weight[t], outside[t], clipped[t] = term.log_weight, term.outside, term.clipped
    return Response(
        objective=math.fsum(term.objective for term in terms.values()),
        unclipped=math.fsum(term.unclipped for term in terms.values()),
        log_weight=weight,
        outside=outside,
        clipped=clipped,
        margin=min((term.margin for term in terms.values()), default=math.inf),
    )


def per_token(row: Row, found: Response) -> Response:
    """The response's number divided by L, 0 without counted tokens."""
    length = len(counted(row.mask))
    if length == 0:
        return replace(found, objective=0.0, unclipped=0.0)
    return replace(found, objective=found.objective / length, unclipped=found.unclipped / length)


def step_count(divisor: str, rows: Sequence[Row], max_new_tokens: int) -> int:
    """What the summed objectives of one optimizer step are divided by; at least 1."""
    if divisor == "responses":
        count = len(rows)
    elif divisor == "tokens":
        count = sum(len(counted(row.mask)) for row in rows)
    elif divisor == "constant":
        count = len(rows) * max_new_tokens
    else:
        raise ValueError(f"unknown divisor: {divisor}")
    return max(count, 1)


def step_loss(
    rule: Rule, divisor: str, rows: Sequence[Row], hyper: Any, state: State, *, max_new_tokens: int = 16
) -> float:
    """The loss of one optimizer step: minus the summed objectives over the step-wide count."""
    count = step_count(divisor, rows, max_new_tokens)
    return -math.fsum(rule(row, hyper, state).objective for row in rows) / count


def step_gradient(
    rule: Rule,
    divisor: str,
    rows: Sequence[Row],
    hyper: Any,
    state: State,
    h: float = 1e-6,
    *,
    max_new_tokens: int = 16,
) -> list[list[float]]:
    """d step_loss / d log_probs by central differences; 0 at padding. Exact to about 1e-9 away from kinks.

    A rule with stop-gradients gets the row before the nudge as `frozen`.
    """
    count = step_count(divisor, rows, max_new_tokens)
    stops = "frozen" in inspect.signature(rule).parameters

    def derivative(row: Row, t: int) -> float:
        sides = []
        for nudge in (h, -h):
            nudged = replace(row, log_probs=[p + nudge if k == t else p for k, p in enumerate(row.log_probs)])
            found = rule(nudged, hyper, state, frozen=row) if stops else rule(nudged, hyper, state)
            sides.append(found.objective)
        return -(sides[0] - sides[1]) / (2 * h * count)

    return [[derivative(row, t) if row.mask[t] else 0.0 for t in range(len(row.mask))] for row in rows]
