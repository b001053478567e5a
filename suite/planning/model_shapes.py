"""Sizes of a decoder: from its config on disk, or from a table of published shapes; no weights needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM

from suite.experiments.models import SMOLLM2, is_smollm2, model_folder
from suite.types import UserError

_QWEN3 = {"head_dim": 128, "num_key_value_heads": 8, "vocab_size": 151936, "max_position_embeddings": 40960}
PUBLISHED: Mapping[str, tuple[str, Mapping[str, Any], str]] = {
    "Qwen/Qwen3-0.6B": (
        "qwen3",
        {
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "tie_word_embeddings": True,
            **_QWEN3,
        },
        "config.json of Qwen/Qwen3-0.6B on the hub",
    ),
    "Qwen/Qwen3-1.7B": (
        "qwen3",
        {
            "hidden_size": 2048,
            "intermediate_size": 6144,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "tie_word_embeddings": True,
            **_QWEN3,
        },
        "config.json of Qwen/Qwen3-1.7B on the hub",
    ),
    "Qwen/Qwen3-8B": (
        "qwen3",
        {
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "tie_word_embeddings": False,
            **_QWEN3,
        },
        "config.json of Qwen/Qwen3-8B on the hub",
    ),
    "HuggingFaceTB/SmolLM2-135M-Instruct": (
        "llama",
        {
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "head_dim": 64,
            "vocab_size": 49152,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
        "config.json of HuggingFaceTB/SmolLM2-135M-Instruct on the hub",
    ),
}
"""Models of the hub by name: transformers' model type, the config's sizes, and where they stand."""
ALIASES = {
    SMOLLM2: "HuggingFaceTB/SmolLM2-135M-Instruct",
    "Qwen/Qwen3-0.6B-Base": "Qwen/Qwen3-0.6B",
    "Qwen/Qwen3-1.7B-Base": "Qwen/Qwen3-1.7B",
    "Qwen/Qwen3-8B-Base": "Qwen/Qwen3-8B",
}
"""Names of models with the shape of another."""


@dataclass(frozen=True)
class ModelShape:
    """Counts of a plain decoder: parameters [all], linear [weights of its products, the head's included] and its sizes.

    outside_layers are the parameters in no layer: embedding, head and last norm, which FSDP keeps as one root group.
    queries and keys are heads x head size and key-value heads x head size; adapted is the sum of inputs and outputs of
    the layers' products, so that a LoRA of rank r has r x adapted parameters.
    """

    name: str
    parameters: int
    linear: int
    layers: int
    hidden: int
    heads: int
    key_value_heads: int
    queries: int
    keys: int
    feed_forward: int
    vocabulary: int
    tied: bool
    query_norm: bool
    largest: int
    outside_layers: int
    adapted: int
    source: str

    @property
    def facts(self) -> str:
        """The shape in a line."""
        return (
            f"{self.name}: N = {self.parameters:,} parameters, {self.layers} layers, hidden {self.hidden}, "
            f"heads {self.heads} ({self.key_value_heads} key-value), feed-forward {self.feed_forward}, "
            f"vocabulary {self.vocabulary:,}{', tied embeddings' if self.tied else ''} ({self.source})"
        )


def model_shape(reference: str) -> ModelShape:
    """The shape of the model that a reference names: embedded, a local folder, or a known hub id. Loads no weights.

    SmolLM2 is known by its hub id's sizes, fetched or not.

    UserError for a model whose config is neither on this machine nor in the table.
    """
    fetched = is_smollm2(reference)
    folder = None if fetched else model_folder(reference)
    if folder is not None:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return _shape(reference, config, f"{folder.name}/config.json")
    name = ALIASES.get(SMOLLM2 if fetched else reference, reference)
    if name not in PUBLISHED:
        known = ", ".join(("embedded", *ALIASES, *PUBLISHED))
        raise UserError(
            f"model {reference!r}: its sizes are not known here; give a local model folder, or one of {known}"
        )
    kind, sizes, source = PUBLISHED[name]
    return _shape(reference, AutoConfig.for_model(kind, **sizes), source)


def _shape(name: str, config: Any, source: str) -> ModelShape:
    """Counts from a config, and from a model of it on the meta device."""
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()
    parameters = dict(model.named_parameters())
    products = {f"{key}.weight" for key, module in model.named_modules() if type(module).__name__ == "Linear"}
    head = model.get_output_embeddings().weight
    inside = [tuple(p.shape) for key, p in parameters.items() if key in products and p is not head]
    layers = {
        id(p) for part in model.modules() if type(part).__name__ in model._no_split_modules for p in part.parameters()
    }
    heads, keys = config.num_attention_heads, getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    return ModelShape(
        name=name,
        parameters=sum(p.numel() for p in parameters.values()),
        linear=sum(rows * columns for rows, columns in inside) + head.numel(),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        heads=heads,
        key_value_heads=keys,
        queries=heads * size,
        keys=keys * size,
        feed_forward=config.intermediate_size,
        vocabulary=config.vocab_size,
        tied=bool(config.tie_word_embeddings),
        query_norm=any(key.endswith("q_norm.weight") for key in parameters),
        largest=max(p.numel() for p in parameters.values()),
        outside_layers=sum(p.numel() for p in parameters.values() if id(p) not in layers),
        adapted=sum(rows + columns for rows, columns in inside),
        source=source,
    )
