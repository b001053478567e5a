"""Which weights a model has now, told without reading them all.

Whoever changes the weights of a followed model counts one change: its optimizer by a hook, and the functions of this
suite that write weights by `weights_changed`. A change that nobody counted is still seen in a glance: in the tensors'
own version counters (fused optimizers do not raise them), and in 64 numbers of every tensor. What stays unseen is a
write past all of these: uncounted, through `.data`, to none of the numbers that are looked at.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch

LOOKED_AT = 64
"""Numbers of a tensor that a glance compares, spread evenly over it."""


@dataclass
class _Followed:
    """A followed model: its number among them, the changes so far, and what its weights were when first named."""

    number: int = field(default_factory=itertools.count().__next__)
    changes: int = 0
    digest: str | None = None
    glance: str = ""
    changes_at_digest: int = 0


_followed: WeakKeyDictionary[torch.nn.Module, _Followed] = WeakKeyDictionary()


def follow(model: torch.nn.Module, *optimizers: torch.optim.Optimizer) -> None:
    """Count the changes of a model's weights from now on, every step of those optimizers as one."""
    _followed.setdefault(model, _Followed())
    for optimizer in optimizers:
        optimizer.register_step_post_hook(lambda *_: weights_changed(model))


@contextmanager
def following(model: torch.nn.Module) -> Iterator[None]:
    """Follow a model for the block, in which only functions that count their changes may write its weights."""
    if model in _followed:
        yield
        return
    follow(model)
    try:
        yield
    finally:
        del _followed[model]


def weights_changed(model: torch.nn.Module) -> None:
    """Say that a model's weights are not what they were. Costs nothing, and is right for any model."""
    if model in _followed:
        _followed[model].changes += 1


def weights_name(model: torch.nn.Module) -> str:
    """A name that two calls share only where the model's weights are the same.

    The sha256 of the weights for a model that nobody follows, and for a followed one until its first change; then that
    sha256 and the number of changes since.
    """
    from suite.policy.loading import model_digest  # which brings transformers with it

    known = _followed.get(model)
    if known is None:
        return model_digest(model)
    now = glance(model)
    if known.digest is None:
        known.digest, known.glance, known.changes_at_digest = model_digest(model), now, known.changes
    since = known.changes - known.changes_at_digest
    if since == 0 and now == known.glance:
        return known.digest
    return f"{known.digest} after {since} changes of model {known.number}, {now}"


@torch.no_grad()
def glance(model: Any) -> str:
    """A short hash of some numbers of every weight, of the tensors' version counters and of their names."""
    digest, seen = hashlib.blake2b(digest_size=16), []
    for name, tensor in model.state_dict(keep_vars=True).items():
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0{tensor._version}\0".encode())
        flat = tensor.detach().reshape(-1)
        seen.append(flat[:: max(1, len(flat) // LOOKED_AT)].double())
        seen.append(flat[-1:].double())
    digest.update(torch.cat(seen).cpu().numpy().tobytes() if seen else b"")
    return digest.hexdigest()
