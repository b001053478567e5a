"""The one path from a model to log-probabilities: old, new and reference scores all come through here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

from suite.types import Rollout

LOGITS_AT_ONCE = 2**25  # 128 MiB of float32 logits; larger ones are recomputed chunk by chunk in the backward


@dataclass(frozen=True)
class MicroBatch:
    """Prompt and response of n rollouts, right-padded: under causal attention no real token ever sees padding.

    rows: which rollouts of the step these are; input_ids [n, W]; response_mask [n, T] bool; source [n, T] the position
    whose hidden state predicts each response token; targets [n, T] the response tokens.
    """

    rows: tuple[int, ...]
    input_ids: Tensor
    response_mask: Tensor
    source: Tensor
    targets: Tensor

    @property
    def lengths(self) -> Tensor:
        """Response tokens of each row, [n] float32."""
        return self.response_mask.sum(dim=1).float()


def pack(rollouts: Sequence[Rollout], rows: Sequence[int], device: torch.device | str) -> MicroBatch:
    """The micro-batch of the given rows."""
    chosen = [rollouts[i] for i in rows]
    width = max(len(r.prompt_ids) + len(r.response_ids) for r in chosen)
    longest = max(len(r.response_ids) for r in chosen)
    input_ids = torch.zeros(len(chosen), width, dtype=torch.int64)
    mask = torch.zeros(len(chosen), longest, dtype=torch.bool)
    source = torch.zeros(len(chosen), longest, dtype=torch.int64)
    targets = torch.zeros_like(source)
    for i, r in enumerate(chosen):
        text, n = r.prompt_ids + r.response_ids, len(r.response_ids)
        input_ids[i, : len(text)] = torch.tensor(text)
        mask[i, :n] = True
        source[i, :n] = torch.arange(len(r.prompt_ids) - 1, len(text) - 1)
        targets[i, :n] = torch.tensor(r.response_ids)
    return MicroBatch(tuple(rows), *(x.to(device) for x in (input_ids, mask, source, targets)))


def micro_batches(
    rollouts: Sequence[Rollout], rows: Sequence[int], tokens: int, device: torch.device | str
) -> list[MicroBatch]:
    """The rows of one optimizer step, sorted by length and cut so that no micro-batch exceeds `tokens` with padding.

    A row longer than `tokens` gets a micro-batch of its own.
    """
    size = {i: len(rollouts[i].prompt_ids) + len(rollouts[i].response_ids) for i in rows}
    groups: list[list[int]] = []
    for i in sorted(rows, key=lambda i: (size[i], i)):
        if groups and size[i] * (len(groups[-1]) + 1) <= tokens:
            groups[-1].append(i)
        else:
            groups.append([i])
    return [pack(rollouts, group, device) for group in groups]


def hidden_states(body: Any, batch: MicroBatch) -> Tensor:
    """The hidden state that predicts each counted response token, [K, d], in row-major order of response_mask."""
    hidden = body(input_ids=batch.input_ids, use_cache=False).last_hidden_state
    row = torch.arange(len(batch.rows), device=hidden.device)[:, None].expand_as(batch.source)
    return hidden[row[batch.response_mask], batch.source[batch.response_mask]]


def _head_scores(head: Any, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of each distribution, both [K] float32; entropy is detached."""
    logits = head(hidden)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    log_z = torch.logsumexp(logits, dim=-1)
    chosen = logits.gather(1, targets[:, None])[:, 0] - log_z
    with torch.no_grad():
        log_probs = logits - log_z[:, None]
        entropy = -(log_probs.exp() * log_probs).sum(dim=-1)
    return chosen, entropy


def _float32(head: Any) -> Any:
    """The head as a float32 product, whatever precision its weights and its surroundings have."""

    def product(hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            bias = None if head.bias is None else head.bias.float()
            return linear(hidden.float(), head.weight.float(), bias)

    return product


def score(model: Any, batch: MicroBatch, *, float32_head: bool = False) -> tuple[Tensor, Tensor]:
    """log_probs and entropy of every response token, both [n, T] float32 in nats, 0 at padding.

    log pi(y_t | .) = logit(y_t) - logsumexp(logits), float32. Only response positions reach the head, which works in
    the precision of the pass, or always in float32.
    """
    hidden = hidden_states(model.base_model, batch)
    output, targets = model.get_output_embeddings(), batch.targets[batch.response_mask]
    head = _float32(output) if float32_head else output
    rows_at_once = max(1, LOGITS_AT_ONCE // output.weight.shape[0])
    if len(hidden) <= rows_at_once:
        parts = [_head_scores(head, hidden, targets)]
    else:
        pieces = zip(hidden.split(rows_at_once), targets.split(rows_at_once), strict=True)
        parts = [checkpoint(_head_scores, head, h, y, use_reentrant=False) for h, y in pieces]
    log_probs, entropy = (torch.cat(column) for column in zip(*parts, strict=True))
    empty = torch.zeros(batch.response_mask.shape, dtype=log_probs.dtype, device=hidden.device)
    return empty.masked_scatter(batch.response_mask, log_probs), empty.masked_scatter(batch.response_mask, entropy)
