"""The pretended device does what a card does: what it refuses, what it counts, how its kernels compute."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from pretended_cuda import PretendedCuda
from suite.policy.packed_attention import Packing, packed_attention


@pytest.fixture
def cuda() -> Iterator[PretendedCuda]:
    with PretendedCuda() as device:
        yield device


def test_tensors_say_where_they_are_and_hold_the_values(cuda: PretendedCuda) -> None:
    ones = np.ones(3, np.float32)
    made = [torch.ones(3, device="cuda"), torch.ones(3).cuda(), torch.ones(3).to("cuda:0"), torch.zeros(3).cuda() + 1]
    for x in (*made, torch.tensor([1.0, 1, 1], device="cuda"), torch.as_tensor(ones, device="cuda")):
        assert (str(x.device), x.device.index, x.is_cuda, x.is_cpu) == ("cuda:0", 0, True, False)
        assert x.to("cuda") is x
        assert not x.cpu().is_cuda
        assert x.tolist() == [1.0, 1.0, 1.0]
    assert torch.cuda.is_available()


def test_it_is_gone_afterwards() -> None:
    was = torch.cuda.is_available(), torch._C._InferenceMode, torch._C._dispatch_dump("aten::matmul")
    with PretendedCuda():
        left = torch.ones(2, device="cuda")
    assert (torch.cuda.is_available(), torch._C._InferenceMode, torch._C._dispatch_dump("aten::matmul")) == was
    with pytest.raises(AssertionError, match="which is gone"):
        left + left


MIXED: dict[str, tuple[type[Exception], Callable[[Tensor, Tensor], Any]]] = {
    "a sum": (RuntimeError, lambda c, h: c + h),
    "a product": (RuntimeError, lambda c, h: h @ c),
    "in place": (RuntimeError, lambda c, h: c.add_(h)),
    "a list": (RuntimeError, lambda c, h: torch.cat([c, h])),
    "a mask": (RuntimeError, lambda c, h: torch.where(h > 0, c, c)),
    "indices": (RuntimeError, lambda c, h: h[torch.zeros(1, dtype=torch.int64, device="cuda")]),
    "gathered": (RuntimeError, lambda c, h: c.gather(0, torch.zeros(1, 2, dtype=torch.int64))),
    "numpy": (TypeError, lambda c, h: c.numpy()),
    "an array": (TypeError, lambda c, h: np.asarray(c)),
    "a draw": (RuntimeError, lambda c, h: torch.randn(2, device="cuda", generator=torch.Generator())),
    "a shuffle": (RuntimeError, lambda c, h: torch.randperm(2, device="cuda", generator=torch.Generator())),
}


@pytest.mark.parametrize("name", MIXED)
def test_it_refuses(name: str, cuda: PretendedCuda) -> None:
    error, call = MIXED[name]
    with pytest.raises(error, match=r"same device|device type"):
        call(torch.ones(2, 2, device="cuda"), torch.ones(2, 2))


WAITS: dict[str, tuple[int, Callable[[Tensor], Any]]] = {
    "item": (1, lambda x: x.sum().item()),
    "float": (1, lambda x: float(x.sum())),
    "if": (1, lambda x: bool(x.any())),
    "tolist": (1, lambda x: x.tolist()),
    "cpu": (1, lambda x: x.cpu()),
    "from the host": (1, lambda x: torch.ones(3).to(x.device)),
    "a list": (1, lambda x: torch.tensor([1, 2], device="cuda")),
    "copied into": (1, lambda x: x.copy_(torch.ones(4))),
    "copied out": (1, lambda x: torch.ones(4).copy_(x)),
    "nonzero": (1, lambda x: x.nonzero()),
    "a mask": (1, lambda x: x[x > 0]),
    "written by a mask": (1, lambda x: x.masked_select(x > 0)),
    "through a mask": (1, lambda x: x.__setitem__(x > 1, x[:0])),
    "indices of the host": (1, lambda x: x[[0, 1]]),
    "equal": (1, lambda x: torch.equal(x, x)),
    "unique": (1, lambda x: torch.unique(x)),
    "synchronize": (1, lambda x: torch.cuda.synchronize()),
    "nothing copied": (0, lambda x: torch.tensor([], device="cuda")),
    "sums": (0, lambda x: (x * 2 + 1).sum().sqrt()),
    "where": (0, lambda x: torch.where(x > 0, x, 0.0)),
    "masked_fill": (0, lambda x: x.masked_fill(x > 0, 1.0)),
    "slices": (0, lambda x: x[1:3].__setitem__(0, 5.0)),
    "gather": (0, lambda x: x.gather(0, torch.zeros_like(x, dtype=torch.int64))),
    "indices": (0, lambda x: x[torch.zeros_like(x, dtype=torch.int64)]),
    "a number beside it": (0, lambda x: x * torch.tensor(2.0)),
    "cast": (0, lambda x: x.to(torch.bfloat16)),
}


@pytest.mark.parametrize("name", WAITS)
def test_it_counts_what_the_host_waits_for(name: str, cuda: PretendedCuda) -> None:
    expected, call = WAITS[name]
    x = torch.ones(4, device="cuda")
    with cuda.counting() as counts:
        call(x)
    assert sum(counts.waits.values()) == expected, counts.report()


def test_it_counts_what_is_computed_and_not_what_is_only_seen_otherwise(cuda: PretendedCuda) -> None:
    x = torch.ones(4, 4, device="cuda")
    with cuda.counting() as counts:
        y = x.t()[1:].reshape(-1)[:3].detach()
        empty = torch.empty(3, device="cuda")
        torch.add(y, 1, out=empty)
        y.mul_(2)
    assert counts.launches == {"add": 1, "mul_": 1, "clone": 1}  # reshape copies what is no view
    assert counts.waits == {}


def test_the_line_that_made_the_host_wait_is_named(cuda: PretendedCuda) -> None:
    from suite.arithmetic import divisor_count
    from suite.types import Divisor

    lengths = torch.ones(3, device="cuda")
    with cuda.counting() as counts:
        divisor_count(Divisor.TOKENS, lengths, 8)
    (site,) = counts.sites
    assert site.startswith("suite/arithmetic.py:")
    assert "float(lengths.sum())" in site
    assert counts.waits_of("suite/arithmetic.py") == 1
    assert counts.waits_of("suite/training/update.py") == 0


def test_views_share_memory_and_copies_do_not(cuda: PretendedCuda) -> None:
    x = torch.zeros(3, 2, device="cuda")
    x[1].fill_(5.0)
    x.view(-1)[0] = 7.0
    copies = [copy.deepcopy(x), x.clone(), x.cpu()]
    x += 1
    assert x.tolist() == [[8.0, 1.0], [6.0, 6.0], [1.0, 1.0]]
    for other in copies:
        assert other.tolist() == [[7.0, 0.0], [5.0, 5.0], [0.0, 0.0]]


def test_a_module_moves_and_learns_as_on_the_cpu(cuda: PretendedCuda) -> None:
    torch.manual_seed(0)
    here = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    there, x = copy.deepcopy(here).to("cuda"), torch.randn(16, 3)
    for model, inputs in ((here, x), (there, x.cuda())):
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            (model(inputs) - inputs.sum(dim=1, keepdim=True)).square().mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    for mine, cpus in zip(there.parameters(), here.parameters(), strict=True):
        assert isinstance(mine, nn.Parameter)
        assert mine.is_cuda
        torch.testing.assert_close(mine.detach().cpu(), cpus.detach())
    there.to(torch.bfloat16)
    assert {p.dtype for p in there.parameters()} == {torch.bfloat16}


def test_autocast_has_cudas_lists(cuda: PretendedCuda) -> None:
    """Products and vecdot in half precision, exponentials and sums of losses in float32, float64 as it is."""
    x = torch.ones(2, 2, device="cuda", requires_grad=True)
    half, full = torch.bfloat16, torch.float32
    with torch.autocast("cuda", half):
        y = x @ x
        halves = [y, nn.functional.linear(x, x), torch.linalg.vecdot(x, x)]
        whole = [x.bfloat16().exp(), y.softmax(-1), y.sum(), x + x]
        double = x.double() @ x.double()
        y.sum().backward()
        with torch.autocast("cuda", enabled=False):
            assert (x @ x).dtype == full
    assert {found.dtype for found in halves} == {half}
    assert {found.dtype for found in whole} == {full}
    assert double.dtype == torch.float64
    assert x.grad is not None
    assert x.grad.dtype == full
    assert x.grad.tolist() == [[4.0, 4.0], [4.0, 4.0]]


@pytest.mark.parametrize("shared", [1, 2, 4])
def test_the_kernel_attends_as_its_definition_says(shared: int, cuda: PretendedCuda) -> None:
    """Against scaled dot-product attention of one sequence at a time in float32, with gradients, up to one rounding."""
    sizes, draw = (3, 9, 1, 4), torch.Generator().manual_seed(0)
    shapes = [(1, heads, sum(sizes), 16) for heads in (4, shared, shared)]
    rounded = [torch.randn(shape, generator=draw).bfloat16() for shape in shapes]
    slope = torch.randn(1, sum(sizes), 4, 16, generator=draw).bfloat16()
    plain = [x.float().requires_grad_() for x in rounded]
    parts = zip(*(x.split(sizes, dim=2) for x in plain), strict=True)
    alone = [scaled_dot_product_attention(*part, is_causal=True, enable_gqa=True) for part in parts]
    wanted = torch.cat(alone, dim=2).transpose(1, 2)
    there = [x.cuda().requires_grad_() for x in rounded]
    with cuda.counting() as counts:
        found, _ = packed_attention(None, *there, None, packing=Packing.of(sizes, "cuda"))
    assert counts.launches["_varlen_attn"] == 1
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float().cpu(), wanted, rtol=2**-8, atol=1e-6)
    expected = torch.autograd.grad(wanted, plain, slope.float())
    for mine, theirs in zip(torch.autograd.grad(found, there, slope.cuda()), expected, strict=True):
        assert mine.dtype == torch.bfloat16
        torch.testing.assert_close(mine.float().cpu(), theirs, rtol=2**-6, atol=2**-8)


def test_the_kernel_attends_to_paths_as_scaled_dot_products_do(cuda: PretendedCuda) -> None:
    """The nodes of a tree, queries against the keys of their paths, with gradients, up to rounding."""
    sizes, draw = (
        (5, 3, 2, 4),
        torch.Generator().manual_seed(0),
    )  # a start, two prompts behind it, a response behind one
    starts = (0, 5, 8, 10)
    here = [torch.arange(start, start + size) for start, size in zip(starts, sizes, strict=True)]
    paths = [here[0], torch.cat(here[:2]), torch.cat([here[0], here[2]]), torch.cat([here[0], here[2], here[3]])]
    rounded = [torch.randn(1, heads, sum(sizes), 16, generator=draw).bfloat16() for heads in (4, 2, 2)]
    slope = torch.randn(1, sum(sizes), 4, 16, generator=draw).bfloat16()
    plain, there = [x.float().requires_grad_() for x in rounded], [x.cuda().requires_grad_() for x in rounded]
    outputs = []
    for own, path in zip(here, paths, strict=True):  # each path as a sequence of its own, of which the node is the end
        states = [x[:, :, path] for x in plain]
        outputs.append(scaled_dot_product_attention(*states, is_causal=True, enable_gqa=True)[:, :, -len(own) :])
    wanted = torch.cat(outputs, dim=2).transpose(1, 2)
    with cuda.counting() as counts:
        found, _ = packed_attention(None, *there, None, packing=Packing.of_tree(paths, sizes, "cuda"))
    assert counts.launches["_varlen_attn"] == 1
    torch.testing.assert_close(found.float().cpu(), wanted, rtol=2**-7, atol=2**-8)
    on_cpu, _ = packed_attention(None, *plain, None, packing=Packing.of_tree(paths, sizes, "cpu"))
    torch.testing.assert_close(on_cpu, wanted, rtol=1e-5, atol=1e-6)
    expected = torch.autograd.grad(wanted, plain, slope.float())
    for mine, theirs in zip(torch.autograd.grad(found, there, slope.cuda()), expected, strict=True):
        torch.testing.assert_close(mine.float().cpu(), theirs, rtol=2**-6, atol=2**-7)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"dtype": torch.float32}, "only support fp16 and bf16"),
        ({"width": 12}, "multiple of 8"),
        ({"width": 264}, "up to 256"),
        ({"ends": torch.int64}, "int32"),
        ({"last": 1}, "ends at"),
    ],
    ids=str,
)
def test_the_kernel_makes_its_demands(change: dict[str, Any], match: str, cuda: PretendedCuda) -> None:
    from torch.nn.attention.varlen import varlen_attn

    made = {"dtype": torch.bfloat16, "width": 16, "ends": torch.int32, "last": 0, **change}
    states = [torch.ones(6, 2, made["width"], dtype=made["dtype"], device="cuda") for _ in range(3)]
    ends = torch.tensor([0, 2, 6 - made["last"]], dtype=made["ends"], device="cuda")
    with pytest.raises(RuntimeError, match=match):
        varlen_attn(*states, ends, ends, 4, 4, window_size=(-1, 0))
