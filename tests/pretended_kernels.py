"""What CUDA computes otherwise than a CPU: autocast, and attention over sequences of many lengths in one row.

Here for the pretended device, as torch documents them: autocast's own kernels for CUDA pass over tensors that are no
CUDA tensors, and the kernel of variable-length attention exists on a card alone.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

AUTOCAST = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCUDA)
LOWER = {
    "linear",
    "matmul",
    "mm",
    "mv",
    "bmm",
    "addmm",
    "addmv",
    "addr",
    "addbmm",
    "baddbmm",
    "einsum",
    "chain_matmul",
    "linalg_multi_dot",
    "linalg_vecdot",
    "scaled_dot_product_attention",
    "_scaled_dot_product_flash_attention",
    "prelu",
    "conv1d",
    "conv2d",
    "conv3d",
    "convolution",
    "_convolution",
}
"""Operators that autocast on CUDA runs in half precision."""
WIDEST = {"addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "vdot", "tensordot", "index_put", "scatter_add"}
"""Operators that autocast on CUDA runs in the widest precision among their arguments; all others in float32."""
CAST = (torch.float32, torch.bfloat16, torch.float16)


def autocast_for(kind: type[Tensor]) -> torch.library.Library:
    """Autocast on CUDA for tensors of that kind, which must have the dispatch key AUTOCAST, until it is destroyed."""
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch's kernel is replaced is what is wanted
        for full in torch._C._dispatch_get_registrations_for_dispatch_key("AutocastCUDA"):
            space, _, rest = full.partition("::")
            name, _, overload = rest.partition(".")
            if space == "aten":
                operator = getattr(getattr(torch.ops.aten, name), overload or "default")
                library.impl(rest, _cast(name, operator, kind), "AutocastCUDA")
    return library


def _cast(name: str, operator: Any, kind: type[Tensor]) -> Callable[..., Any]:
    """The operator with its floating-point tensors in the precision that autocast runs it in."""

    def cast(*args: Any, **kwargs: Any) -> Any:
        target = torch.get_autocast_dtype("cuda") if name in LOWER else torch.float32
        if name in WIDEST:
            found = [x.dtype for x in tree_leaves((args, kwargs)) if isinstance(x, kind) and x.dtype in CAST]
            target = torch.float32 if torch.float32 in found else found[0]

        def narrow(x: Any) -> Any:
            return x.to(target) if isinstance(x, kind) and x.dtype in CAST and x.dtype != target else x

        with torch._C._ExcludeDispatchKeyGuard(AUTOCAST):
            return operator(*tree_map(narrow, args), **tree_map(narrow, kwargs))

    return cast


# --- attention over sequences of many lengths -----------------------------------------------------


def _by_sequence(*tensors: tuple[Tensor, Tensor]) -> Iterator[list[Tensor]]:
    """Each sequence's part of (tensor [N, heads, e], its ends), as float32 [heads, tokens, e]."""
    for parts in zip(*(x.float().split(ends.diff().tolist()) for x, ends in tensors), strict=True):
        yield [x.transpose(0, 1) for x in parts]


def _weights(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) [heads, queries, keys] over what lies not behind each token; the last two are one token."""
    scores = scale * query @ key.transpose(1, 2)
    behind = torch.ones_like(scores, dtype=torch.bool).triu(1 + key.shape[1] - query.shape[1])
    return scores.masked_fill(behind, -torch.inf).softmax(-1)


def _demand(query: Tensor, key: Tensor, ends: Tensor, window: Sequence[int] | None) -> None:
    """RuntimeError for what the kernel on a card does not take."""
    width = query.shape[-1]
    if query.dtype not in (torch.bfloat16, torch.float16) or key.dtype != query.dtype:
        raise RuntimeError(f"FlashAttention only support fp16 and bf16 data type, not {query.dtype} and {key.dtype}")
    if ends.dtype != torch.int32:
        raise RuntimeError(f"cu_seqlens_q must have dtype int32, not {ends.dtype}")
    if width % 8 or width > 256:
        raise RuntimeError(f"FlashAttention forward wants a head dimension of a multiple of 8 up to 256, not {width}")
    if query.shape[1] % key.shape[1]:
        raise RuntimeError("Number of heads in key/value must divide number of heads in query")
    if list(window or ()) != [-1, 0]:
        raise RuntimeError(f"only causal attention is pretended, not a window of {window}")
    if int(ends[-1]) != len(query):
        raise RuntimeError(f"the last sequence ends at {int(ends[-1])} of {len(query)} tokens")


def _forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    scale: float | None = None,
    window_size: Sequence[int] | None = None,
    **rest: Any,
) -> tuple[Tensor, ...]:
    """Causal attention of each sequence's queries to its keys: P v with P of `_weights`."""
    _demand(query, key, cu_seq_q, window_size)
    if int(cu_seq_k[-1]) != len(key):
        raise RuntimeError(f"the last sequence of keys ends at {int(cu_seq_k[-1])} of {len(key)} tokens")
    scale, group = scale or query.shape[-1] ** -0.5, query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    parts = _by_sequence((query, cu_seq_q), (key, cu_seq_k), (value, cu_seq_k))
    found = [_weights(q, k, scale) @ v for q, k, v in parts]
    states = torch.cat(found, dim=1).transpose(0, 1).to(query.dtype)
    return states.contiguous(), torch.zeros(query.shape[1], len(query)), torch.zeros(2, dtype=torch.uint64)


def _backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    scale: float | None = None,
    **rest: Any,
) -> tuple[Tensor, ...]:
    """dv = P^T do, ds = P (do v^T - sum of P do v^T), dq = scale ds k, dk = scale ds^T q; summed over shared heads."""
    scale, group = scale or query.shape[-1] ** -0.5, query.shape[1] // key.shape[1]
    wide = [x.repeat_interleave(group, dim=1) for x in (key, value)]
    slopes: list[list[Tensor]] = []
    for q, k, v, do in _by_sequence((query, cu_seq_q), *((x, cu_seq_k) for x in wide), (grad_out, cu_seq_q)):
        p, dp = _weights(q, k, scale), do @ v.transpose(1, 2)
        ds = p * (dp - (p * dp).sum(dim=-1, keepdim=True))
        slopes.append([scale * ds @ k, scale * ds.transpose(1, 2) @ q, p.transpose(1, 2) @ do])
    dq, dk, dv = (torch.cat(parts, dim=1).transpose(0, 1) for parts in zip(*slopes, strict=True))
    dk, dv = (x.unflatten(1, (-1, group)).sum(dim=2) for x in (dk, dv))
    return tuple(x.to(query.dtype).contiguous() for x in (dq, dk, dv))


KERNELS: dict[str, Callable[..., tuple[Tensor, ...]]] = {"_varlen_attn": _forward, "_varlen_attn_backward": _backward}
"""What the dispatcher calls an operator, and what computes it, of its arguments by name."""
