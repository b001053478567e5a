"""Log-probabilities of chosen tokens from hidden states, without ever holding all logits: an exact product of its own.

The vocabulary is walked in tiles; logits, logarithms and sums of a tile are float32 (float64 in a float64 model), and
the backward pass writes the gradient from the definition,
d log p(y) / d logits = onehot(y) - p, computing a tile's logits again unless they were kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear

TILE = {"cpu": 2**20, "cuda": 2**26}
"""Logits of one tile by kind of device: 4 MiB in float32 stay in a CPU's cache; 256 MiB fill a GPU with work."""
ALIGNED = 128
"""A tile's width on a GPU is a multiple of this: products of other widths run in far slower kernels."""
LOGITS_AT_ONCE = {"cpu": 2**25, "cuda": 2**28}
"""Logits that are kept for the backward pass (512 MiB in bfloat16 on a GPU); tiles beyond them are computed twice."""


def log_probs_of(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    dtype: torch.dtype,
    entropy: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """(log p(y_k), entropy of p) of every row, [K] each in nats, float32 or float64; the entropy has no gradient.

    hidden [K, d], weight [V, d] and bias [V] are multiplied in `dtype`; targets [K] are token ids.

    p = softmax(hidden weight^T + bias), entropy H = -sum_v p_v log p_v.
    """
    grad = torch.is_grad_enabled()  # which a Function's forward pass cannot see
    at_once = of_device(LOGITS_AT_ONCE, hidden.device.type) if grad else 0
    with torch.autocast(hidden.device.type, enabled=False):  # it would halve the precision of some of the sums
        chosen, found = _LogProbs.apply(hidden, weight, bias, targets, dtype, entropy, at_once)
    return chosen, found if entropy else None


def of_device(sizes: Mapping[str, int], kind: str) -> int:
    """The size for a kind of device; every accelerator that is not named has that of CUDA."""
    return sizes["cpu" if kind == "cpu" else "cuda"]


class _LogProbs(torch.autograd.Function):
    """The tiles' running maximum m, sum of e^(l - m) and sum of (l - m) e^(l - m) give log p and H."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        dtype: torch.dtype,
        entropy: bool,
        at_once: int,
    ) -> tuple[Tensor, Tensor]:
        rows, exact = len(hidden), torch.float64 if dtype == torch.float64 else torch.float32
        top = hidden.new_full((rows,), torch.finfo(exact).min, dtype=exact)
        total, spread, chosen = (torch.zeros_like(top) for _ in range(3))
        tiles: list[Tensor] = []
        room = at_once if any(ctx.needs_input_grad[:3]) else 0
        for start, end in _tiles(hidden, weight):
            logits = _logits(hidden, weight, bias, start, end, dtype)
            room -= logits.numel()
            if room >= 0:
                tiles.append(logits)
            logits = logits.to(exact)
            here, place = _places(targets, start, end)
            chosen += logits.gather(1, place)[:, 0] * here
            before, top = top, torch.maximum(top, logits.amax(dim=1))
            shrunk = torch.exp(before - top)
            below = logits - top[:, None]
            weights = torch.exp(below)
            if entropy:
                spread = shrunk * (spread + (before - top) * total) + torch.linalg.vecdot(weights, below)
            total = shrunk * total + weights.sum(dim=1)
        log_z = top + torch.log(total)
        ctx.save_for_backward(hidden, weight, bias, targets, log_z, *tiles)
        ctx.dtype = dtype
        found = torch.log(total) - spread / total
        ctx.mark_non_differentiable(found)
        return chosen - log_z, found

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, log_z, *tiles = ctx.saved_tensors
        to_hidden, to_weight, to_bias = ctx.needs_input_grad[:3]
        slope = slopes[0].to(log_z.dtype)
        narrow = hidden.to(ctx.dtype)
        of_hidden = torch.zeros_like(hidden, dtype=log_z.dtype) if to_hidden else None
        of_weight = torch.empty_like(weight) if to_weight else None
        of_bias = torch.empty_like(bias) if to_bias else None
        for number, (start, end) in enumerate(_tiles(hidden, weight)):
            kept = number < len(tiles)
            logits = tiles[number] if kept else _logits(hidden, weight, bias, start, end, ctx.dtype)
            away = (logits.to(log_z.dtype) - log_z[:, None]).exp_().mul_(-slope[:, None])
            here, place = _places(targets, start, end)
            away.scatter_add_(1, place, (slope * here)[:, None])
            if of_bias is not None:
                of_bias[start:end] = away.sum(dim=0)
            away = away.to(ctx.dtype)
            if of_hidden is not None:
                of_hidden += away @ weight[start:end].to(ctx.dtype)
            if of_weight is not None:
                of_weight[start:end] = away.t() @ narrow
        first = None if of_hidden is None else of_hidden.to(hidden.dtype)
        return first, of_weight, of_bias, None, None, None, None


def _tiles(hidden: Tensor, weight: Tensor) -> Iterator[tuple[int, int]]:
    """(start, end) of every tile of the vocabulary."""
    width = max(1, of_device(TILE, hidden.device.type) // max(1, len(hidden)))
    if hidden.device.type != "cpu":
        width = max(ALIGNED, width // ALIGNED * ALIGNED)
    return ((start, min(start + width, len(weight))) for start in range(0, len(weight), width))


def _places(targets: Tensor, start: int, end: int) -> tuple[Tensor, Tensor]:
    """Which targets lie in a tile, [K] bool, and their columns there, [K, 1], 0 or the last for those that do not.

    Without an index by a mask: a GPU would have to tell the host how many there are, and the host would wait.
    """
    return (targets >= start) & (targets < end), (targets - start).clamp(0, end - start - 1)[:, None]


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, start: int, end: int, dtype: torch.dtype) -> Tensor:
    """Logits of one tile [K, end - start], as the product leaves them."""
    part = None if bias is None else bias[start:end].to(dtype)
    return linear(hidden.to(dtype), weight[start:end].to(dtype), part)
