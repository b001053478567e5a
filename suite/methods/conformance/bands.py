"""Properties of the band: how it grows with length, and that a band wide enough is no band."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from suite.methods.conformance.violation import DoesNotApply, Violation, same, trials
from suite.methods.trial_batches import batch_from_log_ratios, gradient, judged, other_settings
from suite.types import Growth, Method, PolicyBatch

LENGTHS = (1, 4, 16, 64, 256)
FAR = 60.0
"""Nats; a band that ends beyond is taken as open on that side."""
EXPONENTS = {Growth.CONSTANT: 0.0, Growth.ROOT: 0.5, Growth.LINEAR: 1.0}


def last_token(method: Method, length: int, x: float, advantage: float = 1.0) -> PolicyBatch:
    """One response whose whole log ratio x sits in its last token; old log-probabilities of -1."""
    ratios = torch.zeros(1, length, dtype=torch.float64)
    ratios[0, -1] = x
    width = length if "values" in method.needs else 1
    return batch_from_log_ratios(ratios, torch.full((1, width), advantage, dtype=torch.float64), old=-1.0)


def edge(method: Method, length: int, side: int, flag: str = "outside_band", advantage: float = 1.0) -> float:
    """Where `flag` goes up, in nats from 0 on one side (+1 above, -1 below); infinite where it never does."""

    def outside(x: float) -> bool:
        return bool(getattr(judged(method, last_token(method, length, side * x, advantage)), flag).any())

    near, far = 0.0, 1e-7
    while not outside(far):
        near, far = far, 1.5 * far
        if near > FAR:
            return math.inf
    for _ in range(60):
        middle = (near + far) / 2
        near, far = (near, middle) if outside(middle) else (middle, far)
    return near


def growth(method: Method) -> None:
    """The band on the log ratio widens with the number of tokens as the method's card says, on both sides, and so does
    the dual ceiling of A < 0, also where it is off by default."""
    _growth_of_edges(method, (("upper edge", 1, "outside_band", 1.0), ("lower edge", -1, "outside_band", 1.0), CEILING))
    for label, changed in other_settings(method):
        _growth_of_edges(changed, (CEILING,), f" (with {label})")


CEILING = ("dual ceiling", 1, "clipped", -1.0)
"""Upwards of the band the clip acts on A < 0 only from a dual ceiling, or a cap, on."""


def _growth_of_edges(method: Method, kinds: Iterable[tuple[str, int, str, float]], where: str = "") -> None:
    for name, side, flag, advantage in kinds:
        edges = {length: edge(method, length, side, flag, advantage) for length in LENGTHS}
        shown = ", ".join(f"{length}: {x:.4g}" for length, x in edges.items())
        if method.growth == Growth.NONE:
            if any(map(math.isfinite, edges.values())):
                raise Violation(f"the card says there is no band, yet the {name} at L = {shown}{where}")
            continue
        for length, x in edges.items():
            expected = edges[1] * length ** EXPONENTS[method.growth]
            if x != expected and abs(x - expected) > 1e-6 * expected:
                raise Violation(
                    f"the card says the band grows as {method.growth}, but the {name} of the log ratio is at "
                    f"{shown} (by L){where}",
                    last_token(method, length, side * x, advantage),
                )


def wide_band(method: Method) -> DoesNotApply | None:
    """A million times the range is no range: no flag, the unclipped objective and gradient. Needs `hyper.scaled`."""
    if method.growth == Growth.NONE:
        return "it has no band"
    free = method.scaled(1e6)
    for batch in trials(method):
        found = judged(free, batch)
        if found.outside_band.any() or found.clipped.any():
            raise Violation("a flag is up with a million times the range: does hyper.scaled widen every bound?", batch)
        if not same(found.objective, found.unclipped):
            raise Violation("with a million times the range objective and unclipped still differ", batch)
        if not same(gradient(free, batch), gradient(free, batch, column="unclipped")):
            raise Violation("with a million times the range the gradient is not the unclipped one", batch)
    return None


CHECKS = {"growth of the band with length": growth, "a band wide enough is no band": wide_band}
