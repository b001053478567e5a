"""FSPO's open questions on one bank, answered by replay: tables and figures. `bank_text` puts them into words."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from suite.experiments.names import METHODS, REFERENCE
from suite.findings.bank_model import BOUND_BINS, LabModel
from suite.records.bank import Bank
from suite.replay.fairness import fairness_summary
from suite.replay.null_update import noise_by_change, noise_clips
from suite.replay.one_method import replay
from suite.replay.replays import SEED, Arena
from suite.replay.resampling import quantile_edges
from suite.replay.update_directions import OWN, cosine_summary, log_prob_bounds, log_prob_cosines
from suite.statistics.frames import select
from suite.types import Method, State

DRAWN = ("rloo", "grpo", "gspo", "ctpo", "fspo")
"""Methods that figures show; the tables have all."""
QUESTIONS: Mapping[str, Mapping[str, dict[str, float | str | None]]] = {
    "the width c": {f"c = {c}": {"c_low": c, "c_high": c} for c in (0.01, 0.02, 0.03, 0.05, 0.1)},
    "the width by a target clip rate": {f"target {p}": {"target_clip_rate": p} for p in (0.05, 0.1, 0.2, 0.4)},
    "the centre mu": {f"mu {mu}": {"drift": mu} for mu in ("kl", "zero", "batch", "ema")},
    "two widths": {"both .03": {}, ".025 below, .05 above": {"c_low": 0.025, "c_high": 0.05}},
    "the dual clip": {"off": {}, "c_dual .06": {"c_dual": 0.06}, "c_dual .12": {"c_dual": 0.12}},
}
"""Settings of FSPO to compare, by question [ours: the paper's own values are not public]."""


@dataclass(frozen=True)
class Lab:
    """All methods of the suite, and FSPO's variants, on one bank; computed on demand. `model` is None without one.

    `target`: the clipped share that ranges are matched to; None is FSPO's own.
    """

    bank: Bank
    model: LabModel | None = None
    target: float | None = None

    @cached_property
    def arena(self) -> Arena:
        """Every method at its own range and at the range where it clips as often as FSPO."""
        return Arena(METHODS, self.bank.updates(), self.target, REFERENCE)

    @cached_property
    def variants(self) -> pd.DataFrame:
        """FSPO's settings: clip rates, slopes and LRE, one row per question and setting."""
        rows = []
        for question, settings in QUESTIONS.items():
            frames = []
            for name, change in settings.items():
                method = self._fspo(change)
                frames.append(replay(method, self.arena.log, {}).assign(method=name, range=question))
            frame = pd.concat(frames, ignore_index=True)
            rows.append(fairness_summary(frame, rng=np.random.default_rng(SEED), edges=self.arena.edges))
        return pd.concat(rows, ignore_index=True)

    def _fspo(self, change: Mapping[str, float | str | None]) -> Method:
        return dataclasses.replace(METHODS["fspo"], hyper=dataclasses.replace(METHODS["fspo"].hyper, **change))

    @cached_property
    def turns(self) -> pd.DataFrame:
        """Cosine of every method's clipped update with its own unclipped one, in log-prob space, over the updates."""
        states: dict[str, State] = {name: {} for name in METHODS}
        found = cosine_summary(log_prob_cosines(METHODS, self.arena.log, states))
        return select(found, against=OWN).drop(columns="against")

    @cached_property
    def bounds(self) -> pd.DataFrame:
        """What LRE promises for that cosine and what it is, by method: means over the updates."""
        methods = {name: METHODS[name] for name in DRAWN}
        edges = quantile_edges(self.arena.log.lengths, BOUND_BINS)
        found = log_prob_bounds(methods, self.arena.log, {name: {} for name in methods}, edges)
        columns = ["lre", "concentration", "bound", "scaled", "cosine", "departure", "violated"]
        rows = [{"method": name, **select(found, method=name)[columns].mean().to_dict()} for name in DRAWN]
        return pd.DataFrame(rows)

    @cached_property
    def noise(self) -> pd.DataFrame | None:
        """Noise of the null update by precision and change; None without a model."""
        return None if self.model is None else noise_by_change(self.model.noise)

    @cached_property
    def noise_clips(self) -> pd.DataFrame | None:
        """What that noise alone puts outside every method's band; None without a model."""
        return None if self.model is None else noise_clips(METHODS, self.model.noise)

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table as tidy numbers, by file name."""
        arena = self.arena
        found = {
            **arena.tables(),
            "predicted": arena.predicted,
            "growth": arena.growth,
            "growth_by_length": arena.growth_bins,
            "growth_by_update": arena.growth_by_update,
            "growth_quantiles": arena.quantiles,
            "fspo_settings": self.variants,
            "directions": self.turns,
            "directions_bound": self.bounds,
        }
        if self.model is not None and self.noise is not None and self.noise_clips is not None:
            cosine, bound, _ = self.model.turns
            found |= {"null_update": self.noise, "null_update_clips": self.noise_clips}
            found |= {"model_directions": cosine, "model_directions_bound": bound}
        return found
