"""A decoder of a standard architecture, small enough for a CPU, with a tokenizer of one token a character."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

PAD, BOS, EOS, UNKNOWN = "<pad>", "<bos>", "<eos>", "<unk>"


@dataclass(frozen=True)
class TinyShape:
    """The size of a tiny Qwen3 model; the vocabulary adds its own few rows."""

    width: int = 128
    """Size of the residual stream."""
    layers: int = 2
    """Count of decoder layers."""
    heads: int = 4
    """Count of attention heads, each with its own keys and values."""
    head_size: int = 32
    """Size of one head; engines for real models want 32 or more."""
    feed_forward: int = 384
    """Inner size of the feed-forward layers."""
    max_positions: int = 512
    """Longest prompt and response together, in tokens."""
    rope_theta: float = 10_000.0
    """Base of the rotary position angles."""


def character_tokenizer(alphabet: str, max_positions: int) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a character of `alphabet`; other characters become `<unk>`, nothing is added."""
    special = (PAD, BOS, EOS, UNKNOWN)
    vocabulary = {token: i for i, token in enumerate((*special, *alphabet))}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex("."), behavior="isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        padding_side="left",
        model_max_length=max_positions,
        clean_up_tokenization_spaces=False,
    )


def tiny_qwen3(shape: TinyShape, tokenizer: PreTrainedTokenizerFast, seed: int) -> Qwen3ForCausalLM:
    """A freshly initialised float32 model; the same seed gives the same weights."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        head_dim=shape.head_size,
        intermediate_size=shape.feed_forward,
        max_position_embeddings=shape.max_positions,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=True,
        pad_token_id=_id(tokenizer, PAD),
        bos_token_id=_id(tokenizer, BOS),
        eos_token_id=_id(tokenizer, EOS),
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config).float()


def _id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    return tokenizer.get_vocab()[token]
