"""Phases of the benchmark on a GPU that check the core's arithmetic on the device, and time its two kernels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn

from benchmarks.gpu_context import Context, head_in_tiles_of, head_tile, load, requests
from benchmarks.gpu_phases import Row
from suite.policy import packed_attention
from suite.policy.packed_attention import Packing
from suite.policy.sampling import HalfPrecisionSampler, SamplingSettings, TransformersSampler
from suite.policy.vocabulary_tiles import log_probs_of
from suite.records.costs import GIB
from suite.seeds import derive, gumbel_noise

HEADS = {
    "embedded": (4, 4, 32),
    "SmolLM2-135M": (9, 3, 64),
    "Qwen3-0.6B and 1.7B": (16, 8, 128),
    "Qwen3-8B": (32, 8, 128),
}
"""Query heads, key-value heads and head size of the models."""
RAGGED = (5, 130, 64, 257, 64, 1)
"""Lengths of the sequences that the kernel is checked on."""
TIMED = tuple(24 * (i % 36 + 1) for i in range(36))
"""Lengths of the sequences that it is timed on: 15,984 tokens."""
LENGTHS = (2048, 4096, 8192)


def device(context: Context) -> list[Row]:
    """What is there: card, memory, driver's libraries, and the signature of torch's kernel for many lengths."""
    row: Row = {"torch": torch.__version__, "cuda": torch.version.cuda, "device": "cpu"}
    row["varlen_takes_enable_gqa"] = "enable_gqa" in inspect.signature(varlen_attn).parameters
    row["head_tile"] = head_tile(context.device)
    if context.device == "cuda":
        card = torch.cuda.get_device_properties(0)
        row |= {
            "device": card.name,
            "memory_gib": card.total_memory / GIB,
            "processors": card.multi_processor_count,
            "cudnn": torch.backends.cudnn.version(),
            "devices": torch.cuda.device_count(),
        }
    return [row]


# --- packed attention -----------------------------------------------------------------------------


def kernel(context: Context) -> list[Row]:
    """The kernel for many lengths against one call a sequence, in the head shapes of the models."""
    rows = []
    for name, heads in HEADS.items():
        row: Row = {"heads_of": name, "heads": "{} / {} x {}".format(*heads), **compared(context.device, heads)}
        states = _states(context.device, heads, sum(TIMED))
        for path, run in _paths().items():
            found = context.lap(partial(_gradients, run, states, TIMED))
            row |= {f"{path}_seconds": found["seconds"], f"{path}_peak_gib": found["peak_gib"]}
        rows.append(row | {"timed_tokens": sum(TIMED)})
    return rows


def compared(device: str, heads: tuple[int, int, int]) -> Row:
    """Errors of both paths in bfloat16, outputs and gradients, against float32, relative to the largest value.

    The kernel passes where it is at most twice as far from float32 as one call a sequence.
    """
    states = _states(device, heads, sum(RAGGED))
    exact = _gradients(packed_attention._by_sequence, [x.float() for x in states], RAGGED)
    errors = {}
    for path, run in _paths().items():
        found = _gradients(run, states, RAGGED)
        errors[path] = max(
            float((x.float() - y).abs().max() / y.abs().max()) for x, y in zip(found, exact, strict=True)
        )
    return {f"{path}_error": error for path, error in errors.items()} | {
        "equal": errors["kernel"] <= 2 * errors["split"]
    }


def _paths() -> dict[str, Callable[..., Tensor]]:
    def kernel(query: Tensor, key: Tensor, value: Tensor, sizes: Sequence[int], scaling: float | None) -> Tensor:
        return packed_attention._by_kernel(query, key, value, Packing.of(sizes, query.device), scaling)

    return {"split": packed_attention._by_sequence, "kernel": kernel}


def _states(device: str, heads: tuple[int, int, int], tokens: int) -> list[Tensor]:
    """Queries, keys and values in bfloat16, each [1, heads, tokens, head size]."""
    noise = torch.Generator(device).manual_seed(0)
    shapes = [(1, count, tokens, heads[2]) for count in (heads[0], heads[1], heads[1])]
    return [torch.randn(shape, generator=noise, device=device).bfloat16() for shape in shapes]


def _gradients(path: Callable[..., Tensor], states: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
    """The output of a path, and the gradients of a fixed random product of it."""
    given = [x.clone().requires_grad_() for x in states]
    out = path(given[0], given[1], given[2], sizes, None)
    noise = torch.Generator(out.device).manual_seed(1)
    out.backward(torch.randn(out.shape, generator=noise, device=out.device).to(out.dtype))
    gradients = [x.grad for x in given if x.grad is not None]
    return [out.detach(), *gradients]


def attention_memory(context: Context) -> list[Row]:
    """GiB that float32 attention over one long sequence keeps for the backward pass; a fallback would keep T^2."""
    rows = []
    for length in LENGTHS:
        query, key = (torch.randn(1, h, length, 128, device=context.device, requires_grad=True) for h in (16, 8))
        before = torch.cuda.memory_allocated()
        out = packed_attention._by_sequence(query, key, key, (length,), None)
        kept = (torch.cuda.memory_allocated() - before) / GIB
        rows.append({"tokens": length, "kept_gib": kept, "output_gib": out.numel() * 4 / GIB})
        del out
    return rows


# --- the head -------------------------------------------------------------------------------------


def head(context: Context) -> list[Row]:
    """The output head by the tile of the vocabulary: scoring (with entropy), and forward and backward."""
    rows, width, vocabulary = context.work.head
    device, noise = context.device, torch.Generator(context.device).manual_seed(0)
    hidden = torch.randn(rows, width, generator=noise, device=device).bfloat16().requires_grad_()
    weight = nn.Parameter(torch.randn(vocabulary, width, generator=noise, device=device) * 0.02)
    targets = torch.randint(vocabulary, (rows,), generator=noise, device=device)

    def scoring() -> None:
        with torch.no_grad(), torch.autocast(device, torch.bfloat16):
            log_probs_of(hidden, weight, None, targets, dtype=torch.bfloat16)

    def update() -> None:
        with torch.autocast(device, torch.bfloat16):
            said, _ = log_probs_of(hidden, weight, None, targets, dtype=torch.bfloat16, entropy=False)
        said.sum().backward()

    found, flops = [], 2 * rows * width * vocabulary
    own = head_tile(device)
    for tile in sorted({own, *(2**power for power in context.work.tiles)}, key=lambda tile: (tile != own, tile)):
        row: Row = {"tile": tile, "power_of_two": tile.bit_length() - 1, "is_the_suites": tile == own}
        with head_in_tiles_of(tile):
            for name, run, passes in (("scoring", scoring, 1), ("update", update, 3)):
                hidden.grad = weight.grad = None
                lap = context.lap(run)
                row |= {f"{name}_seconds": lap["seconds"], f"{name}_mfu": context.mfu(passes * flops, lap["seconds"])}
                row["peak_gib"] = max(row.get("peak_gib", 0), lap["peak_gib"])
        found.append(row)
    return found


# --- texts and numbers ----------------------------------------------------------------------------


def texts(context: Context) -> list[Row]:
    """Share of equal responses of the embedded model: CPU against device, all at once against four at a time, again."""
    models = {where: load("embedded", where) for where in dict.fromkeys(("cpu", context.device))}
    tokenizer = models["cpu"].tokenizer
    asked = requests(tokenizer, min(8, context.work.problems), min(8, context.work.samples))

    def drawn(where: str, batch: int, half: bool) -> list[tuple[int, ...]]:
        kind: Any = HalfPrecisionSampler if half else TransformersSampler
        sampler = kind(models[where].model, tokenizer)
        return [r.response_ids for r in sampler.sample(asked, SamplingSettings(48, batch_size=batch))]

    rows = []
    for half, precision in ((False, "float32"), (True, "bfloat16")):
        whole = drawn(context.device, 256, half)
        others = {"again": drawn(context.device, 256, half), "four at a time": drawn(context.device, 4, half)}
        if not half:
            others["on the CPU"] = drawn("cpu", 256, half)
        for name, other in others.items():
            same = sum(x == y for x, y in zip(whole, other, strict=True)) / len(whole)
            rows.append({"precision": precision, "against": name, "equal_share": same, "responses": len(whole)})
    return rows


def numbers(context: Context) -> list[Row]:
    """The sampler's noise on the device against the CPU's, and the entropy inside autocast against outside."""
    keys = torch.tensor([derive(0, "x", i) for i in range(64)])
    here = gumbel_noise(keys, torch.arange(64), 50_000)
    there = gumbel_noise(keys.to(context.device), torch.arange(64, device=context.device), 50_000).cpu()
    generator = torch.Generator(context.device).manual_seed(0)
    hidden, weight = (
        torch.randn(*shape, generator=generator, device=context.device) for shape in ((64, 128), (5000, 128))
    )
    targets = torch.zeros(64, dtype=torch.long, device=context.device)
    outside = log_probs_of(hidden, weight, None, targets, dtype=torch.float32)[1]
    with torch.autocast(context.device, torch.bfloat16):
        inside = log_probs_of(hidden, weight, None, targets, dtype=torch.float32)[1]
    assert outside is not None
    assert inside is not None
    apart = float((inside - outside).abs().max())
    return [
        {
            "number": "Gumbel noise, device against CPU",
            "equal_share": float((here == there).float().mean()),
            "largest_gap": float((here - there).abs().max()),
        },
        {
            "number": "entropy in float32, inside autocast against outside",
            "equal_share": float((inside == outside).float().mean()),
            "largest_gap": apart,
        },
    ]
