"""Models cut among the processes of one run: torch's FSDP2. The only module that imports it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import MethodType
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from suite.policy.ranks import full_tensor
from suite.policy.revisions import weights_changed

T = TypeVar("T")


def shard(model: nn.Module, processes: int) -> None:
    """Cut every parameter of a model among the processes, in place; a layer is whole for the time of its pass alone.

    What a process keeps lies on its GPU where there is one, wherever the model was.

    Gradients of all processes are added up, not averaged: the counts that they are divided by are those of the step.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (processes,))
    names = {name for part in model.modules() for name in getattr(part, "_no_split_modules", None) or ()}
    for part in [part for part in model.modules() if type(part).__name__ in names]:
        fully_shard(part, mesh=mesh)
    fully_shard(model, mesh=mesh)
    for part in model.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    object.__setattr__(model, "through", MethodType(_through, model))
    register_fsdp_forward_method(model, "through")


def sharded_copy(model: Any, processes: int) -> Any:
    """A copy of a model, cut; the model itself stays whole."""
    cut = copy.deepcopy(model)
    shard(cut, processes)
    return cut


def _through(model: Any, function: Callable[..., T], *arguments: Any) -> T:
    return function(model, *arguments)


def gather_into(model: nn.Module, cut: nn.Module) -> None:
    """Give a whole model the weights that its cut copy trains."""
    reshard(cut)
    for mine, theirs in zip(model.parameters(), cut.parameters(), strict=True):
        if theirs.requires_grad:
            full = full_tensor(theirs.detach())
            if not mine.is_meta:  # a process whose own copy nobody reads
                mine.data.copy_(full)
    weights_changed(model)


def let_go(model: nn.Module) -> None:
    """Give a model's weights back, in place, where nobody reads them: its shape stays, and reading them fails."""
    empty = {p: nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in model.parameters()}  # tied ones once
    for part in model.modules():
        part._parameters.update({name: empty[p] for name, p in part._parameters.items() if p is not None})


def reshard(cut: nn.Module) -> None:
    """Bring a cut model back to its shards, if a pass without gradients has left some of it whole."""
    from torch.distributed.fsdp import FSDPModule

    for part in cut.modules():
        if isinstance(part, FSDPModule):
            part.reshard()


def put(place: Tensor, full: Tensor) -> Tensor:
    """What a process keeps of `full` where `place` is cut, in the same way; all of it where `place` is not."""
    if not hasattr(place, "full_tensor"):
        return full
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(place, DTensor)
    local = full.to(place.device)
    return distribute_tensor(local, place.device_mesh, place.placements, src_data_rank=None)
