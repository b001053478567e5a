"""The clip bands: how they grow with length, what they do at the extremes, whom they clip in theory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods.checks import compare_values
from strategies import BANDED, METHODS, SEQUENCE_LEVEL, draw_batch, unbounded
from suite.methods.trial_batches import batch_for, batch_from_log_ratios, gradient, judged, replace, with_hyper
from suite.types import Method

WITH_BAND = pytest.mark.parametrize("name", BANDED)
PLAIN = pytest.mark.parametrize("name", ["ppo", "rloo", "grpo", "gspo", "fspo"])
"""The five whose bands have a closed form in EDGES."""
EXACT: dict[str, Any] = {"rtol": 0, "atol": 0}

# --- the band ---------------------------------------------------------------------------------------


@WITH_BAND
@given(data=st.data())
def test_a_band_wide_enough_is_no_band(name: str, data: st.DataObject) -> None:
    method = unbounded(METHODS[name])
    batch = draw_batch(data, method)
    found = judged(method, batch)
    assert not found.outside_band.any()
    assert not found.clipped.any()
    torch.testing.assert_close(found.objective, found.unclipped, **EXACT)
    torch.testing.assert_close(gradient(method, batch, {}), gradient(method, batch, {}, "unclipped"), **EXACT)


@WITH_BAND
def test_a_million_times_the_band_is_no_band(name: str) -> None:
    """No overflow, no refusal: the widest range is simply wide."""
    method = METHODS[name].scaled(1e6)
    found = judged(method, batch_for(method, 0))
    assert not found.outside_band.any()
    torch.testing.assert_close(found.objective, found.unclipped, **EXACT)


def edge(method: Method, length: int, side: int, state: dict[str, float] | None = None) -> float:
    """The log ratio at which a response of `length` tokens leaves the band: S, or per token for token methods.

    Bisection of `outside_band` through the public surrogate, to 1e-12. side: +1 the upper edge, -1 the lower.
    """

    def outside(x: float) -> bool:
        spread = x / length if method.name in SEQUENCE_LEVEL else x
        batch = batch_from_log_ratios(
            torch.full((1, length), spread, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64)
        )
        return bool(judged(method, batch, state).outside_band.any())

    centre = length * (state or {}).get("drift", 0.0)
    if getattr(method.hyper, "drift", None) == "kl":
        centre = max(centre, -method.hyper.drift_cap * min(method.hyper.c_low, method.hyper.c_high) * math.sqrt(length))
    near, far = 0.0, 10.0
    assert not outside(centre + side * near)
    assert outside(centre + side * far)
    while far - near > 1e-12:
        middle = (near + far) / 2
        near, far = (near, middle) if outside(centre + side * middle) else (middle, far)
    return centre + side * near


EDGES: dict[str, tuple[Callable[[int], float], Callable[[int], float]]] = {
    "ppo": (lambda n: math.log(0.8), lambda n: math.log(1.2)),
    "grpo": (lambda n: math.log(0.8), lambda n: math.log(1.2)),
    "rloo": (lambda n: math.log(0.8), lambda n: math.log(1.2)),
    "gspo": (lambda n: n * math.log(1 - 3e-4), lambda n: n * math.log(1 + 4e-4)),
    "fspo": (lambda n: -0.03 * math.sqrt(n), lambda n: 0.03 * math.sqrt(n)),
}


@PLAIN
@pytest.mark.parametrize("length", [1, 4, 16, 256, 4096])
def test_band_growth_with_length(name: str, length: int) -> None:
    """Constant for PPO, GRPO (a token) and RLOO (a response), linear for GSPO, square root for FSPO."""
    low, high = EDGES[name]
    assert edge(METHODS[name], length, -1) == pytest.approx(low(length), abs=1e-9)
    assert edge(METHODS[name], length, +1) == pytest.approx(high(length), abs=1e-9)


@pytest.mark.parametrize("length", [1, 9, 400])
@pytest.mark.parametrize("drift", ["kl", "batch", "ema", -0.002])
def test_fspo_band_moves_with_the_drift(drift: str | float, length: int) -> None:
    """And with the KL's drift at most half of c_low: at 400 tokens L mu = -.8 would be twice the half-width .4."""
    method = with_hyper(METHODS["fspo"], drift=drift, c_low=0.02, c_high=0.05)
    state = {"drift": -0.002, "sigma": 1.0}
    if drift == "kl" and length == 400:
        assert edge(method, length, -1, state) == pytest.approx(-0.2 - 0.4, abs=1e-9)
        assert edge(method, length, +1, state) == pytest.approx(-0.2 + 1.0, abs=1e-9)
        return
    assert edge(method, length, -1, state) == pytest.approx(-0.002 * length - 0.02 * math.sqrt(length), abs=1e-9)
    assert edge(method, length, +1, state) == pytest.approx(-0.002 * length + 0.05 * math.sqrt(length), abs=1e-9)


