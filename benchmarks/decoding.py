"""One token for all rows at a time: the sampler's growing cache against a static one whose step is a CUDA graph.

Part of `benchmarks.gpu`. A graph has fixed shapes: rows that end stay in it, and it looks at the whole cache at every
token. So this is the most that one could gain: a full batch, of which nothing has ended, in a cache that ends up full.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import StaticCache

from suite.policy.kv_cache import growing_cache
from suite.records.costs import PEAK, SECONDS, Clock

UNSEEN = 4
"""Tokens before the clock starts: the first ones compile the step and record its graph."""
GROWING, STATIC = "decode, growing cache", "decode, static cache, graph"


@torch.no_grad()
def decoding(model: Any, rows: int, prompt: int, tokens: int) -> list[dict[str, Any]]:
    """Speed and peak memory of both, in bfloat16, greedy from random prompts; and how many tokens they agree on."""
    half = copy.deepcopy(model).to(torch.bfloat16)
    room = prompt + UNSEEN + tokens
    on_gpu = half.device.type == "cuda"
    graph: Any = torch.compile(half, mode="reduce-overhead") if on_gpu else torch.compile(half, backend="eager")
    found, drawn = [], []
    for phase, cache, forward in (
        (GROWING, growing_cache(), half),
        (STATIC, StaticCache(config=half.config, max_cache_len=room), graph),
    ):
        numbers, chosen = _decoded(half, forward, cache, rows, prompt, tokens)
        found.append({"phase": phase, **numbers})
        drawn.append(chosen)
    torch.compiler.reset()
    return [{**row, "tokens_agreed": float((drawn[0] == drawn[1]).float().mean())} for row in found]


def _decoded(
    model: Any, forward: Callable[..., Any], cache: Any, rows: int, prompt: int, tokens: int
) -> tuple[dict[str, float], Tensor]:
    """Speed of `tokens` steps of `forward` after a prompt read by the model itself; the tokens [rows, steps]."""
    noise = torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (rows, prompt), generator=noise).to(model.device)
    place = torch.arange(prompt, device=model.device).expand(rows, -1)

    def next_token(run: Callable[..., Any], ids: Tensor, place: Tensor) -> Tensor:
        logits = run(input_ids=ids, position_ids=place, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        return logits[:, -1].argmax(dim=-1, keepdim=True)

    chosen, clock = [next_token(model, ids, place)], Clock()
    for step in range(UNSEEN + tokens):
        if step == UNSEEN:
            _finished(model)
            clock = Clock()
        torch.compiler.cudagraph_mark_step_begin()
        chosen.append(next_token(forward, chosen[-1], place[:, :1] + prompt + step))
    _finished(model)
    clock.lap("decode")
    seconds = clock.costs[f"{SECONDS}decode"]
    numbers = {"tokens": rows * tokens, "seconds": seconds, "tokens_per_second": rows * tokens / seconds}
    return {**numbers, "peak_gib": clock.costs[f"{PEAK}decode"]}, torch.cat(chosen, dim=1)


def _finished(model: Any) -> None:
    """Wait for the device."""
    if model.device.type == "cuda":
        torch.cuda.synchronize()
