"""How a check says no: the reason in a sentence, and the batch that shows it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from suite.arithmetic import token_log_ratio
from suite.methods.trial_batches import SPREADS, batch_for
from suite.types import Method, PolicyBatch

DoesNotApply = str
"""Why a property says nothing of a method. A check returns it, or None where the property holds."""

SHAPES = ((1, 1), (1, 2), (2, 1), (1, 3), (2, 3), (3, 5), (6, 7))
"""(responses, tokens) in the order in which batches are tried: the first that fails is the smallest."""


class Violation(Exception):
    """A property that does not hold; `batch` is shown as the example."""

    def __init__(self, reason: str, batch: PolicyBatch | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.example = "" if batch is None else described(batch)


def numbers(x: Tensor) -> str:
    """A short list of numbers."""
    return "[" + ", ".join(f"{value:.4g}" for value in x.tolist()) + "]"


def described(batch: PolicyBatch) -> str:
    """A batch in a few lines: one response a line, its log ratios where the mask counts, its advantage."""
    ratios = token_log_ratio(batch).detach()
    lines = []
    for i in range(min(len(batch.lengths), 3)):
        counted = ratios[i][batch.response_mask[i]]
        shown = numbers(counted[:6]) + (f" ... {len(counted)} tokens" if len(counted) > 6 else "")
        padding = int((~batch.response_mask[i]).sum())
        advantage = numbers(batch.advantages[i][:6].detach())
        lines.append(f"response {i}: log ratios {shown}, A {advantage}, {padding} uncounted positions")
    return "\n".join([*lines, *(["..."] if len(batch.lengths) > 3 else [])])


def trials(method: Method, seeds: int = 1) -> Iterator[PolicyBatch]:
    """Batches from one token to six responses, each at all scales of the log ratio, float64."""
    for rows, tokens in SHAPES:
        for spread in (None, *SPREADS):
            for seed in range(seeds):
                yield batch_for(method, seed, rows=rows, tokens=tokens, spread=spread, holes=tokens > 2)


def same(a: Tensor, b: Tensor, rtol: float = 1e-12, atol: float = 1e-14) -> bool:
    """Equal within rounding, NaN equal to NaN, infinities to themselves; shapes and types must agree."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return torch.equal(a, b) if a.dtype == torch.bool else torch.allclose(a, b, rtol=rtol, atol=atol, equal_nan=True)