@PLAIN
@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0, 3.5])
def test_scaled_multiplies_the_widths_in_log_space(name: str, factor: float) -> None:
    low, high = EDGES[name]
    for length in (1, 64):
        assert edge(METHODS[name].scaled(factor), length, -1) == pytest.approx(factor * low(length), abs=1e-9)
        assert edge(METHODS[name].scaled(factor), length, +1) == pytest.approx(factor * high(length), abs=1e-9)


def test_scaled_moves_the_dual_bound_of_fspo_too() -> None:
    scaled = with_hyper(METHODS["fspo"], c_dual=0.1).scaled(2.0).hyper
    assert (scaled.c_low, scaled.c_high, scaled.c_dual) == pytest.approx((0.06, 0.06, 0.2))


def test_gspo_and_fspo_bands_meet_at_the_length_the_theory_gives() -> None:
    """L = (c / eps)^2 with eps the log width: above it GSPO's upper edge is the wider one."""
    meeting = (0.03 / math.log(1 + 4e-4)) ** 2
    below, above = math.floor(meeting), math.ceil(meeting)
    assert edge(METHODS["gspo"], below, +1) <= edge(METHODS["fspo"], below, +1)
    assert edge(METHODS["gspo"], above, +1) >= edge(METHODS["fspo"], above, +1)


# --- extremes ---------------------------------------------------------------------------------------


@PLAIN
@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("advantage", [-1.5, 0.0, 1.5])
@pytest.mark.parametrize("per_token", [20.0, -20.0])
def test_large_ratios_stay_finite_in_float32(name: str, length: int, advantage: float, per_token: float) -> None:
    """e^80 still fits into float32, so neither the value nor the gradient may be lost."""
    method = METHODS[name]
    ratios = torch.full((1, length), per_token)
    batch = batch_from_log_ratios(ratios, torch.full((1, length if name == "ppo" else 1), advantage))
    found = judged(method, batch)
    weight = per_token * (length if name in ("rloo", "fspo") else 1)
    terms = length if name == "ppo" else 1
    assert found.objective.isfinite().all()
    assert found.unclipped.isfinite().all()
    assert found.unclipped.item() == pytest.approx(terms * advantage * math.exp(weight), rel=1e-5)
    for column in ("objective", "unclipped"):
        assert gradient(method, batch, {}, column).isfinite().all()


@PLAIN
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("ratio", "advantage"), [(1000.0, 2.0), (1000.0, 0.0), (-1000.0, 2.0), (-1000.0, -2.0)])
def test_overflowing_ratios_where_the_equation_is_finite(
    name: str, ratio: float, advantage: float, dtype: torch.dtype
) -> None:
    """e^1000 is infinite, the clipped side is not: a finite value and a gradient of exactly 0, not inf * 0 = NaN."""
    batch = batch_from_log_ratios(torch.full((1, 1), ratio, dtype=dtype), torch.full((1, 1), advantage, dtype=dtype))
    found = judged(METHODS[name], batch)
    low, high = (edge_of(1) for edge_of in EDGES[name])
    held = {(True, True): high, (False, False): low}.get((ratio > 0, advantage > 0))
    expected = 0.0 if advantage == 0 or held is None else advantage * math.exp(held)
    assert found.objective.item() == pytest.approx(expected, rel=1e-6)
    assert gradient(METHODS[name], batch, {}).tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("name", "knob", "bound"),
    [("ppo", "dual_clip", 3.0), ("grpo", "dual_clip", 3.0), ("fspo", "c_dual", math.exp(0.5))],
)
@pytest.mark.parametrize("ratio", [20.0, 1000.0])
def test_dual_clip_holds_bad_responses(name: str, knob: str, bound: float, ratio: float) -> None:
    """A < 0 and a ratio beyond all measure: bounded from below, clipped, and no gradient."""
    method = with_hyper(METHODS[name], **{knob: 3.0 if name != "fspo" else 0.5})
    batch = batch_from_log_ratios(torch.full((1, 1), ratio), torch.full((1, 1), -2.0))
    found = judged(method, batch)
    assert found.objective.item() == pytest.approx(-2.0 * bound, rel=1e-6)
    assert found.clipped.all()
    assert found.outside_band.all()
    assert gradient(method, batch, {}).tolist() == [[0.0]]


@PLAIN
def test_long_responses_keep_their_precision_in_float32(name: str) -> None:
    """8,192 tokens in float32: the log weight is the float64 one to 1e-4 of a nat."""
    exact = batch_for(METHODS[name], 3, rows=3, tokens=8192, spread=0.01, holes=False)
    single = {
        f.name: getattr(exact, f.name).float()
        for f in dataclasses.fields(exact)
        if getattr(exact, f.name) is not None and f.name != "response_mask"
    }
    double = {key: column.double() for key, column in single.items()}
    a, b = judged(METHODS[name], replace(exact, **single)), judged(METHODS[name], replace(exact, **double))
    keep = exact.response_mask if a.log_weight.shape == exact.response_mask.shape else slice(None)
    torch.testing.assert_close(a.log_weight[keep].double(), b.log_weight[keep], rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["dppo_tv", "dppo_kl"])
