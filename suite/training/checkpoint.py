"""Checkpoints: one safetensors file with every tensor and one JSON text with every number. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn, optim

from suite.policy.ranks import full_tensor
from suite.policy.revisions import weights_changed
from suite.records.seals import BLANK, check_seal, write_sealed
from suite.training.sharding import put
from suite.types import UserError

NUMBERS, SEAL = "fspo_checkpoint_3", "sealed"
"""Where the numbers stand in the file. Raised with what they mean: a checkpoint of another version is refused."""


def save_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, optim.Optimizer],
    numbers: Mapping[str, Any],
    writes: bool = True,
) -> None:
    """Write trained weights, optimizer moments and `numbers` (plain JSON data) in one move.

    What is cut among processes is gathered by all of them, and written by the one that `writes`: the file is the same
    whatever their number.
    """

    def kept(tensor: Tensor) -> Tensor:
        full = full_tensor(tensor.detach())
        return full.cpu().clone() if writes else torch.empty(0)

    tensors: dict[str, Tensor] = {}
    for name, module in modules.items():
        tensors.update({f"{name}.{key}": kept(parameter) for key, parameter in _trained(module)})
    for name, optimizer in optimizers.items():
        for index, entry in optimizer.state_dict()["state"].items():
            tensors.update({f"{name}.{index}.{key}": kept(value) for key, value in entry.items()})
    if writes:
        text = json.dumps({**numbers, SEAL: BLANK}, sort_keys=True)
        write_sealed(path, save(tensors, metadata={NUMBERS: text}))


def load_checkpoint(
    path: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, optim.Optimizer]
) -> Mapping[str, Any]:
    """Put weights and moments back in place and return the numbers. An unreadable or altered file raises UserError."""
    try:
        check_seal(path, "delete it to start this run anew")
        with safe_open(path, framework="pt") as file:
            numbers = json.loads(file.metadata()[NUMBERS])
            del numbers[SEAL]
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no checkpoint of this suite ({error}); delete it to start this run anew") from error
    for name, module in modules.items():
        for key, parameter in _trained(module):
            parameter.data.copy_(put(parameter.data, tensors[f"{name}.{key}"]))
        weights_changed(module)
    for name, optimizer in optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        places = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for full, value in tensors.items():
            if full.startswith(f"{name}."):
                index, key = full.removeprefix(f"{name}.").split(".")
                place = places[int(index)].data
                state.setdefault(int(index), {})[key] = put(place, value) if value.shape == place.shape else value
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return numbers


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """What training moves; frozen weights are those of the start model."""
    return [(key, parameter) for key, parameter in module.named_parameters() if parameter.requires_grad]
