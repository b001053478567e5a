"""Widths from a wanted clip rate: by bisection on recorded responses, or by the normal tail."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

from suite.types import UserError

NARROWEST = 1e-6  # relative width of a bracket that holds nothing but a jump of the measured rate


def width_for_rate(sigma: float, rate: float) -> float:
    """FSPO's width c for a wanted outside-band share, in nats per square root of a token.

        c = sigma Phi^-1(1 - rate / 2)

    for Gaussian S with variance L sigma^2, centred on the drift, both sides alike. Raises ValueError unless
    sigma > 0 and 0 < rate < 1.

    >>> round(width_for_rate(0.02, 0.1336), 4)
    0.03

    Source: ours.
    """
    if not (sigma > 0 and 0 < rate < 1):
        raise ValueError(f"sigma {sigma} must be positive and rate {rate} between 0 and 1")
    return sigma * NormalDist().inv_cdf(1 - rate / 2)


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
