"""Attention over pieces of text that lie one behind the other in a single row, without padding.

Registered with transformers under the name PACKED. Where a forward pass says what its pieces are (`packing=...`), each
attends causally to itself and to what it follows: to nothing where the pieces are whole sequences, to the nodes on its
path where they are the nodes of a tree. Where rows that are drawn begin alike (`common=...`), the keys and values of
that start are kept and read once for all of them. Every other call is transformers' own scaled dot-product attention.
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

from suite.policy.kv_cache import CommonStart
from suite.types import UserError

PACKED = "fspo_packed"
NO_MASK = torch.empty(0, 0, 0, 0)
"""A mask of four axes is handed through by transformers as it is: none is needed here, and none is built."""
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Packing:
    """How long the n pieces of a row are: `sizes` on the host; `ends` [n + 1] int32, 0 and their running sum, on the
    device, made once for all layers. `paths` is None where the pieces are whole sequences.
    """

    sizes: tuple[int, ...]
    ends: Tensor
    paths: Paths | None = None

    @classmethod
    def of(cls, sizes: Sequence[int], device: torch.device | str) -> Packing:
        """The packing of sequences of those sizes."""
        return cls(tuple(sizes), _ends(sizes, device))

    @classmethod
    def of_tree(cls, paths: Sequence[Tensor], sizes: Sequence[int], device: torch.device | str) -> Packing:
        """The packing of nodes of those sizes, from the places in the row of the tokens on the path of each, itself
        at the end. Nodes of one size and path length that are neighbours are computed together.
        """
        lengths = tuple(map(len, paths))
        known = Paths(lengths, torch.cat(list(paths)).to(device), _ends(lengths, device))
        return cls(tuple(sizes), _ends(sizes, device), known)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return max(self.sizes if self.paths is None else self.paths.sizes)


@dataclass(frozen=True)
class Paths:
    """What the nodes of a tree attend to: `sizes`, tokens on each path; `places`, where they lie in the row, one path
    behind the other; `ends` as in `Packing`.
    """

    sizes: tuple[int, ...]
    places: Tensor
    ends: Tensor


def _ends(sizes: Sequence[int], device: torch.device | str) -> Tensor:
    return torch.tensor([0, *sizes]).cumsum(0).to(torch.int32).to(device)


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    packing: Packing | None = None,
    common: CommonStart | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Outputs [1, N, h, e] of queries [1, h, N, e], keys and values [1, g, N, e]: N tokens, in sequences of a packing.

    Without a packing it is attention as transformers computes it, of [B, h, N, e]; with `common`, of one new token in
    each row of a batch that begins with those keys and values.
    Raises UserError where a layer looks back over a window that a sequence exceeds: nothing else would be computed.
    """
    if common is not None:
        start_key, start_value = common.layers[module.layer_idx]
        return _one_token_after_start(query, key, value, attention_mask, start_key, start_value, scaling), None
    if packing is None:
        if query.shape[2] == 1 and attention_mask is not None and key.shape[1] != query.shape[1]:
            return _one_token(query, key, value, attention_mask, scaling), None
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
    if sliding_window is not None and (longest := packing.longest) > sliding_window:
        raise UserError(
            f"a sequence of {longest} tokens is longer than the model's attention window of {sliding_window}; "
            "packed scoring has no windows: take shorter responses or a model with full attention"
        )
    if options.get("softcap") is not None:
        raise UserError("the model bends its attention (softcap), which packed scoring does not: take another model")
    half = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else query.dtype
    if query.is_cuda and half in HALF:
        return _by_kernel(query.to(half), key.to(half), value.to(half), packing, scaling), None
    if packing.paths is not None:
        return _by_node(query, key, value, packing.sizes, packing.paths, scaling), None
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


def _one_token_after_start(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    start_key: Tensor,
    start_value: Tensor,
    scaling: float | None,
) -> Tensor:
    """Decoding behind a start [g, P, e] that all rows have in common: outputs [B, 1, h, e] of queries [B, h, 1, e].

    The queries of all rows meet the start in one product, so that it is read once and not once a row. Scores and their
    softmax are float32 at least.
    """
    dtype, exact = query.dtype, torch.promote_types(query.dtype, torch.float32)
    query, key, value, start_key, start_value = (x.to(exact) for x in (query, key, value, start_key, start_value))
    (rows, heads, _, width), groups, tokens = query.shape, key.shape[1], start_key.shape[1]
    each = heads // groups
    grouped = query.view(rows, groups, each, width)
    together = grouped.transpose(0, 1).reshape(groups, rows * each, width)
    at_start = (together @ start_key.transpose(1, 2)).view(groups, rows, each, tokens).transpose(0, 1)
    own = grouped @ key.transpose(2, 3)
    if mask is not None:
        own = own.masked_fill(~mask, -torch.inf)
    scores = torch.cat([at_start, own], dim=-1) * (width**-0.5 if scaling is None else scaling)
    of_start, of_own = scores.softmax(dim=-1).split([tokens, own.shape[-1]], dim=-1)
    of_start = of_start.transpose(0, 1).reshape(groups, rows * each, tokens)
    found = (of_start @ start_value).view(groups, rows, each, width).transpose(0, 1) + of_own @ value
    return found.reshape(rows, 1, heads, width).to(dtype)


