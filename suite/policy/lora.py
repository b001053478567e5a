"""Low-rank adapters (LoRA, arXiv 2106.09685): W x becomes W x + (alpha / rank) B A x, and only A and B are trained.

The adapters sit inside the model, which stays a plain transformers model to everything that samples or scores with it.
The only module that imports peft.
"""

from __future__ import annotations

import copy
from importlib.util import find_spec
from typing import Any

import torch

from suite.policy.revisions import weights_changed
from suite.records.installation import pip_install
from suite.seeds import generator
from suite.types import UserError

INSTALL = f"run `{pip_install('lora')}`, or train all weights with train.lora_rank=0"


def require_peft() -> None:
    """UserError where peft is not installed."""
    if find_spec("peft") is None:
        raise UserError(f"train.lora_rank is set, but peft is not installed; {INSTALL}")


def add_adapters(model: Any, rank: int, alpha: float, targets: str, seed: int) -> None:
    """Freeze the model and give its linear layers adapters, in place.

    `targets` is "all-linear" (every linear layer but the output head) or names of layers such as "q_proj,v_proj".
    B = 0, so the model computes what it did; A is peft's uniform draw, a function of `seed` alone.

    UserError: peft is missing, no such layer, embeddings or the head among the layers (scores read the head's weights).
    """
    require_peft()
    from peft import LoraConfig, inject_adapter_in_model  # pyright: ignore[reportMissingImports]

    names = targets if targets == "all-linear" else targets.split(",")
    scale: Any = alpha  # peft divides it by the rank, whole or not
    config = LoraConfig(r=rank, lora_alpha=scale, target_modules=names, lora_dropout=0.0, bias="none")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.set_state(generator(seed, "adapters").get_state())
        try:
            inject_adapter_in_model(config, model)
        except ValueError as error:
            reason = str(error).strip().split("\n", 1)[0][:300]
            raise UserError(f"train.lora_targets = {targets!r}: {reason}") from error
    layers = dict(_adapted(model))
    known = {part for name in layers for part in _endings(name)}
    if names != "all-linear" and (missing := [name for name in names if name not in known]):
        raise UserError(f"train.lora_targets = {targets!r}: the model has no layer {missing[0]!r}")
    ends = {id(model.get_input_embeddings()), id(model.get_output_embeddings())}
    if any(id(layer) in ends for layer in layers.values()):
        raise UserError(f"train.lora_targets = {targets!r}: neither embeddings nor the output head; leave them out")
    model.eval()
    weights_changed(model)


def fold_adapters(model: Any) -> None:
    """Make it a plain model again, in place: W + (alpha / rank) B A where W was, every weight trainable."""
    for name, layer in _adapted(model):
        layer.merge()
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, layer.get_base_layer())
    if hasattr(model, "peft_config"):
        del model.peft_config
    model.requires_grad_(True)
    weights_changed(model)


def merged(model: Any) -> Any:
    """The model itself, or, where it has adapters, a plain copy of today's policy."""
    if not hasattr(model, "peft_config"):
        return model
    whole = copy.deepcopy(model)
    fold_adapters(whole)
    return whole


def _adapted(model: Any) -> list[tuple[str, Any]]:
    """Name and layer of everything with an adapter."""
    from peft.tuners.lora import LoraLayer  # pyright: ignore[reportMissingImports]

    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, LoraLayer)]


def _endings(name: str) -> list[str]:
    """What a layer may be called by: "mlp.up_proj" is known as itself and as "up_proj"."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(len(parts))]
