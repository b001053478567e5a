"""Sequences in one row without padding: each is scored as if it were alone, in every architecture that is let in."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.nn.attention.varlen import varlen_attn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from small_world import requests, tiny
from suite.policy.packed_attention import PACKED, Packing, kernel_options, packed_attention, use_packed_attention
from suite.policy.sampling import SamplingSettings, TransformersSampler
from suite.policy.scoring import pack, score
from suite.types import FinishReason, Rollout, UserError

SIZES = {
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_attention_heads": 6,
    "num_hidden_layers": 2,
    "head_dim": 8,
    "vocab_size": 40,
    "max_position_embeddings": 128,
}


def architecture(kind: str, heads: int = 2) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES, num_key_value_heads=heads)
    return AutoModelForCausalLM.from_config(config, attn_implementation="eager").double().eval()


def rollouts(*lengths: tuple[int, int]) -> list[Rollout]:
    draw = torch.Generator().manual_seed(1)
    ids = [torch.randint(1, 40, (p + r,), generator=draw).tolist() for p, r in lengths]
    return [
        Rollout(str(i), 0, i, tuple(x[:p]), tuple(x[p:]), (0.0,) * r, FinishReason.STOP)
        for i, (x, (p, r)) in enumerate(zip(ids, lengths, strict=True))
    ]


@pytest.mark.parametrize("heads", [1, 2, 6])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_packed_scores_and_gradients_are_those_of_each_sequence_alone(kind: str, heads: int) -> None:
    """Against transformers' eager attention over one sequence at a time, in float64 but for its norms and softmax."""
    model = architecture(kind, heads)
    drawn = rollouts((5, 11), (9, 7), (3, 1), (1, 30), (8, 8))
    expected, slopes = [], torch.linspace(-1, 1, sum(len(r.response_ids) for r in drawn), dtype=torch.float64)
    for r in drawn:
        logits = model(torch.tensor([r.prompt_ids + r.response_ids])).logits[0, len(r.prompt_ids) - 1 : -1]
        expected.append(torch.log_softmax(logits, -1).gather(1, torch.tensor(r.response_ids)[:, None])[:, 0])
    alone = torch.autograd.grad(torch.cat(expected), list(model.parameters()), slopes)
    batch = pack(drawn, range(5), "cpu")
    together = score(model, batch)[batch.response_mask]
    assert model.config._attn_implementation == PACKED
    torch.testing.assert_close(together, torch.cat(expected), rtol=1e-6, atol=1e-6)
    for mine, theirs in zip(torch.autograd.grad(together, list(model.parameters()), slopes), alone, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_activations_that_are_computed_twice_change_no_gradient_and_keep_less() -> None:
    """Layers of a checkpointed model keep their inputs alone; decoding keeps its cache, and no flag stays on."""
    model, drawn = architecture("qwen3"), rollouts((5, 11), (9, 7), (3, 20))
    batch, found, kept = pack(drawn, range(3), "cpu"), [], []
    for twice in (False, True):
        if twice:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x, s=sizes: s.append(x.numel()) or x, lambda x: x):
            value = score(model, batch).sum()
        found.append(torch.autograd.grad(value, list(model.parameters())))
        kept.append(sum(sizes))
        assert not any(module.training for module in model.modules())
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-9, atol=1e-12)
    assert kept[1] < kept[0] / 2
    assert len(model(torch.tensor([[1, 2]]), use_cache=True).past_key_values) == 2


def test_neighbours_do_not_change_a_score() -> None:
    """A sequence's scores are the same whatever lies before and behind it, up to rounding."""
    model = architecture("qwen3")
    drawn = rollouts((5, 11), (9, 7), (3, 20))
    first = score(model, pack(drawn, [0, 1, 2], "cpu"))
    other = score(model, pack(drawn, [2, 1], "cpu"))
    torch.testing.assert_close(first[1, :7], other[1, :7], rtol=1e-7, atol=1e-7)


def test_decoding_is_what_it_was() -> None:
    """The same responses from a model that attends through the suite's attention and from one that does not."""
    model, tokenizer = tiny()
    model.set_attn_implementation("sdpa")
    plain = TransformersSampler(model, tokenizer).sample(requests(tokenizer, 8), SamplingSettings(20))
    use_packed_attention(model)
    assert TransformersSampler(model, tokenizer).sample(requests(tokenizer, 8), SamplingSettings(20)) == plain


def test_a_window_that_is_too_small_is_refused() -> None:
    states = [torch.randn(1, 2, 12, 4) for _ in range(3)]
    packed_attention(None, *states, None, packing=Packing.of((8, 4), "cpu"), sliding_window=8)
    with pytest.raises(UserError, match="9 tokens is longer than the model's attention window of 8"):
        packed_attention(None, *states, None, packing=Packing.of((9, 3), "cpu"), sliding_window=8)


def oldest(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, -1)):
    """torch 2.11's signature."""


def newest(
    query,
    key,
    value,
    cu_seq_q,
    cu_seq_k,
    max_q,
    max_k,
    *,
    return_aux=None,
    scale=None,
    window_size=(-1, -1),
    enable_gqa=False,
    seqused_k=None,
    block_table=None,
    num_splits=None,
):
    """torch 2.13's signature."""


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("kernel", [oldest, newest, varlen_attn])
def test_the_kernel_is_told_only_what_its_torch_takes(kernel: Any, shared: bool) -> None:
    options = {"scale": 0.1, "window_size": (-1, 0), **kernel_options(kernel, shared)}
    inspect.signature(kernel).bind(*range(7), **options)
    takes_it = "enable_gqa" in inspect.signature(kernel).parameters
    assert options.get("enable_gqa") == (shared if takes_it else None)


@pytest.mark.parametrize("heads", [1, 2, 3, 6])
def test_a_decoding_step_copies_no_shared_head(heads: int) -> None:
    """One new token a row under a mask: transformers' attention, which copies keys and values for every query head."""
    draw = torch.Generator().manual_seed(heads)
    query, key, value = (torch.randn(3, h, t, 8, generator=draw).double() for h, t in ((6, 1), (heads, 9), (heads, 9)))
    mask = torch.ones(3, 1, 1, 9, dtype=torch.bool)
    mask[0, ..., :4] = mask[2, ..., :1] = False
    module = SimpleNamespace(num_key_value_groups=6 // heads, is_causal=True)
    ours, _ = packed_attention(module, query, key, value, mask, scaling=0.3)
    theirs, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
