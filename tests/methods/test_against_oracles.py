"""Every method against its independently written oracle: values, flags, gradients, advantages, estimators."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods import fspo as fspo_oracle
from methods import ppo as ppo_oracle
from methods.checks import (
    ORACLES,
    VARIANTS,
    check_against_oracle,
    check_credit_against_oracle,
    compare_values,
    examples,
)
from methods.test_conformance import ON_POLICY_SLOPE
from strategies import BANDED, METHODS, draw_batch, rows_of
from suite.methods.trial_batches import batch_for, replace, with_hyper
from suite.types import UserError

EVERY_METHOD = pytest.mark.parametrize("name", METHODS)


def test_every_method_is_in_every_table() -> None:
    """Read this one first: a new method that a table lacks fails below with a bare KeyError."""
    tables = {
        "VARIANTS in tests/methods/checks.py": VARIANTS,
        "DEFAULTS in tests/methods/test_against_oracles.py": DEFAULTS,
        "ON_POLICY_SLOPE in tests/methods/test_conformance.py": ON_POLICY_SLOPE,
    }
    missing = [f"add {name} to {table}" for table, entries in tables.items() for name in METHODS if name not in entries]
    assert not missing, "; ".join(missing)


def test_every_method_has_an_oracle() -> None:
    assert set(METHODS) == set(ORACLES)
    assert all(method.name == name for name, method in METHODS.items())


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
            expected = ORACLES[name].response(row, method.hyper, state)
            seen |= {(left, cut) for left, cut in zip(expected.outside, expected.clipped, strict=True)}
    assert seen >= {(False, False), (True, False), (True, True)}


@EVERY_METHOD
def test_gradient_rows_next_to_a_kink_are_few(name: str) -> None:
    """Rows that the finite differences must skip: fewer than one in twenty."""
    margins = [
        ORACLES[name].response(row, method.hyper, state).margin
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


# --- defaults ---------------------------------------------------------------------------------------

DEFAULTS = {
    "ppo": {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": None, "gamma": 1.0, "gae_lambda": 1.0, "value_clip": 0.2,
            "whiten": True},
    "rloo": {"clip_low": 0.2, "clip_high": 0.2},
    "grpo": {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": None, "std_ddof": 1, "std_eps": 1e-4},
    "gspo": {"clip_low": 3e-4, "clip_high": 4e-4, "std_ddof": 1, "std_eps": 1e-4},
    "fspo": {"c_low": 0.03, "c_high": 0.03, "c_dual": None, "drift": "zero", "ema_decay": 0.9,
             "target_clip_rate": None, "sigma_decay": 0.9},
    "fspo_per_token": {"c_low": 0.03, "c_high": 0.03},
    "reinforce": {},
    "no_clip": {},
    "dr_grpo": {"clip_low": 0.2, "clip_high": 0.2, "dual_clip": None},
    "dapo": {"clip_low": 0.2, "clip_high": 0.28, "dual_clip": 10.0, "std_ddof": 1, "std_eps": 1e-4},
    "cispo": {"max_weight": 5.0, "std_ddof": 1},
    "sapo": {"tau_pos": 1.0, "tau_neg": 1.05, "std_ddof": 1},
    "gspo_wide": {"clip_low": 3e-3, "clip_high": 4e-3, "std_ddof": 1},
    "gspo_token": {"clip_low": 3e-4, "clip_high": 4e-4, "std_ddof": 1},
    "gspo_sqrt": {"c_low": 0.03, "c_high": 0.03, "std_ddof": 1},
    "luspo": {"clip_low": 2e-3, "clip_high": 2.5e-3, "std_ddof": 1},
    "gmpo": {"log_low": 0.4, "log_high": 0.4, "std_ddof": 1},
    "vespo": {"k_pos": 2.0, "lambda_pos": 3.0, "k_neg": 3.0, "lambda_neg": 2.0, "std_ddof": 1},
    "dppo_tv": {"delta": 0.15, "max_weight": 20.0},
    "dppo_kl": {"delta": 0.05, "max_weight": 20.0},
    "ctpo": {"c_low": 0.025, "c_high": 0.05, "c_dual": 0.05, "std_ddof": 1},
}  # fmt: skip


@EVERY_METHOD
def test_published_defaults(name: str) -> None:
    assert {key: getattr(METHODS[name].hyper, key) for key in DEFAULTS[name]} == DEFAULTS[name]


RATIO_MISTAKES = [{"clip_low": -0.1}, {"clip_low": 1.5}, {"clip_low": math.nan}, {"clip_high": -0.1},
                  {"clip_high": math.nan}]  # fmt: skip
DUAL_MISTAKES = [{"dual_clip": 0.5}, {"dual_clip": 1.0}, {"dual_clip": math.nan}]
ROOT_MISTAKES = [{"c_low": -0.01}, {"c_low": math.nan}, {"c_high": 0.0}, {"c_high": math.inf}]
STD_MISTAKES = [{"std_ddof": -1}, {"std_eps": -1e-4}, {"std_eps": math.nan}]
MISTAKES = {
    "ppo": [*RATIO_MISTAKES, *DUAL_MISTAKES, {"gamma": 1.1}, {"gamma": -0.1}, {"gae_lambda": 1.1},
            {"gae_lambda": -0.1}, {"value_clip": -0.2}],
    "rloo": RATIO_MISTAKES,
    "grpo": [*RATIO_MISTAKES, *DUAL_MISTAKES, *STD_MISTAKES],
    "gspo": [*RATIO_MISTAKES, *STD_MISTAKES],
    "fspo": [{"c_low": -0.01}, {"c_high": -0.01}, {"c_high": math.nan}, {"c_dual": 0.02}, {"drift": "banana"},
             {"drift": math.nan}, {"ema_decay": -0.1}, {"ema_decay": 1.5}, {"sigma_decay": -0.1},
             {"sigma_decay": 1.5}, {"target_clip_rate": 0.0}, {"target_clip_rate": 1.0}, {"target_clip_rate": -0.1},
             {"target_clip_rate": 2.0}],
    "dr_grpo": [*RATIO_MISTAKES, *DUAL_MISTAKES],
    "dapo": [*RATIO_MISTAKES, *DUAL_MISTAKES, *STD_MISTAKES],
    "cispo": [{"max_weight": 1.0}, {"max_weight": math.nan}, {"max_weight": math.inf}, *STD_MISTAKES],
    "sapo": [{"tau_pos": 0.0}, {"tau_neg": -1.0}, {"tau_neg": math.nan}, *STD_MISTAKES],
    **{key: [*RATIO_MISTAKES, *STD_MISTAKES] for key in ("gspo_wide", "gspo_token", "luspo")},
    "gspo_sqrt": [*ROOT_MISTAKES, *STD_MISTAKES],
    "gmpo": [{"log_low": 0.0}, {"log_high": -0.4}, {"log_high": math.nan}, *STD_MISTAKES],
    "vespo": [{"k_pos": 0.0}, {"lambda_pos": -1.0}, {"k_neg": math.nan}, {"lambda_neg": math.inf}, *STD_MISTAKES],
    **{key: [{"delta": 0.0}, {"delta": math.nan}, {"max_weight": 1.0}] for key in ("dppo_tv", "dppo_kl")},
    "ctpo": [*ROOT_MISTAKES, {"c_dual": 0.0}, {"c_dual": math.nan}, *STD_MISTAKES],
}  # fmt: skip


@pytest.mark.parametrize(("name", "change"), [(name, change) for name in MISTAKES for change in MISTAKES[name]])
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
