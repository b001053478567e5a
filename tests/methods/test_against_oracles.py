"""Every method against its independently written oracle: values, flags, gradients, advantages, estimators."""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods import fspo as fspo_oracle
from methods import ppo as ppo_oracle
from methods.checks import (
    check_against_oracle,
    check_credit_against_oracle,
    check_defaults,
    compare_values,
    examples,
    oracle_of,
    stated,
)
from strategies import BANDED, METHODS, draw_batch, rows_of
from suite.methods.trial_batches import batch_for, replace, with_hyper
from suite.types import UserError

EVERY_METHOD = pytest.mark.parametrize("name", METHODS)


@EVERY_METHOD
def test_every_method_states_its_facts(name: str) -> None:
    """Read this one first: it says in one sentence what of tests/methods/NAME.py is missing."""
    assert oracle_of(name).__doc__, "its first line is the paper's equation"
    assert METHODS[name].name == name


@EVERY_METHOD
def test_surrogate_is_the_equation(name: str) -> None:
    assert check_against_oracle(METHODS[name]) is None


@EVERY_METHOD
def test_advantages_are_the_equation(name: str) -> None:
    assert check_credit_against_oracle(METHODS[name]) is None


@EVERY_METHOD
def test_advantages_skip_tokens_that_do_not_count(name: str) -> None:
    """A mask with holes (tool output, say): the chain jumps over them, the reward falls on the last counted token."""
    assert check_credit_against_oracle(METHODS[name], holes=True) is None


@pytest.mark.parametrize("name", BANDED)
def test_examples_reach_every_side_of_the_band(name: str) -> None:
    """Else the comparison above could pass without ever testing the clip."""
    seen = set()
    for _, method, batch, state in examples(METHODS[name]):
        for row in rows_of(batch):
            expected = oracle_of(name).response(row, method.hyper, state)
            seen |= {(left, cut) for left, cut in zip(expected.outside, expected.clipped, strict=True)}
    assert seen >= {(False, False), (True, False), (True, True)}


@EVERY_METHOD
def test_gradient_rows_next_to_a_kink_are_few(name: str) -> None:
    """Rows that the finite differences must skip: fewer than one in twenty."""
    margins = [
        oracle_of(name).response(row, method.hyper, state).margin
        for _, method, batch, state in examples(METHODS[name])
        for row in rows_of(batch)
    ]
    assert sum(margin < 5e-6 for margin in margins) < len(margins) / 20


@EVERY_METHOD
@given(data=st.data())
def test_surrogate_is_the_equation_on_any_batch(name: str, data: st.DataObject) -> None:
    method = METHODS[name]
    batch = draw_batch(data, method)
    assert compare_values(method, batch, {}) is None


@EVERY_METHOD
@pytest.mark.parametrize("seed", range(3))
def test_float32_agrees_with_the_equation(name: str, seed: int) -> None:
    batch = batch_for(METHODS[name], seed, dtype=torch.float32)
    assert compare_values(METHODS[name], batch, {}, rtol=2e-6, atol=2e-6) is None


# --- hyper-parameters ---------------------------------------------------------------------------------------


@EVERY_METHOD
def test_published_defaults(name: str) -> None:
    assert check_defaults(METHODS[name]) is None


@EVERY_METHOD
def test_a_method_with_hyper_parameters_refuses_some(name: str) -> None:
    fields = {field.name for field in dataclasses.fields(METHODS[name].hyper)}
    changed = {field for change in oracle_of(name).MISTAKES for field in change}
    assert changed <= fields
    assert changed or not fields, f"tests/methods/{name}.py: MISTAKES is empty"


@pytest.mark.parametrize(
    ("name", "change"), [(name, change) for name in METHODS for change in stated(name, "MISTAKES")]
)
def test_impossible_hyper_parameters_are_refused_in_one_line(name: str, change: dict[str, float]) -> None:
    with pytest.raises(UserError) as caught:
        with_hyper(METHODS[name], **change)
    message = str(caught.value)
    assert "\n" not in message
    assert next(iter(change)) in message, "the message must name the knob"


