"""Properties of the band: how it grows with length, and that a band wide enough is no band."""

from __future__ import annotations

import math

import torch

from suite.methods.conformance.violation import Violation, same, trials
from suite.methods.trial_batches import batch_from_log_ratios, gradient, judged
from suite.types import Growth, Method, PolicyBatch

LENGTHS = (1, 4, 16, 64, 256)
FAR = 60.0
"""Nats; a band that ends beyond is taken as open on that side."""
EXPONENTS = {Growth.CONSTANT: 0.0, Growth.ROOT: 0.5, Growth.LINEAR: 1.0}


def last_token(method: Method, length: int, x: float) -> PolicyBatch:
    """One response with A = 1 whose whole log ratio x sits in its last token; old log-probabilities of -1."""
    ratios = torch.zeros(1, length, dtype=torch.float64)
    ratios[0, -1] = x
    width = length if "values" in method.needs else 1
    return batch_from_log_ratios(ratios, torch.ones(1, width, dtype=torch.float64), old=-1.0)


def edge(method: Method, length: int, side: int) -> float:
    """Where `outside_band` goes up, in nats from 0 on one side (+1 above, -1 below); infinite where it never does."""

    def outside(x: float) -> bool:
        return bool(judged(method, last_token(method, length, side * x)).outside_band.any())

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
    """The band on the log ratio widens with the number of tokens as the method's card says, on both sides."""
    for side, name in ((1, "upper"), (-1, "lower")):
        edges = {length: edge(method, length, side) for length in LENGTHS}
        shown = ", ".join(f"{length}: {x:.4g}" for length, x in edges.items())
        if method.growth == Growth.NONE:
            if any(map(math.isfinite, edges.values())):
                raise Violation(f"the card says there is no band, yet the {name} edge at L = {shown}")
            continue
        for length, x in edges.items():
            expected = edges[1] * length ** EXPONENTS[method.growth]
            if x != expected and abs(x - expected) > 1e-6 * expected:
                raise Violation(
                    f"the card says the band grows as {method.growth}, but the {name} edge of the log ratio is at "
                    f"{shown} (by L)",
                    last_token(method, length, side * x),
                )


def wide_band(method: Method) -> None:
    """A million times the range is no range: no flag, the unclipped objective and gradient. Needs `hyper.scaled`."""
    if method.growth == Growth.NONE:
        return
    free = method.scaled(1e6)
    for batch in trials(method):
        found = judged(free, batch)
        if found.outside_band.any() or found.clipped.any():
            raise Violation("a flag is up with a million times the range: does hyper.scaled widen every bound?", batch)
        if not same(found.objective, found.unclipped):
            raise Violation("with a million times the range objective and unclipped still differ", batch)
        if not same(gradient(free, batch), gradient(free, batch, column="unclipped")):
            raise Violation("with a million times the range the gradient is not the unclipped one", batch)


CHECKS = {"growth of the band with length": growth, "a band wide enough is no band": wide_band}
