"""Attention over sequences that lie one behind the other in a single row, without padding and without a mask.

Registered with transformers under the name PACKED. Where a forward pass says how long its sequences are
(`sizes=...`), each attends causally to itself alone; every other call, such as decoding with a cache, is
transformers' own scaled dot-product attention.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from suite.types import UserError

PACKED = "fspo_packed"
NO_MASK = torch.empty(0, 0, 0, 0)
"""A mask of four axes is handed through by transformers as it is: none is needed here, and none is built."""
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Packing:
    """How long the n sequences of a row are: `sizes` on the host; `ends` [n + 1] int32, 0 and their running sum, on the
    device, made once for all layers.
    """

    sizes: tuple[int, ...]
    ends: Tensor

    @classmethod
    def of(cls, sizes: Sequence[int], device: torch.device | str) -> Packing:
        """The packing of sequences of those sizes."""
        ends = torch.tensor([0, *sizes]).cumsum(0).to(torch.int32)
        return cls(tuple(sizes), ends.to(device))


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    packing: Packing | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Outputs [1, N, h, e] of queries [1, h, N, e], keys and values [1, g, N, e]: N tokens, in sequences of a packing.

    Raises UserError where a layer looks back over a window that a sequence exceeds: nothing else would be computed.
    """
    if packing is None:
        if query.shape[2] == 1 and attention_mask is not None and key.shape[1] != query.shape[1]:
            return _one_token(query, key, value, attention_mask, scaling), None
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    if sliding_window is not None and (longest := max(packing.sizes)) > sliding_window:
        raise UserError(
            f"a sequence of {longest} tokens is longer than the model's attention window of {sliding_window}; "
            "packed scoring has no windows: take shorter responses or a model with full attention"
        )
    if options.get("softcap") is not None:
        raise UserError("the model bends its attention (softcap), which packed scoring does not: take another model")
    half = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else query.dtype
    if query.is_cuda and half in HALF:
        return _by_kernel(query.to(half), key.to(half), value.to(half), packing, scaling), None
    return _by_sequence(query, key, value, packing.sizes, scaling), None


def _one_token(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    """Decoding of h query heads with g < h shared ones: outputs [B, 1, h, e] of queries [B, h, 1, e].

    The h / g query heads of a shared one stand as that many queries of it, under the one mask [B, 1, 1, T] of their
    token: no key and no value is copied for them.
    """
    rows, heads, _, width = query.shape
    grouped = query.view(rows, key.shape[1], heads // key.shape[1], width)
    found = scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scaling)
    return found.reshape(rows, 1, heads, width)


def _by_sequence(query: Tensor, key: Tensor, value: Tensor, sizes: Sequence[int], scaling: float | None) -> Tensor:
    """One call for each run of neighbours of one length.

    On a GPU shared heads are copied for every query head: of its kernels for float32 none that shares them does without
    all T x T weights (4.3 GiB were kept for 8,192 tokens of 16 heads).
    """
    runs = [(size, len(list(run))) for size, run in groupby(sizes)]
    widths = [size * count for size, count in runs]
    shared = key.shape[1] != query.shape[1]
    if shared and query.is_cuda:
        each = query.shape[1] // key.shape[1]
        key, value, shared = key.repeat_interleave(each, dim=1), value.repeat_interleave(each, dim=1), False
    outputs = []
    for (size, count), *states in zip(runs, *(x.split(widths, dim=2) for x in (query, key, value)), strict=True):
        if count > 1:
            states = [x[0].unflatten(1, (count, size)).transpose(0, 1) for x in states]
        found = scaled_dot_product_attention(*states, is_causal=True, scale=scaling, enable_gqa=shared)
        outputs.append(found if count == 1 else found.transpose(0, 1).flatten(1, 2)[None])
    return torch.cat(outputs, dim=2).transpose(1, 2)


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None) -> Tensor:
    """One call of torch's kernel for sequences of many lengths, which takes half precision on a GPU alone."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    longest, shared = max(packing.sizes), key.shape[1] != query.shape[1]
    options = {"scale": scaling, "window_size": (-1, 0), **kernel_options(varlen_attn, shared)}
    found = varlen_attn(q, k, v, packing.ends, packing.ends, longest, longest, **options)
    assert isinstance(found, Tensor)
    return found[None]


def kernel_options(kernel: Callable[..., Any], shared_heads: bool) -> dict[str, Any]:
    """What torch's kernel wants to be told of query heads that share keys and values.

    torch 2.12 and newer demand `enable_gqa`; in 2.11 the same kernel takes fewer key heads without being told.
    """
    takes_it = "enable_gqa" in inspect.signature(kernel).parameters
    return {"enable_gqa": shared_heads} if takes_it else {}


def use_packed_attention(body: Any) -> None:
    """Have a model attend through `packed_attention`, if it does not yet."""
    if body.config._attn_implementation != PACKED:
        body.set_attn_implementation(PACKED)


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
