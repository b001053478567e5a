"""The one door through which the parts of an optimizer step become the whole of it, on one process or several.

Everything that is counted, estimated or reported is so over the whole step: its rows come from every process, in the
order of a single one. Behind this door an optimizer step reads as one process would do it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from suite.policy.ranks import ALONE, Ranks
from suite.policy.scoring import MicroBatch
from suite.types import PolicyBatch


@dataclass(frozen=True)
class ScoredBatch:
    """A micro-batch with what was scored before the first update: its `batch.log_probs` are the old ones."""

    micro: MicroBatch
    batch: PolicyBatch
    entropy: Tensor


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Rows of several [n] or [n, T] tensors as one, [n, T] padded on the right with zeros."""
    width = max(t.shape[-1] for t in tensors)
    return torch.cat([pad(t, (0, width - t.shape[1])) if t.dim() == 2 else t for t in tensors])


def whole(parts: Sequence[ScoredBatch], column: Callable[[ScoredBatch], Tensor], ranks: Ranks = ALONE) -> Tensor:
    """One column of the whole optimizer step, [N] or [N, T], from this process's parts of it and the others'."""
    return ranks.gather_rows(stack([column(part) for part in parts]))


def whole_batch(parts: Sequence[ScoredBatch], log_probs: Sequence[Tensor], ranks: Ranks = ALONE) -> PolicyBatch:
    """The whole mini-batch of one optimizer step, with the given new log-probs of its parts, detached."""
    new = {id(part): x.detach() for part, x in zip(parts, log_probs, strict=True)}
    return PolicyBatch(
        log_probs=whole(parts, lambda part: new[id(part)], ranks),
        old_log_probs=whole(parts, lambda part: part.batch.old_log_probs, ranks),
        advantages=whole(parts, lambda part: part.batch.advantages, ranks),
        response_mask=whole(parts, lambda part: part.batch.response_mask, ranks),
        lengths=whole_lengths(parts, ranks),
    )


def whole_lengths(parts: Sequence[ScoredBatch], ranks: Ranks = ALONE) -> Tensor:
    """Response tokens of every row of one optimizer step, [N]."""
    return whole(parts, lambda part: part.batch.lengths, ranks)


def whole_order(parts: Sequence[ScoredBatch], ranks: Ranks = ALONE) -> Tensor:
    """Which rollout each row of one optimizer step is, [N]."""
    return whole(parts, lambda part: torch.tensor(part.micro.rows), ranks)