def test_a_token_that_was_certain_is_masked_like_any_other(name: str, dtype: torch.dtype) -> None:
    """Old probability exactly 1: (1 - q) log((1 - q) / (1 - p)) is 0 there, not NaN, which is never beyond a bound."""
    ratios = torch.tensor([[-0.5, -0.01], [-0.5, -0.01]], dtype=dtype)
    batch = batch_from_log_ratios(ratios, torch.tensor([[-1.0], [1.0]], dtype=dtype))
    assert judged(METHODS[name], batch).clipped.tolist() == [[True, False], [False, False]]
    assert compare_values(METHODS[name], batch, {}, rtol=1e-6, atol=1e-6) is None


# --- theory: Gaussian log ratios --------------------------------------------------------------------

LENGTHS = (128, 2048, 8192)
PUBLISHED_SHARES = {
    (0.01, "rloo"): (0.08, 0.65, 0.82),
    (0.01, "gspo"): (0.69, 0.12, 0.00),
    (0.01, "fspo"): (0.003, 0.003, 0.003),
    (0.02, "rloo"): (0.37, 0.82, 0.91),
    (0.02, "gspo"): (0.84, 0.43, 0.12),
    (0.02, "fspo"): (0.134, 0.134, 0.134),
}
"""Share of responses outside the band for S ~ N(0, sigma^2 L), to the digits of the project's notes on the paper."""


def normal_tail(low: float, high: float, mean: float, std: float) -> float:
    """P(S < low or S > high) for S ~ N(mean, std^2)."""
    return 0.5 * math.erfc((mean - low) / std / math.sqrt(2)) + 0.5 * math.erfc((high - mean) / std / math.sqrt(2))


def outside_share(method: Method, length: int, mean: float, std: float, count: int = 2000) -> float:
    """Measured share outside the band of `count` responses with Gaussian S (all of S on the first token)."""
    g = torch.Generator().manual_seed(length)
    total = mean + std * torch.randn(count, generator=g, dtype=torch.float64)
    outside = 0
    for part in total.split(200):
        ratios = torch.zeros(len(part), length, dtype=torch.float64)
        ratios[:, 0] = part
        batch = batch_from_log_ratios(ratios, torch.ones(len(part), 1, dtype=torch.float64))
        outside += int(judged(method, batch).outside_band.sum())
    return outside / count


def binomial_error(share: float, count: int = 2000) -> float:
    return math.sqrt(share * (1 - share) / count)


@pytest.mark.parametrize(("sigma", "name"), PUBLISHED_SHARES)
def test_share_outside_follows_the_normal_tail(sigma: float, name: str) -> None:
    """Flat in length for FSPO, growing for RLOO, falling for GSPO: within 4 binomial standard errors."""
    low, high = EDGES[name]
    for length, published in zip(LENGTHS, PUBLISHED_SHARES[sigma, name], strict=True):
        tail = normal_tail(low(length), high(length), 0.0, sigma * math.sqrt(length))
        digits = len(str(published).partition(".")[2]) if published else 2
        assert abs(tail - published) < 0.5 * 10 ** -max(digits, 2) + 1e-12
        share = outside_share(METHODS[name], length, 0.0, sigma * math.sqrt(length))
        assert abs(share - tail) <= 4 * binomial_error(tail)


@pytest.mark.parametrize(("sigma", "published"), [(0.02, (0.136, 0.173, 0.284)), (0.035, (0.401, 0.524, 0.774))])
def test_drift_tilts_fspo_and_the_centre_straightens_it(sigma: float, published: tuple[float, ...]) -> None:
    """With E[S] = -L sigma^2 / 2 and mu = 0 long responses are clipped more; mu = -sigma^2 / 2 makes it flat again."""
    drift = -(sigma**2) / 2
    flat = normal_tail(-0.03, 0.03, 0.0, sigma)
    for length, expected in zip(LENGTHS, published, strict=True):
        root, mean = math.sqrt(length), drift * length
        tail = normal_tail(-0.03 * root, 0.03 * root, mean, sigma * root)
        assert abs(tail - expected) < 0.0005 + 1e-12
        tilted = outside_share(METHODS["fspo"], length, mean, sigma * root)
        assert abs(tilted - tail) <= 4 * binomial_error(tail)
        straight = outside_share(with_hyper(METHODS["fspo"], drift=drift), length, mean, sigma * root)
        assert abs(straight - flat) <= 4 * binomial_error(flat)
