"""What CUDA refuses, what it makes the host wait for, and counts of both: the rules of the pretended device."""

from __future__ import annotations

import linecache
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
ROOMS = tuple(f"{ROOT / room}/" for room in ("suite", "baselines", "fspo", "tasks", "benchmarks"))

INDEXED = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"}
COPIES = {"_to_copy", "copy_"}
"""Operators that may have a foot on the host and one on the device."""
SIZE_UNKNOWN = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"}
"""Operators of which the host must learn how large the answer is."""
ALLOCATIONS = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "_unsafe_view",
    "detach",
    "lift_fresh",
    "alias",
    "_local_scalar_dense",
}
"""Operators that compute nothing, beside views."""


@dataclass
class Counts:
    """Launches by operator, host waits by kind, and `sites`: the lines of ours that made the host wait."""

    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    sites: Counter[str] = field(default_factory=Counter)

    def waits_of(self, *files: str) -> int:
        """How often the host waited because of a line in one of these files, such as "suite/training/update.py"."""
        return sum(count for site, count in self.sites.items() if site.startswith(tuple(f"{f}:" for f in files)))

    def report(self) -> str:
        """The sites, most frequent first."""
        return "\n".join(f"{count:6} {site}" for site, count in self.sites.most_common())


def tensors_of(values: Iterable[Any]) -> Iterator[Tensor]:
    """The tensors among an operator's arguments, which nest no deeper than in one list."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from (x for x in value if isinstance(x, Tensor))


def refuse(func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], tensors: Sequence[Tensor]) -> None:
    """RuntimeError, as torch raises it, for what a CUDA device does not take."""
    generator = kwargs.get("generator")
    if generator is not None:
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' in {func}")
    if name in COPIES:
        return
    indices = [id(x) for x in tensors_of(args[1])] if name in INDEXED else []
    if indices and not args[0].is_cuda:
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    wrong = [tuple(x.shape) for x in tensors if not x.is_cuda and x.dim() > 0 and id(x) not in indices]
    if wrong:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu {wrong} in {func}")


def why_the_host_waits(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], tensors: Sequence[Tensor]
) -> str | None:
    """What the host waits for, or None."""
    if name in ("_local_scalar_dense", "equal"):
        return "a number is read"
    if name in SIZE_UNKNOWN or (name == "repeat_interleave" and kwargs.get("output_size") is None):
        return f"the size of {name}"
    if name == "isin" and isinstance(args[1], Tensor) and args[1].numel() >= 10 * max(1, args[0].numel()) ** 0.145:
        return "the size of isin"  # which sorts so many
    if name in INDEXED:
        indices = list(tensors_of(args[1]))
        if any(x.dtype == torch.bool for x in indices):
            return "the size of an index by a mask"
        return None if all(x.is_cuda for x in indices) else "a copy from the host"
    if name in COPIES and tensors[-1].numel() > 0:
        asked = kwargs.get("device")
        if not tensors[-1].is_cuda:
            return "a copy from the host"
        if not tensors[0].is_cuda or (asked is not None and asked.type == "cpu"):
            return "a copy to the host"
    return None


def site_of_ours() -> str:
    """The innermost line of ours that is being executed."""
    frame: Any = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(ROOMS):
        frame = frame.f_back
    if frame is None:
        return "elsewhere"
    file = frame.f_code.co_filename
    return f"{Path(file).relative_to(ROOT)}:{frame.f_lineno} {linecache.getline(file, frame.f_lineno).strip()}"
