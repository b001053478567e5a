"""A pretended CUDA device: tensors say `cuda:0`, hold CPU values, refuse what CUDA refuses, and count what CUDA pays for.

    with PretendedCuda() as cuda:
        model.to("cuda")
        ...
    cuda.launches, cuda.waits, cuda.sites

Refused, as on a card: a CPU tensor of one axis or more beside a CUDA tensor (indices of a CUDA tensor may live on the
CPU), CPU generators for draws on the device, `.numpy()`, and what the kernel of variable-length attention does not take.
Launches are operators that compute or copy on the device; views and allocations launch nothing. Host waits are what
makes the host wait until the device has caught up: numbers that it reads (`.item()`, `if x:`), sizes that it must learn
(nonzero, an index by a mask), copies to the host, and copies from the host's memory.

Only what programs can see is pretended. To torch's dispatcher the tensors are of the `lazy` device type, which every
build of torch knows, whose backward pass runs in the calling thread, and which nothing else here uses.
"""

from __future__ import annotations

import linecache
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn, no_grad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("cuda", 0)
HIDDEN = torch.device("lazy", 0)
ROOT = Path(__file__).resolve().parent.parent
ROOMS = tuple(f"{ROOT / room}/" for room in ("suite", "baselines", "fspo", "tasks", "benchmarks"))

INDEXED = {"index", "_unsafe_index", "index_put", "index_put_", "_index_put_impl_"}
COPIES = {"_to_copy", "copy_"}
"""Operators that may have a foot on the host and one on the device."""
SIZE_UNKNOWN = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "bincount"}
"""Operators of which the host must learn how large the answer is."""
ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view", "detach",
               "lift_fresh", "alias", "_local_scalar_dense"}  # fmt: skip
"""Operators that compute nothing, beside views."""
LOWER = {
    "linear", "matmul", "mm", "mv", "bmm", "addmm", "addmv", "addr", "addbmm", "baddbmm", "einsum", "chain_matmul",
    "linalg_multi_dot", "linalg_vecdot", "scaled_dot_product_attention", "_scaled_dot_product_flash_attention",
    "prelu", "conv1d", "conv2d", "conv3d", "convolution", "_convolution",
}  # fmt: skip
"""Operators that autocast on CUDA runs in half precision."""
WIDEST = {"addcdiv", "addcmul", "atan2", "bilinear", "cross", "dot", "vdot", "tensordot", "index_put", "scatter_add"}
"""Operators that autocast on CUDA runs in the widest precision among their arguments; all others in float32."""


