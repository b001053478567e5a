"""Random batches for the method tests: one builder, and hypothesis strategies over it."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

import baselines
import fspo
from methods import Row
from suite.methods.trial_batches import SPREADS, random_batch
from suite.types import Growth, Level, Method, PolicyBatch

METHODS: dict[str, Method] = {**baselines.METHODS, **fspo.METHODS}
SEQUENCE_LEVEL = tuple(name for name, method in METHODS.items() if method.level == Level.SEQUENCE)
BANDED = tuple(name for name, method in METHODS.items() if method.growth != Growth.NONE)


def unbounded(method: Method) -> Method:
    """The method with a band that no batch of this file leaves (beyond +-5 in the log of the weight)."""
    return method.scaled(1e5)


def rows_of(batch: PolicyBatch) -> list[Row]:
    """The batch as the plain lists that the oracles read."""

    def lists(column: Tensor | None) -> list[Any]:
        return [None] * len(batch.response_mask) if column is None else column.tolist()

    names = ("log_probs", "old_log_probs", "advantages", "response_mask", "values", "old_values", "returns")
    return [Row(*columns) for columns in zip(*(lists(getattr(batch, name)) for name in names), strict=True)]


@st.composite
def policy_batches(draw: st.DrawFn, per_token: bool = False, dtype: torch.dtype = torch.float64) -> PolicyBatch:
    """Batches of 1 to 5 responses of up to 8 tokens; shrinks towards one token, no holes, a narrow spread."""
    return random_batch(
        draw(st.integers(0, 10_000)),
        rows=draw(st.integers(1, 5)),
        tokens=draw(st.integers(1, 8)),
        per_token=per_token,
        spread=draw(st.sampled_from(SPREADS)),
        holes=draw(st.booleans()),
        dtype=dtype,
    )


@st.composite
def grouped_rewards(draw: st.DrawFn) -> tuple[list[float], list[int]]:
    """Rewards and group ids, every group of at least two, in any order."""
    reward = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-10, 10, allow_nan=False))
    sizes = draw(st.lists(st.integers(2, 5), min_size=1, max_size=4))
    groups = draw(st.permutations([g for g, size in enumerate(sizes) for _ in range(size)]))
    rewards = draw(st.lists(reward, min_size=len(groups), max_size=len(groups)))
    return rewards, list(groups)


def draw_batch(data: st.DataObject, method: Method) -> PolicyBatch:
    """A drawn batch with the shape of advantages that the method takes."""
    return data.draw(policy_batches(per_token="values" in method.needs))
