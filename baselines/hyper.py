"""What the methods' hyper-parameters are made of: bands, standardised rewards, and checks that name the culprit."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Self

from suite.types import knob, require

LARGEST_LOG = 700.0
"""Beyond it e^x overflows a double; a band this wide is no band."""


@dataclass(frozen=True)
class Hyper:
    """Frozen hyper-parameters. Every class in the line of inheritance checks its own fields in `check`."""

    def __post_init__(self) -> None:
        for owner in reversed(type(self).__mro__):
            if check := vars(owner).get("check"):
                check(self)


@dataclass(frozen=True)
class RatioBand(Hyper):
    """A band on a probability ratio, [1 - clip_low, 1 + clip_high]."""

    clip_low: float
    clip_high: float

    def check(self) -> None:
        """Both widths positive, the lower bound of the ratio above 0."""
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
        return dataclasses.replace(self, **self._edges(factor))

    def _edges(self, factor: float) -> dict[str, float]:
        low = min(-math.expm1(factor * self.log_low), math.nextafter(1.0, 0.0))
        return {"clip_low": low, "clip_high": math.expm1(min(factor * self.log_high, LARGEST_LOG))}


@dataclass(frozen=True)
class DualRatioBand(RatioBand):
    """A ratio band with an optional bound on the ratio of tokens with A < 0 (dual clip, arXiv 1912.09729)."""

    dual_clip: float | None

    def check(self) -> None:
        """The dual bound lies above the band."""
        require(self.dual_clip is None or self.dual_clip > 1 + self.clip_high, self, "dual_clip", "above 1 + clip_high")

    @property
    def log_dual(self) -> float | None:
        """The dual bound on the log ratio, in nats; None when it is off."""
        return None if self.dual_clip is None else math.log(self.dual_clip)

    def scaled(self, factor: float) -> Self:
        """The band and the dual bound, multiplied by `factor` in log space."""
        dual = None if self.log_dual is None else math.exp(min(factor * self.log_dual, LARGEST_LOG + 1))
        return dataclasses.replace(self, **self._edges(factor), dual_clip=dual)


@dataclass(frozen=True)
class RootBand(Hyper):
    """A band on a log ratio with edges `-c_low` and `c_high` times (or divided by) a root of a number of tokens."""

    c_low: float
    c_high: float

    def check(self) -> None:
        """Both widths positive."""
        require(0 < self.c_low < math.inf, self, "c_low", "positive")
        require(0 < self.c_high < math.inf, self, "c_high", "positive")

    def scaled(self, factor: float) -> Self:
        """The band with its widths multiplied by `factor`."""
        return dataclasses.replace(self, c_low=self.c_low * factor, c_high=self.c_high * factor)


@dataclass(frozen=True, kw_only=True)
class GroupStd(Hyper):
    """How rewards are standardised within their group; no paper states either number."""

    std_ddof: int = knob(1, "not stated; torch's default in TRL and verl")
    std_eps: float = knob(1e-4, "not stated; TRL")

    def check(self) -> None:
        """ddof 0 or 1, eps 0 or more."""
        require(self.std_ddof in (0, 1), self, "std_ddof", "0 or 1")
        require(self.std_eps >= 0, self, "std_eps", "0 or more")
