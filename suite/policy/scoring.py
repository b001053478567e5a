"""The one path from a model to log-probabilities, old, new and reference scores; and PPO's critic."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from suite.policy.packed_attention import NO_MASK, Packing, use_packed_attention
from suite.policy.prefix_tree import grouped_by_tree, saves_enough, tree_of
from suite.policy.vocabulary_tiles import log_probs_of
from suite.types import Policy, Rollout


@dataclass(frozen=True)
class MicroBatch:
    """Prompt and response of n rollouts in one row of N tokens, none of them padding: one rollout behind the other, or
    as a tree in which common starts stand once (`suite.policy.prefix_tree`).

    rows: which rollouts of the step these are; input_ids and positions [1, N]; packing: what the pieces of the row are;
    response_mask [n, T] bool; of its K counted tokens, in row-major order: places [K] in the flattened mask, source [K]
    the place among the N tokens whose hidden state predicts each, targets [K] the tokens themselves.

    Places are kept, not asked of the mask: a GPU would have to tell the host how many there are.
    """

    rows: tuple[int, ...]
    input_ids: Tensor
    positions: Tensor
    packing: Packing
    response_mask: Tensor
    places: Tensor
    source: Tensor
    targets: Tensor

    @property
    def lengths(self) -> Tensor:
        """Response tokens of each row, [n] float32."""
        return self.response_mask.sum(dim=1).float()

    def padded(self, values: Tensor) -> Tensor:
        """[K] values of the counted tokens as [n, T], 0 at padding."""
        whole = values.new_zeros(self.response_mask.numel()).index_copy(0, self.places, values)
        return whole.view(self.response_mask.shape)


def pack(rollouts: Sequence[Rollout], rows: Sequence[int], device: torch.device | str) -> MicroBatch:
    """The micro-batch of the given rows."""
    chosen = [rollouts[i] for i in rows]
    tokens = torch.tensor([token for r in chosen for token in r.prompt_ids + r.response_ids])
    prompts, responses = (
        torch.tensor([len(ids) for ids in column])
        for column in zip(*((r.prompt_ids, r.response_ids) for r in chosen), strict=True)
    )
    sizes = prompts + responses
    starts = sizes.cumsum(0) - sizes
    positions = torch.arange(len(tokens)) - starts.repeat_interleave(sizes)
    place = torch.arange(int(responses.max()))
    mask = place < responses[:, None]
    source = ((starts + prompts - 1)[:, None] + place)[mask]
    places = mask.flatten().nonzero()[:, 0]
    ids, positions, *columns = (
        x.to(device) for x in (tokens[None], positions[None], mask, places, source, tokens[source + 1])
    )
    return MicroBatch(tuple(rows), ids, positions, Packing.of(sizes.tolist(), device), *columns)


def pack_tree(rollouts: Sequence[Rollout], rows: Sequence[int], device: torch.device | str) -> MicroBatch:
    """The micro-batch of the given rows as a tree: the same scores as `pack` gives, common starts computed once."""
    chosen = [rollouts[i] for i in rows]
    tree = tree_of(chosen)
    starts, places_of, here = {}, {}, 0
    for node in tree.nodes:
        starts[id(node)] = here
        before = [] if node.parent is None else [places_of[id(node.parent)]]
        here += len(node.tokens)
        places_of[id(node)] = torch.cat([*before, torch.arange(starts[id(node)], here)])
    tokens = torch.tensor([token for node in tree.nodes for token in node.tokens])
    positions = torch.cat([torch.arange(node.depth, node.path) for node in tree.nodes])
    source: list[int] = []
    for rollout, prompt, response in zip(chosen, tree.prompts, tree.responses, strict=True):
        if rollout.response_ids:
            source.append(starts[id(prompt)] + len(prompt.tokens) - 1)
        if response is not None:
            source += range(starts[id(response)], starts[id(response)] + len(response.tokens))
    counts = torch.tensor([len(r.response_ids) for r in chosen])
    mask = torch.arange(int(counts.max())) < counts[:, None]
    targets = torch.tensor([token for r in chosen for token in r.response_ids], dtype=torch.long)
    given = (
        tokens[None],
        positions[None],
        mask,
        mask.flatten().nonzero()[:, 0],
        torch.tensor(source, dtype=torch.long),
        targets,
    )
    ids, positions, *columns = (x.to(device) for x in given)
    packing = Packing.of_tree(
        [places_of[id(node)] for node in tree.nodes], [len(node.tokens) for node in tree.nodes], device
    )
    return MicroBatch(tuple(rows), ids, positions, packing, *columns)


def micro_batches(
    rollouts: Sequence[Rollout],
    rows: Sequence[int],
    tokens: int,
    device: torch.device | str,
    as_tree: bool | None = None,
) -> list[MicroBatch]:
    """The rows of one optimizer step, cut so that no micro-batch computes more than `tokens` tokens.

    As trees, with common starts side by side, else as sequences, sorted by length; where `as_tree` does not say which,
    as trees where these save enough. A row longer than `tokens` gets a micro-batch of its own.
    """
    if saves_enough(rollouts, rows) if as_tree is None else as_tree:
        return [pack_tree(rollouts, group, device) for group in grouped_by_tree(rollouts, rows, tokens)]
    size = {i: len(rollouts[i].prompt_ids) + len(rollouts[i].response_ids) for i in rows}
    groups: list[list[int]] = []
    taken = 0
    for i in sorted(rows, key=lambda i: (size[i], i)):
        if not groups or taken + size[i] > tokens:
            groups.append([])
            taken = 0
        groups[-1].append(i)
        taken += size[i]
    return [pack(rollouts, group, device) for group in groups]


def hidden_states(body: Any, batch: MicroBatch) -> Tensor:
    """The hidden state that predicts each counted response token, [K, d], in row-major order of response_mask."""
    use_packed_attention(body)
    with _checkpointed(body):
        found = body(
            input_ids=batch.input_ids,
            position_ids=batch.positions,
            attention_mask=NO_MASK,
            packing=batch.packing,
            use_cache=False,
        )
    return found.last_hidden_state[0, batch.source]


def score(model: Policy, batch: MicroBatch, *, float32_head: bool = False) -> Tensor:
    """log_probs of every response token, [n, T] in nats, 0 at padding.

    log pi(y_t | .) = logit(y_t) - logsumexp(logits), in float32 (float64 where model and head are float64). Only
    response positions reach the head, whose product has the precision of the pass, or always float32.
    """
    return _scored(model, batch, float32_head, entropy=False)[0]


def score_and_entropy(model: Policy, batch: MicroBatch, *, float32_head: bool = False) -> tuple[Tensor, Tensor]:
    """`score`, and beside it the entropy of every response token's distribution, [n, T] in nats, without gradient."""
    log_probs, entropy = _scored(model, batch, float32_head, entropy=True)
    return log_probs, entropy


