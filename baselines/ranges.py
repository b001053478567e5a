"""The ratio band [1 - clip_low, 1 + clip_high] that PPO's descendants share, with its checks."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Self

from suite.types import UserError


def require(condition: bool, owner: object, field: str, demand: str) -> None:
    """Raise a UserError that names the hyper-parameter, its value and what it must be."""
    if not condition:
        raise UserError(f"{type(owner).__name__}.{field} = {getattr(owner, field)!r}: must be {demand}")


@dataclass(frozen=True)
class RatioBand:
    """Hyper-parameters of a band on a probability ratio; subclasses set the widths and where they come from."""

    clip_low: float
    clip_high: float

    def __post_init__(self) -> None:
        require(0 < self.clip_low < 1, self, "clip_low", "between 0 and 1 (the ratio's lower bound is 1 - clip_low)")
        require(0 < self.clip_high < math.inf, self, "clip_high", "positive (the upper bound is 1 + clip_high)")

    @property
    def log_low(self) -> float:
        """Lower edge of the band on the log ratio, in nats: log(1 - clip_low)."""
        return math.log1p(-self.clip_low)

    @property
    def log_high(self) -> float:
        """Upper edge of the band on the log ratio, in nats: log(1 + clip_high)."""
        return math.log1p(self.clip_high)

    def scaled(self, factor: float) -> Self:
        """The band with both edges multiplied by `factor` in log space; a lower bound of exactly 0 is never reached."""
        low = min(-math.expm1(factor * self.log_low), math.nextafter(1.0, 0.0))
        high = math.expm1(min(factor * self.log_high, 700.0))
        return dataclasses.replace(self, clip_low=low, clip_high=high)
