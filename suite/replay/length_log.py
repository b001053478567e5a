"""Clipping by length while training goes on: the diagnostics of a bank, on the updates of one rollout step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from suite.records.update_log import UpdateLog
from suite.replay.fairness import TRUNCATED, clip_by_length
from suite.replay.one_method import replay
from suite.replay.resampling import bin_labels, power_edges
from suite.types import Method, State

SHARES = ("responses", "outside_band", "clipped")


def length_logger(method: Method, longest: int) -> Callable[[UpdateLog, State], Mapping[str, float]]:
    """What a trainer logs of the updates of a step: `by_length/8-15/clipped` and its like, first update left out.

    Bins are powers of two up to `longest` tokens, truncated responses apart, so that every step has the same names;
    a bin without responses logs 0 of them and nan shares. The method sees the group-centred rewards, as in a replay.
    """
    edges = power_edges(longest)
    labels = [*bin_labels(edges), TRUNCATED]
    names = {label: f"by_length/{label.replace('–', '-')}" for label in labels}  # TensorBoard keeps ASCII only
    empty = {"responses": 0.0, "outside_band": np.nan, "clipped": np.nan}

    def shares(log: UpdateLog, state: State) -> dict[str, float]:
        frame = replay(method, log, state).assign(method=method.name, range="own")
        if frame.empty:
            return {}
        found = clip_by_length(frame, rng=np.random.default_rng(0), edges=edges, repetitions=0).set_index("bin")
        return {
            f"{names[label]}/{name}": float(found.loc[label, name]) if label in found.index else empty[name]
            for label in labels
            for name in SHARES
        }

    return shares