def _scored(model: Policy, batch: MicroBatch, float32_head: bool, entropy: bool) -> list[Tensor]:
    hidden = hidden_states(model.base_model, batch)
    head = model.get_output_embeddings()
    dtype = torch.float32 if float32_head else _precision(head.weight)
    found = log_probs_of(hidden, head.weight, head.bias, batch.targets, dtype=dtype, entropy=entropy)
    return [batch.padded(x) for x in found if x is not None]


@contextmanager
def _checkpointed(body: Any) -> Iterator[None]:
    """Layers that were told to compute their activations twice do so here, and only here.

    transformers asks a layer's own `training` flag, which stays off elsewhere: with it, decoding would lose its cache,
    and for what is inside the layer it would turn dropout on.
    """
    layers = body.modules() if torch.is_grad_enabled() else ()
    asked = [m for m in layers if isinstance(m, GradientCheckpointingLayer) and m.gradient_checkpointing]
    for layer in asked:
        layer.training = True
    try:
        yield
    finally:
        for layer in asked:
            layer.training = False


def _precision(weight: Tensor) -> torch.dtype:
    """What a product with these weights is computed in: the surrounding autocast's precision, or their own."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


class Critic(nn.Module):
    """V(prompt, y_<t) for every response token: what reward the policy will get from here, in reward units."""

    def __init__(self, model: Policy) -> None:
        super().__init__()
        self.body = copy.deepcopy(model.base_model)
        exact = torch.promote_types(model.dtype, torch.float32)
        self.head = nn.Linear(model.config.hidden_size, 1, dtype=exact, device=model.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: MicroBatch) -> Tensor:
        """values [n, T] in the head's precision (float32, float64 for a float64 model), 0 at padding."""
        values = self.head(hidden_states(self.body, batch).to(self.head.weight.dtype))[:, 0]
        return batch.padded(values)
