"""The arena: methods on one set of recorded updates, at their own ranges and at ranges matched to one clip rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from suite.records.update_log import UpdateLog
from suite.replay.fairness import clip_by_length, fairness_summary
from suite.replay.gradient_shares import clip_overlap, clip_overlap_by_length, response_gradients, weight_summary
from suite.replay.growth import SIGNS, growth_by_length, growth_by_update, growth_summary, quantile_table
from suite.replay.matched_ranges import Matched, common_rate, matched_ranges
from suite.replay.one_method import replay
from suite.replay.resampling import power_edges, quantile_edges, without_truncated
from suite.replay.simulation import twins
from suite.types import Growth, Level, Method, UserError

SEED = 0
"""Of every bootstrap: the same records give the same bytes."""

NO_CLIP_ACTS = "at the first update every ratio is 1, so no clip acts"
NOTHING_ACCEPTED = "where every response is clipped, no length is accepted more often than another"
MORE_UPDATES = "record with more updates a rollout (TRL: a larger num_iterations or steps_per_generation)"

OWN = "default, own cells"
BINS = 6


@dataclass(frozen=True)
class Arena:
    """Methods on one update log, computed on demand. `rate` None matches ranges to the clip rate
    of the method named `reference`, or to the median where it does not take part.

    UserError for a log without a second update of a rollout."""

    methods: Mapping[str, Method]
    log: UpdateLog
    rate: float | None = None
    reference: str | None = None

    def __post_init__(self) -> None:
        if not self.log.ratios_moved:
            raise UserError(f"these records hold no second update of a rollout: {NO_CLIP_ACTS}; {MORE_UPDATES}")

    @cached_property
    def target(self) -> float:
        """Mean clipped share that ranges are matched to."""
        return common_rate(self.methods, self.log, self.reference) if self.rate is None else self.rate

    @cached_property
    def matching(self) -> tuple[dict[str, Matched], dict[str, str]]:
        """The methods at matched ranges, and for every other one why there is none."""
        if self.target >= 1:
            return {}, dict.fromkeys(self.methods, NOTHING_ACCEPTED)
        return matched_ranges(self.methods, self.log, self.target)

    @property
    def matched(self) -> dict[str, Method]:
        """The methods with ranges scaled so that all clip the same mean share of the same responses."""
        return {name: one.method for name, one in self.matching[0].items()}

    @cached_property
    def frames(self) -> dict[tuple[str, str], pd.DataFrame]:
        """One row a response, by (method, range), ranges `default` and `matched`."""
        default = {name: replay(method, self.log, {}) for name, method in self.methods.items()}
        matched = {
            name: default[name] if method.hyper == self.methods[name].hyper else replay(method, self.log, {})
            for name, method in self.matched.items()
        }
        return {
            (name, span): frame.assign(method=name, range=span)
            for span, frames in (("default", default), ("matched", matched))
            for name, frame in frames.items()
        }

    @cached_property
    def responses(self) -> pd.DataFrame:
        """All frames; where every method trained cells of this log, those apart as a last range."""
        own = [self.frames[name, "default"] for name in self.methods]
        own = [frame[frame["cell"].str.startswith(f"{frame['method'].iloc[0]}-seed")] for frame in own]
        extra = [frame.assign(range=OWN) for frame in own] if all(map(len, own)) else []
        return pd.concat([*self.frames.values(), *extra], ignore_index=True)

    @cached_property
    def edges(self) -> np.ndarray:
        """Length bins of about equally many responses, the same for every method, sign and table."""
        finished = without_truncated(self.pooled)
        return quantile_edges((self.pooled if finished.empty else finished)["length"].to_numpy(), BINS)

    @cached_property
    def by_length(self) -> pd.DataFrame:
        """Clip shares by length bin."""
        return clip_by_length(self.responses, rng=np.random.default_rng(SEED), edges=self.edges)

    @cached_property
    def by_length_and_sign(self) -> pd.DataFrame:
        """`by_length` with quantile bins and with powers of two, for both signs of the advantage and for each apart."""
        views = {"quantiles": self.edges, "powers of two": power_edges(int(self.log.lengths.max()))}
        tables = []
        for bins, edges in views.items():
            for sign, value in SIGNS.items():
                kept = np.ones(len(self.responses), bool) if value is None else self.responses["sign"] == value
                if not kept.any():
                    continue
                part = self.responses.take(np.flatnonzero(kept))
                found = clip_by_length(part, rng=np.random.default_rng(SEED), edges=edges)
                found.insert(2, "bins", bins)
                found.insert(3, "sign", sign)
                tables.append(found)
        return pd.concat(tables, ignore_index=True)

    @cached_property
    def fairness(self) -> pd.DataFrame:
        """Clip rates, their slopes in length and LRE, one row per method and range; `band`: whether it has one."""
        found = fairness_summary(self.responses, rng=np.random.default_rng(SEED), edges=self.edges)
        return found.assign(band=[self.methods[name].growth != Growth.NONE for name in found["method"]])

    @cached_property
    def predicted(self) -> pd.DataFrame:
        """Outside-band shares by length beside what the normal tail predicts: method, range, bin, ..., predicted.

        For methods of sequence ratios. The prediction is the method's own share on Gaussian twins of the log, with
        drift and sigma of every update as measured: where it differs, S is not what the theory says.
        """
        copies = twins(self.log, self.growth_by_update, np.random.default_rng(SEED))
        kinds = {"default": self.methods, "matched": self.matched}
        frames = [
            replay(method, copy, {}).assign(method=name, range=span)
            for span, methods in kinds.items()
            for name, method in methods.items()
            if method.level == Level.SEQUENCE and method.growth != Growth.NONE
            for copy in copies
        ]
        if not frames:
            return pd.DataFrame()
        twin = clip_by_length(
            pd.concat(frames), rng=np.random.default_rng(SEED), edges=self.edges, repetitions=0
        ).rename(columns={"outside_band": "predicted", "clipped": "predicted_clipped"})
        keys = ["method", "range", "bin"]
        measured = ["mean_length", "responses", "outside_band", "outside_band_low", "outside_band_high", "clipped"]
        return self.by_length[[*keys, "truncated", *measured]].merge(
            twin[[*keys, "predicted", "predicted_clipped"]], on=keys
        )

    @cached_property
    def weights(self) -> pd.DataFrame:
        """Importance weights, effective sample sizes and shares of the gradient, by method, sign and length."""
        frames = {name: response_gradients(method, self.log, {}) for name, method in self.methods.items()}
        found = {name: weight_summary(frame, self.edges) for name, frame in frames.items()}
        return pd.concat(found, names=["method"]).reset_index(level=0)

    @cached_property
    def overlaps(self) -> pd.DataFrame:
        """Jaccard index of the responses that two methods clip, at matched ranges."""
        return clip_overlap(self._matched_frames)

    @cached_property
    def overlaps_by_length(self) -> pd.DataFrame:
        """The same within every sign and length bin, for every pair of methods."""
        return clip_overlap_by_length(self._matched_frames, self.edges)

    @property
    def _matched_frames(self) -> dict[str, pd.DataFrame]:
        return {name: frame for (name, span), frame in self.frames.items() if span == "matched"}

    def tables(self) -> dict[str, pd.DataFrame]:
        """What a replay writes, by file name."""
        return {
            "clip_by_length": self.by_length,
            "clip_by_length_and_sign": self.by_length_and_sign,
            "fairness": self.fairness,
            "weights": self.weights,
            "overlap": self.overlaps.reset_index(names="method"),
            "overlap_by_length": self.overlaps_by_length,
        }

    @property
    def pooled(self) -> pd.DataFrame:
        """One row a response, whatever the method: lengths, signs and S."""
        return next(iter(self.frames.values()))

    @cached_property
    def growth(self) -> pd.DataFrame:
        """How mean and variance of S grow with length."""
        return growth_summary(self.pooled, rng=np.random.default_rng(SEED))

    @cached_property
    def growth_by_update(self) -> pd.DataFrame:
        """Drift and sigma of every optimizer step of a rollout."""
        return growth_by_update(self.pooled, rng=np.random.default_rng(SEED))

    @cached_property
    def growth_bins(self) -> pd.DataFrame:
        """Moments of S by length bin and sign of the advantage."""
        return growth_by_length(self.pooled, edges=self.edges)

    @cached_property
    def quantiles(self) -> pd.DataFrame:
        """QQ plots of S against the normal, by sign of the advantage and by length bin."""
        return quantile_table(self.pooled, edges=self.edges)
