"""What a method returned, checked before anything is made of it: a wrong shape would broadcast into a wrong loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from suite.types import Divisor, Method, Surrogate, UserError


def require_surrogate(method: Method, returned: Any, log_probs: Tensor) -> None:
    """UserError, with what was wrong, unless a method returned a Surrogate that fits log-probs [N, T], with gradients.

    `fspo method check` finds the same without a training run.
    """
    fault = _fault(returned, log_probs)
    if fault:
        raise UserError(
            f"{method.name}: its surrogate {fault}; fspo method check shows the smallest batch that does it"
        )


def require_state(method: Method, state: Any) -> None:
    """UserError unless a method's running estimates are finite numbers by name."""
    if not isinstance(state, Mapping):
        raise UserError(f"{method.name}: its observe returned {_kind(state)} where numbers by name are expected")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, Real) or not math.isfinite(value):
            raise UserError(f"{method.name}: its running estimate {name} is {value!r}, no finite number")


def _fault(returned: Any, log_probs: Tensor) -> str:
    if not isinstance(returned, Surrogate):
        return f"returned {_kind(returned)} where a Surrogate is expected"
    rows, columns = log_probs.shape
    for name in ("objective", "unclipped"):
        value = getattr(returned, name)
        if not isinstance(value, Tensor) or tuple(value.shape) != (rows,):
            return f"has a .{name} of {_kind(value)} where one number a response [{rows}] is expected"
        if not value.is_floating_point():
            return f"has a .{name} of {value.dtype} where floats are expected"
    if log_probs.requires_grad and not returned.objective.requires_grad:
        return "has an .objective that is detached from the log-probs: nothing would be learned"
    weight = returned.log_weight
    if not isinstance(weight, Tensor) or tuple(weight.shape) not in ((rows, 1), (rows, columns)):
        return f"has a .log_weight of {_kind(weight)} where [{rows}, 1] or [{rows}, {columns}] is expected"
    for name in ("outside_band", "clipped"):
        value = getattr(returned, name)
        if not isinstance(value, Tensor) or value.dtype != torch.bool or value.shape != weight.shape:
            return f"has a .{name} of {_kind(value)} where booleans in the shape of .log_weight are expected"
    if not isinstance(returned.divisor, Divisor):
        return f"has a .divisor of {_kind(returned.divisor)} where a Divisor is expected"
    return ""


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    return "None" if value is None else f"a {type(value).__name__}"