# --- PPO's value loss -------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("value_clip", [0.2, 1.0])
def test_value_loss_and_its_gradient(seed: int, value_clip: float) -> None:
    method = with_hyper(METHODS["ppo"], value_clip=value_clip)
    assert method.value_loss is not None
    batch = batch_for(method, seed)
    assert batch.values is not None
    values = batch.values.clone().requires_grad_(True)
    loss = method.value_loss(replace(batch, values=values), method.hyper)
    rows, h = rows_of(batch), 1e-6
    want = [ppo_oracle.value_loss(row, method.hyper) for row in rows]
    assert loss.tolist() == pytest.approx(want, rel=1e-12)
    (slope,) = torch.autograd.grad(loss.sum(), values)
    for t in range(values.shape[1]):
        step = torch.zeros_like(values)
        step[:, t] = h
        up, down = (rows_of(replace(batch, values=batch.values + s)) for s in (step, -step))
        central = [
            (ppo_oracle.value_loss(a, method.hyper) - ppo_oracle.value_loss(b, method.hyper)) / (2 * h)
            for a, b in zip(up, down, strict=True)
        ]
        assert slope[:, t].tolist() == pytest.approx(central, rel=1e-6, abs=1e-8)


# --- FSPO's running estimates -----------------------------------------------------------------------

STATES = [{}, {"drift": 0.004, "sigma": 0.05}]


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("drift", ["zero", "batch", "ema", -0.001])
def test_observed_centre_and_scale(drift: str | float, state: dict[str, float]) -> None:
    """What `observe` leaves moves the band of the next surrogate exactly as the equation says."""
    method = with_hyper(METHODS["fspo"], drift=drift, target_clip_rate=0.2)
    assert method.observe is not None
    for seed in range(3):
        batch = batch_for(method, seed, spread=0.02)
        got, want = method.observe(batch, method.hyper, state), fspo_oracle.observe(rows_of(batch), method.hyper, state)
        assert got["sigma"] == pytest.approx(want["sigma"], rel=1e-12)
        if drift in ("batch", "ema"):
            assert got["drift"] == pytest.approx(want["drift"], rel=1e-12)
        assert all(type(number) is float for number in got.values())
        following = batch_for(method, seed + 100, spread=0.02)
        assert compare_values(method, following, dict(got)) is None


def test_batch_drift_is_observed_before_the_update_and_the_others_after() -> None:
    first = {d: METHODS["fspo"].observe_first(with_hyper(METHODS["fspo"], drift=d).hyper) for d in ("zero", "batch")}
    assert first == {"zero": False, "batch": True}


def test_estimates_carry_no_gradient_and_ignore_padding() -> None:
    method = with_hyper(METHODS["fspo"], drift="batch")
    assert method.observe is not None
    batch = batch_for(method, 1, spread=0.02)
    dirty = replace(batch, log_probs=batch.log_probs.masked_fill(~batch.response_mask, math.nan).requires_grad_(True))
    assert dict(method.observe(dirty, method.hyper, {})) == dict(method.observe(batch, method.hyper, {}))


def test_target_clip_rate_clips_that_share() -> None:
    """Gaussian S: after one observation the share outside is p, within 4 binomial standard errors."""
    count, length, rate = 20_000, 4, 0.2
    method = with_hyper(METHODS["fspo"], target_clip_rate=rate)
    assert method.observe is not None
    g = torch.Generator().manual_seed(5)
    batch = batch_for(method, 0, rows=count, tokens=length, holes=False)
    noise = 0.02 * torch.randn(count, length, generator=g, dtype=torch.float64)
    batch = replace(batch, log_probs=batch.old_log_probs + noise)
    state = method.observe(batch, method.hyper, {})
    share = method.surrogate(batch, method.hyper, state).outside_band.double().mean().item()
    assert abs(share - rate) < 4 * math.sqrt(rate * (1 - rate) / count)
    assert state["sigma"] * NormalDist().inv_cdf(1 - rate / 2) == pytest.approx(0.0256, rel=0.03)


def test_responses_without_tokens_say_nothing_to_the_estimates() -> None:
    method = with_hyper(METHODS["fspo"], drift="batch")
    assert method.observe is not None
    batch = batch_for(method, 1, rows=3, spread=0.02)
    mask = batch.response_mask.clone()
    mask[1] = False
    emptied = replace(batch, response_mask=mask, lengths=mask.sum(1).double())
    assert dict(method.observe(emptied, method.hyper, {})) == pytest.approx(
        dict(method.observe(batch.rows([0, 2]), method.hyper, {})), rel=1e-12
    )
    none = replace(batch, response_mask=torch.zeros_like(mask), lengths=torch.zeros_like(batch.lengths))
    assert method.observe(none, method.hyper, {"drift": 0.5, "sigma": 0.1}) == {"drift": 0.5, "sigma": 0.1}
