"""Log-probabilities by tiles of the vocabulary: values, entropies and gradients of the definition in float64."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from suite.policy import vocabulary_tiles
from suite.policy.vocabulary_tiles import log_probs_of


def case(rows: int, vocabulary: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Hidden states, weights, bias and targets, with logits of some tens."""
    draw = torch.Generator().manual_seed(seed)
    sizes = {"hidden": (rows, 7), "weight": (vocabulary, 7), "bias": (vocabulary,)}
    found = {k: (3 * torch.randn(*size, generator=draw, dtype=torch.float64)).to(dtype) for k, size in sizes.items()}
    return found | {"targets": torch.randint(vocabulary, (rows,), generator=draw)}


def by_definition(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> tuple[Tensor, Tensor]:
    """log softmax and -sum p log p, all logits at once."""
    logits = hidden @ weight.T + (0 if bias is None else bias)
    logs = torch.log_softmax(logits, dim=-1)
    return logs[torch.arange(len(targets)), targets], -(logs.exp() * logs).sum(dim=-1)


def gradients(function: Any, given: dict[str, Any], slope: Tensor) -> list[Tensor]:
    leaves = {k: v.clone().requires_grad_() for k, v in given.items() if v is not None and k != "targets"}
    value = function(**(given | leaves))[0]
    return [value.detach(), *torch.autograd.grad(value, list(leaves.values()), slope)]


def exact(**given: Any) -> Any:
    return log_probs_of(**given, dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 9),
    vocabulary=st.integers(1, 40),
    tile=st.integers(1, 200),
    kept=st.integers(0, 400),
    with_bias=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_values_entropies_and_gradients_are_those_of_the_definition(
    rows: int, vocabulary: int, tile: int, kept: int, with_bias: bool, seed: int
) -> None:
    """Whatever the tiles, and whichever of them are kept."""
    given = case(rows, vocabulary, seed)
    if not with_bias:
        given["bias"] = None
    slope = torch.randn(rows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vocabulary_tiles.TILE, "cpu", tile)
        patch.setitem(vocabulary_tiles.LOGITS_AT_ONCE, "cpu", kept)
        found, entropy = exact(**given)[0], exact(**given)[1]
        ours = gradients(exact, given, slope)
    value, spread = by_definition(**given)
    torch.testing.assert_close(found, value, rtol=1e-12, atol=1e-11)
    torch.testing.assert_close(entropy, spread, rtol=1e-12, atol=1e-11)
    for mine, expected in zip(ours, gradients(by_definition, given, slope), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-11, atol=1e-11)


def test_a_graph_is_walked_twice_with_the_same_result() -> None:
    """Several losses share one forward pass: what is kept must not be overwritten."""
    given = case(6, 50)
    hidden = given["hidden"].requires_grad_()
    value, entropy = exact(**given)
    slopes = torch.arange(6, dtype=torch.float64)
    first, second = (torch.autograd.grad(value, hidden, slopes, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert not entropy.requires_grad


@pytest.mark.parametrize("frozen", ["hidden", "weight"])
def test_what_is_frozen_gets_no_gradient(frozen: str) -> None:
    given = case(5, 30) | {"bias": None}
    moving = "weight" if frozen == "hidden" else "hidden"
    given[moving].requires_grad_()
    exact(**given)[0].sum().backward()
    assert given[frozen].grad is None
    assert given[moving].grad is not None


def test_logits_of_a_tile_are_all_that_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted sizes: no tensor of a forward or backward pass has the size of all logits."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = []

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            made = function(*args, **(kwargs or {}))
            largest.append(made.numel() if isinstance(made, Tensor) else 0)
            return made

    monkeypatch.setitem(vocabulary_tiles.TILE, "cpu", 512)
    monkeypatch.setitem(vocabulary_tiles.LOGITS_AT_ONCE, "cpu", 0)
    given = case(64, 1000)
    given["hidden"].requires_grad_()
    given["weight"].requires_grad_()
    with Sizes():
        exact(**given)[0].sum().backward()
    assert max(largest) == 1000 * 7 < 64 * 1000


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 3e-6), (torch.bfloat16, 0.15)])
def test_sums_are_float32_in_every_precision(dtype: torch.dtype, error: float) -> None:
    """Against float64: float32 to rounding, bfloat16 to the rounding of its products alone."""
    given = case(40, 3000, dtype=dtype)
    found, entropy = log_probs_of(**given, dtype=dtype)
    wide = {k: v if k == "targets" else v.double() for k, v in given.items()}
    value, spread = by_definition(**wide)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), value, rtol=error, atol=error)
    torch.testing.assert_close(entropy.double(), spread, rtol=error, atol=error)


@pytest.mark.parametrize("with_gradient", [True, False])
def test_tiles_are_kept_for_a_backward_pass_alone(monkeypatch: pytest.MonkeyPatch, with_gradient: bool) -> None:
    """A first scoring has parameters that want gradients, and no backward pass: no tile outlives its turn."""
    made: list[weakref.ref[Tensor]] = []
    alive: list[int] = []
    product = vocabulary_tiles._logits

    def counted(*given: Any) -> Tensor:
        gc.collect()
        alive.append(sum(one() is not None for one in made))
        found = product(*given)
        made.append(weakref.ref(found))
        return found

    monkeypatch.setattr(vocabulary_tiles, "_logits", counted)
    monkeypatch.setitem(vocabulary_tiles.TILE, "cpu", 64)
    weight = torch.randn(80, 4, requires_grad=True)
    with torch.set_grad_enabled(with_gradient):
        log_probs_of(torch.randn(8, 4), weight, None, torch.arange(8), dtype=torch.float32)
    assert len(alive) == 10
    assert max(alive) == (9 if with_gradient else 1)  # float32 tiles are their own wide copy, until the next one
