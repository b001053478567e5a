"""A pretended CUDA device: tensors say `cuda:0`, hold CPU values, refuse what CUDA refuses, and count what it costs.

    with PretendedCuda() as cuda:
        model.to("cuda")
        ...
        with cuda.counting() as counts:
            model(ids)
    counts.launches, counts.waits, counts.sites

Refused, as on a card: a CPU tensor of one axis or more beside a CUDA tensor (indices of a CUDA tensor may live on the
CPU), CPU generators for draws on the device, `.numpy()`, and what the kernel of variable-length attention does not
take. Launches are operators that compute or copy on the device; views and allocations launch nothing. Host waits are
what makes the host wait until the device has caught up: numbers that it reads (`.item()`, `if x:`), sizes that it must
learn (nonzero, an index by a mask), copies to the host, and copies from the host's memory.

Only what programs can see is pretended. To torch's dispatcher the tensors are of the `lazy` device type, which every
build of torch knows, whose backward pass runs in the calling thread, and which nothing else here uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn, no_grad
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from pretended_kernels import AUTOCAST, KERNELS, autocast_for
from pretended_rules import ALLOCATIONS, Counts, refuse, site_of_ours, tensors_of, why_the_host_waits

DEVICE = torch.device("cuda", 0)
HIDDEN = torch.device("lazy", 0)


class PretendedTensor(torch.Tensor):
    """A tensor that says `cuda:0`; its values are those of `inner`, a CPU tensor."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl
    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    @staticmethod
    def __new__(cls, inner: Tensor) -> PretendedTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=HIDDEN,
            _extra_dispatch_keys=AUTOCAST,
        )
        made.inner = inner
        return made

    def __repr__(self, **options: Any) -> str:
        return f"pretended cuda:0 {self.inner!r}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            made: Any = self.detach().clone().requires_grad_(self.requires_grad)
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
        self._open.callback(autocast_for(PretendedTensor)._destroy)
        for name, value in _ANSWERS.items():
            self._open.enter_context(mock.patch(name, value))
        self._open.enter_context(mock.patch("torch.cuda.synchronize", self._synchronize))
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
        tensors = list(tensors_of([*args, *kwargs.values()]))
        ours = [x for x in tensors if isinstance(x, PretendedTensor)]
        asked = kwargs.get("device")
        makes = asked is not None and asked.type in (HIDDEN.type, DEVICE.type)
        if not ours and not makes:
            return func(*args, **kwargs)
        name = func._opname
        refuse(func, name, args, kwargs, tensors)
        if not func.is_view and name not in ALLOCATIONS:
            for counts in self.counts:
                counts.launches[name] += 1
        if why := why_the_host_waits(name, args, kwargs, tensors):
            self._wait(why)
        if name in KERNELS:
            named = {a.name: x for a, x in zip(func._schema.arguments, args, strict=False)} | kwargs
            found = KERNELS[name](**{key: _inner(x) for key, x in named.items()})
        else:
            cpu = {key: _inner(x) for key, x in kwargs.items()} | ({"device": torch.device("cpu")} if makes else {})
            with no_grad():
                found = func(*map(_inner, args), **cpu)
        on_host = not makes if asked is not None else name == "copy_" and not isinstance(args[0], PretendedTensor)
        return _outer(found, ours, on_host)

    def _synchronize(self, *device: Any) -> None:
        self._wait("synchronize")

    def _wait(self, why: str) -> None:
        for counts in self.counts:
            counts.waits[why] += 1
            counts.sites[f"{site_of_ours()} [{why}]"] += 1


def _inner(x: Any) -> Any:
    """An argument with the values of our tensors in their place."""
    if isinstance(x, list | tuple):
        return [_inner(y) for y in x]
    return x.inner if isinstance(x, PretendedTensor) else x


def _outer(x: Any, ours: Sequence[PretendedTensor], on_host: bool) -> Any:
    """A result as the program sees it; an operator that wrote into a tensor of ours returns that tensor."""
    if isinstance(x, list | tuple):
        return type(x)(_outer(y, ours, on_host) for y in x)
    if not isinstance(x, Tensor):
        return x
    mine = next((own for own in ours if own.inner is x), None)
    if on_host:
        return x if mine is None else x.clone()
    if mine is not None:
        assert mine.shape == x.shape, "an operator changed the shape of a tensor in place, which is not pretended"
        return mine
    return PretendedTensor(x)


# --- what programs see of the device --------------------------------------------------------------

_ANSWERS: dict[str, Callable[..., Any]] = {
    "torch.cuda._lazy_init": lambda: None,
    "torch.cuda.is_available": lambda: True,
    "torch.cuda.device_count": lambda: 1,
    "torch.cuda.current_device": lambda: 0,
    "torch.cuda.get_device_capability": lambda *a: (8, 0),
    "torch.cuda.get_device_name": lambda *a: "a pretended device",
    "torch.cuda.is_bf16_supported": lambda *a, **k: True,
    "torch.cuda.is_current_stream_capturing": lambda: False,
    "torch.accelerator.current_accelerator": lambda *a, **k: None,  # it is asked for what has streams
    "torch.cuda.amp.common.amp_definitely_not_available": lambda: False,
    "torch.cuda.empty_cache": lambda: None,
    "torch.cuda.reset_peak_memory_stats": lambda *a: None,
    "torch.cuda.max_memory_allocated": lambda *a: 0,
}
"""What torch answers while the device is there."""


class _Translated(TorchFunctionMode):
    """Names of the device, given to any function of torch, as what the dispatcher knows it by.

    Inside a backward pass torch switches such modes off; there the dispatcher knows the name itself.
    """

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
    """Tensors in groups by device under the name that decides whether an optimizer's loop over them is one kernel."""

    def grouped(*args: Any) -> dict[Any, Any]:
        return {(DEVICE if d == HIDDEN else d, dtype): x for (d, dtype), x in groups(*args).items()}

    return grouped


def _lists_as_tensors(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(torch.tensor(x) if isinstance(x, list) else x for x in index)
    return torch.tensor(index) if isinstance(index, list) else index
