"""Checkpoints: one safetensors file with every tensor and one JSON text with every number. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn, optim

from suite.files import write_atomically
from suite.types import UserError


def save_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, optim.Optimizer], numbers: Mapping[str, Any]
) -> None:
    """Write trained weights, optimizer moments and `numbers` (plain JSON data) in one move."""
    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        tensors.update({f"{name}.{key}": parameter.detach().clone() for key, parameter in _trained(module)})
    for name, optimizer in optimizers.items():
        for index, entry in optimizer.state_dict()["state"].items():
            tensors.update({f"{name}.{index}.{key}": value.clone() for key, value in entry.items()})
    write_atomically(path, save(tensors, metadata={"fspo_checkpoint": json.dumps(numbers, sort_keys=True)}))


def load_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, optim.Optimizer]
) -> Mapping[str, Any]:
    """Put weights and moments back in place and return the numbers. An unreadable file raises UserError."""
    try:
        with safe_open(path, framework="pt") as file:
            numbers = json.loads(file.metadata()["fspo_checkpoint"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no checkpoint of this suite ({error}); delete it to start this run anew") from error
    for name, module in modules.items():
        for key, parameter in _trained(module):
            parameter.data.copy_(tensors[f"{name}.{key}"])
    for name, optimizer in optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for full, value in tensors.items():
            if full.startswith(f"{name}."):
                index, key = full.removeprefix(f"{name}.").split(".")
                state.setdefault(int(index), {})[key] = value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return numbers


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """What training moves; frozen weights are those of the start model."""
    return [(key, parameter) for key, parameter in module.named_parameters() if parameter.requires_grad]
