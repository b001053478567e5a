"""The arena: methods on one set of recorded updates, at their own ranges and at ranges matched to one clip rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from fspo.fairness import clip_by_length, fairness_summary
from fspo.growth import growth_by_length, growth_summary
from suite.matching import Matched, common_rate, matched_ranges
from suite.replay import UpdateLog, replay
from suite.types import Method

SEED = 0
"""Of every bootstrap: the same records give the same bytes."""

OWN = "default, own cells"


@dataclass(frozen=True)
class Arena:
    """Methods on one update log, computed on demand. `rate` None matches ranges to FSPO's own clip rate."""

    methods: Mapping[str, Method]
    log: UpdateLog
    rate: float | None = None

    @cached_property
    def target(self) -> float:
        """Mean clipped share that ranges are matched to."""
        return common_rate(self.methods, self.log) if self.rate is None else self.rate

    @cached_property
    def matching(self) -> tuple[dict[str, Matched], dict[str, str]]:
        """The methods at matched ranges, and for every other one why there is none."""
        return matched_ranges(self.methods, self.log, self.target)

    @property
    def matched(self) -> dict[str, Method]:
        """The methods with ranges scaled so that all clip the same mean share of the same responses."""
        return {name: one.method for name, one in self.matching[0].items()}

    @cached_property
    def frames(self) -> dict[tuple[str, str], pd.DataFrame]:
        """One row a response, by (method, range), ranges `default` and `matched`."""
        return {
            (name, span): replay(method, self.log, {}).assign(method=name, range=span)
            for span, methods in (("default", self.methods), ("matched", self.matched))
            for name, method in methods.items()
        }

    @cached_property
    def responses(self) -> pd.DataFrame:
        """All frames; where every method trained cells of this log, those apart as a last range."""
        own = [self.frames[name, "default"] for name in self.methods]
        own = [frame[frame["cell"].str.startswith(f"{frame['method'].iloc[0]}-seed")] for frame in own]
        extra = [frame.assign(range=OWN) for frame in own] if all(map(len, own)) else []
        return pd.concat([*self.frames.values(), *extra], ignore_index=True)

    @cached_property
    def by_length(self) -> pd.DataFrame:
        """Clip shares by length bin."""
        return clip_by_length(self.responses, rng=np.random.default_rng(SEED))

    @cached_property
    def fairness(self) -> pd.DataFrame:
        """Clip rates, their slopes in length and LRE, one row per method and range."""
        return fairness_summary(self.responses, rng=np.random.default_rng(SEED))

    @property
    def pooled(self) -> pd.DataFrame:
        """One row a response, whatever the method: lengths, signs and S."""
        return next(iter(self.frames.values()))

    @cached_property
    def growth(self) -> pd.DataFrame:
        """How mean and variance of S grow with length."""
        return growth_summary(self.pooled, rng=np.random.default_rng(SEED))

    @cached_property
    def growth_bins(self) -> pd.DataFrame:
        """Moments of S by length bin and sign of the advantage."""
        return growth_by_length(self.pooled)
