"""A key-value cache with spare room: decoding writes into it instead of copying everything seen at every token.

What all rows begin with can be taken out of it and kept once for all of them (`CommonStart`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

SPARE = 64
"""Positions that are allocated ahead; everything seen is copied once in so many tokens."""


class GrowingLayer(DynamicLayer):
    """transformers' own cache layer, with keys and values as views into larger buffers."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.key_room = self.value_room = torch.empty(0)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        used = self.get_seq_length()
        self.keys, self.key_room = _append(self.keys, self.key_room, key_states, used)
        self.values, self.value_room = _append(self.values, self.value_room, value_states, used)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)
        self.key_room = self.value_room = torch.empty(0)

    def without_start(self, tokens: int) -> tuple[Tensor, Tensor]:
        """Forget the first positions; returns keys and values [g, tokens, e] that the first row had there."""
        assert self.keys is not None
        assert self.values is not None
        start = self.keys[0, :, :tokens].contiguous(), self.values[0, :, :tokens].contiguous()
        self.keys, self.values = self.keys[:, :, tokens:].contiguous(), self.values[:, :, tokens:].contiguous()
        self.key_room = self.value_room = torch.empty(0)
        return start


@dataclass(frozen=True)
class CommonStart:
    """Keys and values [g, P, e], layer by layer, of the P tokens that all rows of a batch begin with."""

    layers: tuple[tuple[Tensor, Tensor], ...]

    def __len__(self) -> int:
        return self.layers[0][0].shape[1]


def cut_common_start(cache: Any, tokens: int) -> CommonStart:
    """Take the first positions, which are the same in all rows, out of a cache of `growing_cache`."""
    return CommonStart(tuple(layer.without_start(tokens) for layer in cache.layers))


def _append(seen: Tensor | None, room: Tensor, new: Tensor, used: int) -> tuple[Tensor, Tensor]:
    """(everything seen with the new states, its buffer); the buffer grows when it is full or was dropped."""
    total = used + new.shape[-2]
    if room.numel() == 0 or room.shape[-2] < total:
        room = new.new_empty(*new.shape[:-2], total + SPARE, new.shape[-1])
        if used and seen is not None:
            room[..., :used, :] = seen
    room[..., used:total, :] = new
    return room[..., :total, :], room


def growing_cache() -> DynamicCache:
    """An empty cache for any decoder whose layers attend to everything before them."""
    cache = DynamicCache()
    cache.layer_class_to_replicate = GrowingLayer
    return cache