class PretendedTensor(torch.Tensor):
    """A tensor that says `cuda:0`; its values are those of `inner`, a CPU tensor."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @staticmethod
    def __new__(cls, inner: Tensor) -> PretendedTensor:
        autocast = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCUDA)
        made = torch.Tensor._make_wrapper_subclass(
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=HIDDEN, _extra_dispatch_keys=autocast,
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self, **options: Any) -> str:
        return f"pretended cuda:0 {self.inner!r}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            made: Any = PretendedTensor(self.inner.detach().clone()).requires_grad_(self.requires_grad)
            if isinstance(self, nn.Parameter):
                made._is_param = True
            memo[id(self)] = made
        return memo[id(self)]

    def __getitem__(self, index: Any) -> Tensor:
        return super().__getitem__(_lists_as_tensors(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(_lists_as_tensors(index), value)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("a pretended tensor is not written anywhere; copy it to the host first")

    def __array__(self, *options: Any) -> Any:
        return self.numpy()

    def numpy(self, *options: Any, **more: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def get_device(self) -> int:
        return 0

    def untyped_storage(self) -> Any:
        return self.inner.untyped_storage()

    def __tensor_flatten__(self) -> tuple[list[str], None]:  # tells Module.to to put new tensors in a parameter's place
        return ["inner"], None

    @staticmethod
    def __tensor_unflatten__(parts: Mapping[str, Tensor], *rest: Any) -> PretendedTensor:
        return PretendedTensor(parts["inner"])

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return PretendedCuda.current().run(func, args, kwargs or {})


@dataclass
class Counts:
    """Launches by operator, host waits by kind, and `sites`: the lines of ours that made the host wait."""

    launches: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    sites: Counter[str] = field(default_factory=Counter)

    def waits_of(self, *files: str) -> int:
        """How often the host waited because of a line in one of these files, such as "suite/update.py"."""
        return sum(count for site, count in self.sites.items() if site.startswith(tuple(f"{f}:" for f in files)))

    def report(self) -> str:
        """The sites, most frequent first."""
        return "\n".join(f"{count:6} {site}" for site, count in self.sites.most_common())


class PretendedCuda(TorchDispatchMode):
    """The device, there as long as the context lasts. Tensors that outlive it can no longer be computed with."""

    _there: list[PretendedCuda] = []  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.counts = [Counts()]
        self._open = ExitStack()

    @classmethod
    def current(cls) -> PretendedCuda:
        """The device that is there."""
        assert cls._there, "a tensor of a pretended device, which is gone"
        return cls._there[-1]

    @contextmanager
    def counting(self) -> Iterator[Counts]:
        """What is launched and waited for inside the context."""
        self.counts.append(Counts())
        try:
            yield self.counts[-1]
        finally:
            self.counts.pop()

    def __enter__(self) -> PretendedCuda:
        _register_autocast()
        for name, value in _ANSWERS.items():
            self._open.enter_context(mock.patch(name, value))
        self._open.enter_context(mock.patch("torch.cuda.synchronize", lambda *a: self._wait("synchronize")))
        # Inference mode without inference tensors, which no tensor of another class can be.
        self._open.enter_context(mock.patch("torch._C._InferenceMode", lambda on: no_grad() if on else nullcontext()))
        groups = torch._C._group_tensors_by_device_and_dtype
        self._open.enter_context(mock.patch("torch._C._group_tensors_by_device_and_dtype", _with_our_name(groups)))
        self._open.enter_context(_Translated())
        self._there.append(self)
        return super().__enter__()

    def __exit__(self, *error: Any) -> Any:
        found = super().__exit__(*error)
        self._there.remove(self)
        self._open.close()
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.run(func, args, kwargs or {})

    def run(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """An operator, on the device where it belongs there: checked, counted, and computed on the CPU."""
        name = func._schema.name.split("::")[1]
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        ours = [x for x in tensors if isinstance(x, PretendedTensor)]
        asked = kwargs.get("device")
        makes = asked is not None and asked.type in (HIDDEN.type, DEVICE.type)
        if not ours and not makes:
            return func(*args, **kwargs)
        _refuse(func, name, args, kwargs, [x for x in tensors if not isinstance(x, PretendedTensor)])
        if not func.is_view and name not in ALLOCATIONS:
            for counts in self.counts:
                counts.launches[name] += 1
        if why := _why_the_host_waits(name, args, kwargs, ours):
            self._wait(why)
        named = {a.name: x for a, x in zip(func._schema.arguments, args, strict=False)} | kwargs
        if name in _KERNELS:
            found = _KERNELS[name](**tree_map(_inner, named))
        else:
            cpu = {**kwargs, "device": torch.device("cpu")} if makes else kwargs
            with no_grad():
                found = func(*tree_map(_inner, args), **tree_map(_inner, cpu))
        on_host = not makes and asked is not None or name == "copy_" and not isinstance(args[0], PretendedTensor)
        return tree_map(lambda x: _outer(x, ours, on_host), found)

    def _wait(self, why: str) -> None:
        for counts in self.counts:
            counts.waits[why] += 1
            counts.sites[f"{_site()} [{why}]"] += 1


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, PretendedTensor) else x


def _outer(x: Any, ours: Sequence[PretendedTensor], on_host: bool) -> Any:
    """A result as the program sees it; an operator that wrote into a tensor of ours returns that tensor."""
    if not isinstance(x, Tensor) or isinstance(x, PretendedTensor):
        return x
    mine = next((own for own in ours if own.inner is x), None)
    if on_host:
        return x if mine is None else x.clone()
    if mine is not None:
        assert mine.shape == x.shape, "an operator changed the shape of a tensor in place, which is not pretended"
        return mine
    return PretendedTensor(x)


def _refuse(func: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], others: Sequence[Tensor]) -> None:
    """RuntimeError, as torch raises it, for what a CUDA device does not take."""
    generator = kwargs.get("generator")
    if generator is not None:
        raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' in {func}")
    if name in COPIES:
        return
    indices = [id(x) for x in tree_leaves(args[1])] if name in INDEXED else []
    if indices and not isinstance(args[0], PretendedTensor):
        raise RuntimeError("indices should be either on cpu or on the same device as the indexed tensor (cpu)")
    wrong = [tuple(x.shape) for x in others if x.dim() > 0 and id(x) not in indices]
    if wrong:
        raise RuntimeError(f"Expected all tensors to be on the same device, but found cuda:0 and cpu {wrong} in {func}")


def _why_the_host_waits(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], ours: Sequence[PretendedTensor]
) -> str | None:
    """What the host waits for, or None."""
    if name == "_local_scalar_dense" or name == "equal":
        return "a number is read"
    if name in SIZE_UNKNOWN or (name == "repeat_interleave" and kwargs.get("output_size") is None):
        return f"the size of {name}"
    if name == "isin" and isinstance(args[1], Tensor) and args[1].numel() >= 10 * max(1, args[0].numel()) ** 0.145:
        return "the size of isin"  # it sorts
    if name in INDEXED:
        indices = [x for x in tree_leaves(args[1]) if isinstance(x, Tensor)]
        if any(x.dtype == torch.bool for x in indices):
            return "the size of an index by a mask"
        if not all(isinstance(x, PretendedTensor) for x in indices):
            return "a copy from the host"
    if name in COPIES and not all(isinstance(x, PretendedTensor) for x in args if isinstance(x, Tensor)):
        return "a copy to the host" if name == "copy_" and args[1] is ours[0] else "a copy from the host"
    if name == "_to_copy" and kwargs.get("device") == torch.device("cpu"):
        return "a copy to the host"
    return None


def _site() -> str:
    """The innermost line of ours that is being executed."""
    frame: Any = sys._getframe(1)
    while frame is not None and not frame.f_code.co_filename.startswith(ROOMS):
        frame = frame.f_back
    if frame is None:
        return "elsewhere"
    file = frame.f_code.co_filename
    return f"{Path(file).relative_to(ROOT)}:{frame.f_lineno} {linecache.getline(file, frame.f_lineno).strip()}"


# --- what programs see of the device --------------------------------------------------------------

_ANSWERS: dict[str, Callable[..., Any]] = {
    "torch.cuda.is_available": lambda: True,
    "torch.cuda.device_count": lambda: 1,
    "torch.cuda.current_device": lambda: 0,
    "torch.cuda.get_device_name": lambda *a: "a pretended device",
    "torch.cuda.is_bf16_supported": lambda *a, **k: True,
    "torch.cuda.is_current_stream_capturing": lambda: False,
    "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
    "torch.cuda.empty_cache": lambda: None,
    "torch.cuda.reset_peak_memory_stats": lambda *a: None,
    "torch.cuda.max_memory_allocated": lambda *a: 0,
}
"""What torch answers while the device is there."""


class _Translated(TorchFunctionMode):
    """Names of the device, given to any function of torch, as what the dispatcher knows it by."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.to:
            return func(*map(_hidden, args), **{name: _hidden(x) for name, x in kwargs.items()})
        if func is torch.Tensor.cuda:
            return args[0].to(HIDDEN)
        if kwargs.get("device") is None:
            return func(*args, **kwargs)
        kwargs = {**kwargs, "device": _hidden(torch.device(kwargs["device"]))}
        if kwargs["device"] == HIDDEN and func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor):
            return func(*args, **{**kwargs, "device": None}).to(HIDDEN)
        return func(*args, **kwargs)


