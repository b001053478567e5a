"""A key-value cache with spare room: decoding writes into it instead of copying everything seen at every token."""

from __future__ import annotations

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