def _by_sequence(query: Tensor, key: Tensor, value: Tensor, sizes: Sequence[int], scaling: float | None) -> Tensor:
    """One call for each run of neighbours of one length.

    On a GPU shared heads are copied for every query head: of its kernels for float32 none that shares them does without
    all T x T weights (4.3 GiB were kept for 8,192 tokens of 16 heads).
    """
    runs = [(size, len(list(run))) for size, run in groupby(sizes)]
    widths = [size * count for size, count in runs]
    key, value, shared = _for_every_head(query, key, value)
    outputs = []
    for (size, count), *states in zip(runs, *(x.split(widths, dim=2) for x in (query, key, value)), strict=True):
        if count > 1:
            states = [x[0].unflatten(1, (count, size)).transpose(0, 1) for x in states]
        found = scaled_dot_product_attention(*states, is_causal=True, scale=scaling, enable_gqa=shared)
        outputs.append(found if count == 1 else found.transpose(0, 1).flatten(1, 2)[None])
    return torch.cat(outputs, dim=2).transpose(1, 2)


def _for_every_head(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Keys and values, and whether query heads still share them; on a GPU they are copied (`_by_sequence` says why)."""
    shared = key.shape[1] != query.shape[1]
    if shared and query.is_cuda:
        each = query.shape[1] // key.shape[1]
        return key.repeat_interleave(each, dim=1), value.repeat_interleave(each, dim=1), False
    return key, value, shared


def _by_node(
    query: Tensor, key: Tensor, value: Tensor, sizes: Sequence[int], paths: Paths, scaling: float | None
) -> Tensor:
    """One call for each run of neighbours of one size and path length: their queries, the keys of their paths.

    The paths of all nodes are read together, so that their gradients are summed into the row once.
    """
    key, value, shared = _for_every_head(query, key, value)
    runs = [(*shape, len(list(run))) for shape, run in groupby(zip(sizes, paths.sizes, strict=True))]
    seen = [x[0].transpose(0, 1)[paths.places].transpose(0, 1) for x in (key, value)]  # [g, sum of paths, e] each
    parts = [query[0].split([size * count for size, _, count in runs], dim=1)]
    parts += [x.split([path * count for _, path, count in runs], dim=1) for x in seen]
    outputs = []
    for (size, path, count), *states in zip(runs, *parts, strict=True):
        states = [x.unflatten(1, (count, -1)).transpose(0, 1) for x in states]
        mask = None if size == path else _after_a_path(size, path, query.device)
        found = scaled_dot_product_attention(
            *states, attn_mask=mask, is_causal=mask is None, scale=scaling, enable_gqa=shared
        )
        outputs.append(found.transpose(0, 1).flatten(1, 2))
    return torch.cat(outputs, dim=1).transpose(0, 1)[None]


def _after_a_path(size: int, path: int, device: torch.device) -> Tensor:
    """Which of a path's tokens a node at its end may see, [size, path]: all before it, and its own causally."""
    return torch.ones(size, path, dtype=torch.bool, device=device).tril(path - size)


def _by_kernel(query: Tensor, key: Tensor, value: Tensor, packing: Packing, scaling: float | None) -> Tensor:
    """One call of torch's kernel for sequences of many lengths, which takes half precision on a GPU alone."""
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    shared, seen_ends = key.shape[1] != query.shape[1], packing.ends
    if packing.paths is not None:  # the kernel aligns the last query with the last key
        k, v, seen_ends = k[packing.paths.places], v[packing.paths.places], packing.paths.ends
    options = {"scale": scaling, "window_size": (-1, 0), **kernel_options(varlen_attn, shared)}
    found = varlen_attn(q, k, v, packing.ends, seen_ends, max(packing.sizes), packing.longest, **options)
    assert isinstance(found, Tensor)
    return found[None]


def kernel_options(kernel: Callable[..., Any], shared_heads: bool) -> dict[str, Any]:
    """What torch's kernel wants to be told of query heads that share keys and values.

    torch 2.12 and newer demand `enable_gqa`; in 2.11 the same kernel takes fewer key heads without being told.
    """
    takes_it = "enable_gqa" in inspect.signature(kernel).parameters
    return {"enable_gqa": shared_heads} if takes_it else {}


def can_keep_a_start_apart(config: Any) -> bool:
    """Whether a model attends so plainly that rows' common start can be kept apart: keys and values as they are met,
    without windows, caps or sinks."""
    config = config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ("full_attention",)
    windows = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    bent = getattr(config, "attn_logit_softcapping", None) is not None or config.model_type == "gpt_oss"
    compressed = getattr(config, "kv_lora_rank", None) is not None
    return set(kinds) == {"full_attention"} and not (windows or bent or compressed)


def use_packed_attention(body: Any) -> None:
    """Have a model attend through `packed_attention`, if it does not yet."""
    if body.config._attn_implementation != PACKED:
        body.set_attn_implementation(PACKED)


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