def _hidden(x: Any) -> Any:
    return HIDDEN if isinstance(x, str | torch.device) and str(x).startswith(DEVICE.type) else x


def _with_our_name(groups: Callable[..., Any]) -> Callable[..., Any]:
    """Tensors in groups by device, of the device's own name, which decides whether an optimizer's loop is one kernel."""

    def grouped(*args: Any) -> dict[Any, Any]:
        return {(DEVICE if d == HIDDEN else d, dtype): x for (d, dtype), x in groups(*args).items()}

    return grouped


def _lists_as_tensors(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(torch.tensor(x) if isinstance(x, list) else x for x in index)
    return torch.tensor(index) if isinstance(index, list) else index


def _register_autocast() -> None:
    """Autocast of CUDA for our tensors: torch's own kernels under that key pass over tensors that are no CUDA tensors."""
    if _LIBRARY:
        return
    _LIBRARY.append(torch.library.Library("aten", "IMPL"))
    key = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCUDA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for full in torch._C._dispatch_get_registrations_for_dispatch_key("AutocastCUDA"):
            name, _, overload = full.removeprefix("aten::").partition(".")
            if full.startswith("aten::"):
                operator = getattr(getattr(torch.ops.aten, name), overload or "default")
                _LIBRARY[0].impl(full.removeprefix("aten::"), _autocast(name, operator, key), "AutocastCUDA")


_LIBRARY: list[torch.library.Library] = []


def _autocast(name: str, operator: Any, key: Any) -> Callable[..., Any]:
    def cast(*args: Any, **kwargs: Any) -> Any:
        floats = [x.dtype for x in tree_leaves((args, kwargs)) if isinstance(x, PretendedTensor) and x.is_floating_point()]
        target = torch.float32
        if name in LOWER:
            target = torch.get_autocast_dtype("cuda")
        elif name in WIDEST and floats:
            target = max(floats, key=lambda dtype: torch.finfo(dtype).bits)

        def narrow(x: Any) -> Any:
            return x.to(target) if isinstance(x, PretendedTensor) and x.dtype in _CAST and x.dtype != target else x

        with torch._C._ExcludeDispatchKeyGuard(key):
            return operator(*tree_map(narrow, args), **tree_map(narrow, kwargs))

    return cast


_CAST = (torch.float32, torch.bfloat16, torch.float16)


# --- attention over sequences of many lengths -----------------------------------------------------


def _by_sequence(ends: Tensor, *tensors: Tensor) -> Iterator[list[Tensor]]:
    """Each sequence's part of tensors [N, heads, e], as float32 [heads, tokens, e]."""
    sizes = ends.diff().tolist()
    for parts in zip(*(x.float().split(sizes) for x in tensors), strict=True):
        yield [x.transpose(0, 1) for x in parts]


def _weights(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """softmax(scale q k^T) [heads, tokens, tokens] over what lies not behind each token."""
    scores = scale * query @ key.transpose(1, 2)
    return scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)


def _demand(query: Tensor, key: Tensor, ends: Tensor, window: Sequence[int] | None) -> None:
    """RuntimeError for what the kernel on a card does not take."""
    width = query.shape[-1]
    if query.dtype not in (torch.bfloat16, torch.float16) or key.dtype != query.dtype:
        raise RuntimeError(f"FlashAttention only support fp16 and bf16 data type, not {query.dtype} and {key.dtype}")
    if ends.dtype != torch.int32:
        raise RuntimeError(f"cu_seqlens_q must have dtype int32, not {ends.dtype}")
    if width % 8 or width > 256:
        raise RuntimeError(f"FlashAttention forward wants a head dimension of a multiple of 8 up to 256, not {width}")
    if query.shape[1] % key.shape[1]:
        raise RuntimeError("Number of heads in key/value must divide number of heads in query")
    if list(window or ()) != [-1, 0]:
        raise RuntimeError(f"only causal attention is pretended, not a window of {window}")
    if int(ends[-1]) != len(query):
        raise RuntimeError(f"the last sequence ends at {int(ends[-1])} of {len(query)} tokens")


def _forward(
    query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, scale: float | None = None,
    window_size: Sequence[int] | None = None, **rest: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Causal attention of each sequence to itself: P v with P of `_weights`."""
    _demand(query, key, cu_seq_q, window_size)
    scale, group = scale or query.shape[-1] ** -0.5, query.shape[1] // key.shape[1]
    key, value = (x.repeat_interleave(group, dim=1) for x in (key, value))
    found = [_weights(q, k, scale) @ v for q, k, v in _by_sequence(cu_seq_q, query, key, value)]
    states = torch.cat(found, dim=1).transpose(0, 1).to(query.dtype)
    return states.contiguous(), torch.zeros(query.shape[1], len(query)), torch.zeros(2, dtype=torch.uint64)


def _backward(
    grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, scale: float | None = None,
    **rest: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    """dv = P^T do, ds = P (do v^T - sum of P do v^T), dq = scale ds k, dk = scale ds^T q; summed over shared heads."""
    scale, group = scale or query.shape[-1] ** -0.5, query.shape[1] // key.shape[1]
    wide = [x.repeat_interleave(group, dim=1) for x in (key, value)]
    slopes: list[list[Tensor]] = []
    for q, k, v, do in _by_sequence(cu_seq_q, query, *wide, grad_out):
        p, dp = _weights(q, k, scale), do @ v.transpose(1, 2)
        ds = p * (dp - (p * dp).sum(dim=-1, keepdim=True))
        slopes.append([scale * ds @ k, scale * ds.transpose(1, 2) @ q, p.transpose(1, 2) @ do])
    dq, dk, dv = (torch.cat(parts, dim=1).transpose(0, 1) for parts in zip(*slopes, strict=True))
    dk, dv = (x.unflatten(1, (-1, group)).sum(dim=2) for x in (dk, dv))
    return tuple(x.to(query.dtype).contiguous() for x in (dq, dk, dv))


_KERNELS: dict[str, Callable[..., tuple[Tensor, ...]]] = {"_varlen_attn": _forward, "_varlen_attn_backward": _backward}
