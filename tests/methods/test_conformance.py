"""Every method under every check of `fspo method check`, and broken methods that the checks must turn away."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods.checks import oracle_of
from strategies import METHODS, draw_batch, rows_of
from suite.arithmetic import pessimistic_clip, sequence_log_ratio, sequence_surrogate, token_log_ratio
from suite.methods.conformance import CHECKS, Outcome, conformance
from suite.methods.trial_batches import batch_for, gradient, judged, replace
from suite.types import Clip, Divisor, Growth, Method, PolicyBatch, State, Surrogate

EVERY_METHOD = pytest.mark.parametrize("name", METHODS)
ROUNDING: dict[str, Any] = {"rtol": 1e-12, "atol": 1e-14}


@pytest.mark.parametrize("check", CHECKS)
@EVERY_METHOD
def test_every_method_conforms(name: str, check: str) -> None:
    CHECKS[check](METHODS[name])


# --- d objective / d log-probability at ratio one, from the equations --------------------------------


@EVERY_METHOD
@given(data=st.data())
def test_on_policy_slope_is_the_textbooks(name: str, data: st.DataObject) -> None:
    method, slope = METHODS[name], oracle_of(name).ON_POLICY_SLOPE
    batch = draw_batch(data, method)
    batch = replace(batch, old_log_probs=batch.log_probs.clone())
    expected = [[slope(row, t) if row.mask[t] else 0.0 for t in range(len(row.mask))] for row in rows_of(batch)]
    torch.testing.assert_close(gradient(method, batch), torch.tensor(expected, dtype=torch.float64), **ROUNDING)


@pytest.mark.parametrize("seed", range(4))
def test_gspo_token_is_gspo_with_one_advantage_a_response(seed: int) -> None:
    batch = batch_for(METHODS["gspo"], seed)
    a, b = (judged(METHODS[name], batch) for name in ("gspo", "gspo_token"))
    torch.testing.assert_close(b.objective, a.objective, **ROUNDING)
    torch.testing.assert_close(gradient(METHODS["gspo_token"], batch), gradient(METHODS["gspo"], batch), **ROUNDING)


@pytest.mark.parametrize("seed", range(4))
def test_luspo_is_gspo_times_the_length(seed: int) -> None:
    batch = batch_for(METHODS["luspo"], seed)
    gspo = dataclasses.replace(METHODS["gspo"], hyper=METHODS["luspo"].hyper)
    torch.testing.assert_close(
        gradient(METHODS["luspo"], batch), gradient(gspo, batch) * batch.lengths[:, None], **ROUNDING
    )


@pytest.mark.parametrize("seed", range(4))
def test_control_of_gspo_clips_what_fspo_clips(seed: int) -> None:
    batch = batch_for(METHODS["fspo"], seed, rows=64)
    a, b = (judged(METHODS[name], batch) for name in ("fspo", "gspo_sqrt"))
    assert torch.equal(a.clipped, b.clipped)
    assert a.clipped.any()


# --- strangers that must be turned away ---------------------------------------------------------------


def stranger(surrogate: Callable[..., Surrogate], base: str = "fspo", **changes: Any) -> Method:
    surrogate.__doc__ = surrogate.__doc__ or "J_i = something else."
    return dataclasses.replace(METHODS[base], name="stranger", surrogate=surrogate, **changes)


def grows_with_length(batch: PolicyBatch, hyper: Any, state: State) -> Surrogate:
    s, length = sequence_log_ratio(batch), batch.lengths[:, None]
    return sequence_surrogate(s, pessimistic_clip(s, -hyper.c_low * length, hyper.c_high * length, batch.advantages))


def drops_the_mask(batch: PolicyBatch, hyper: Any, state: State) -> Surrogate:
    s, root = (batch.log_probs - batch.old_log_probs).sum(1, keepdim=True), batch.lengths[:, None].sqrt()
    return sequence_surrogate(s, pessimistic_clip(s, -hyper.c_low * root, hyper.c_high * root, batch.advantages))


def padded_length(batch: PolicyBatch, hyper: Any, state: State) -> Surrogate:
    wide = replace(batch, lengths=torch.full_like(batch.lengths, batch.response_mask.shape[1]))
    return METHODS["fspo"].surrogate(wide, hyper, state)


def divided_by_the_batch(batch: PolicyBatch, hyper: Any, state: State) -> Surrogate:
    found = METHODS["fspo"].surrogate(batch, hyper, state)
    parts = {name: getattr(found, name) / len(batch.lengths) for name in ("objective", "unclipped")}
    return dataclasses.replace(found, **parts)


def keeps_the_graph(batch: PolicyBatch, hyper: Any, state: State) -> Surrogate:
    s = ((batch.log_probs - batch.old_log_probs) * batch.response_mask).nan_to_num().sum(1, keepdim=True)
    root = batch.lengths[:, None].sqrt()
    return sequence_surrogate(s, pessimistic_clip(s, -hyper.c_low * root, hyper.c_high * root, batch.advantages))


def divides_by_nothing(batch: PolicyBatch, hyper: Any, state: State) -> Surrogate:
    found = METHODS["fspo"].surrogate(batch, hyper, state)
    parts = {name: getattr(found, name) / batch.lengths for name in ("objective", "unclipped")}
    return dataclasses.replace(found, **parts)


def clip_without_min(batch: PolicyBatch, hyper: Any, state: State) -> Surrogate:
    found, x = METHODS["grpo"].surrogate(batch, hyper, state), token_log_ratio(batch)
    objective = (x.clamp(hyper.log_low, hyper.log_high).exp() * batch.advantages * batch.response_mask).sum(1)
    return dataclasses.replace(found, objective=objective / batch.lengths.clamp(min=1))


def crashes(batch: PolicyBatch, hyper: Any, state: State) -> Surrogate:
    raise RuntimeError("no such column")


REJECTED: Mapping[str, tuple[Method, str, str]] = {
    "band grows with L": (stranger(grows_with_length), "growth of the band with length", "grows as sqrt(L)"),
    "mask dropped": (stranger(drops_the_mask), "garbage in the padding", "is the mask applied?"),
    "padded width for L": (stranger(padded_length), "amount of padding", "columns of padding"),
    "divided by the micro-batch": (
        stranger(divided_by_the_batch),
        "order of responses and micro-batches",
        "depends on the other responses",
    ),
    "old log-probs not detached": (
        stranger(keeps_the_graph),
        "gradient reaches the new log-probs only",
        "old_log_probs",
    ),
    "0/0 for an empty response": (stranger(divides_by_nothing), "empty response", "without counted tokens"),
    "clip without min": (stranger(clip_without_min, "grpo"), "a clipped weight has no gradient", "gradient"),
    "a gate that says it cuts": (
        dataclasses.replace(METHODS["sapo"], clip=Clip.MIN),
        "pessimistic",
        "better than it is",
    ),
    "a band that says there is none": (
        dataclasses.replace(METHODS["rloo"], growth=Growth.NONE),
        "growth of the band with length",
        "there is no band",
    ),
    "a clip that says there is none": (
        dataclasses.replace(METHODS["ppo"], clip=Clip.NONE),
        "pessimistic",
        "the card says there is no clip",
    ),
    "no facts": (dataclasses.replace(METHODS["rloo"], facts={}), "card", "facts lack ratio"),
    "an exception": (stranger(crashes), "pure function", "raised RuntimeError: no such column"),
}


@pytest.mark.parametrize("bug", REJECTED)
def test_a_broken_method_is_rejected_with_a_readable_reason(bug: str) -> None:
    method, check, words = REJECTED[bug]
    failures = {o.check: o for o in conformance(method) if o.reason}
    assert check in failures, f"{bug} passes {check}; fails {list(failures)}"
    assert words in (failures[check].reason or "")


def test_the_example_is_the_smallest() -> None:
    """Padding needs two positions, so the mask's bug shows on one response of two positions, one of them counted."""
    failure = next(o for o in conformance(stranger(drops_the_mask)) if o.check == "garbage in the padding")
    assert failure.example.count("response") == 1
    assert failure.example.endswith("1 uncounted positions")


def test_a_sound_method_has_no_reason_anywhere() -> None:
    outcomes = conformance(METHODS["rloo"])
    without = {
        "a capped weight keeps its gradient": "it has neither cap nor gate",
        "value loss": "it has no critic",
        "running estimates": "it has no running estimates",
    }
    assert outcomes == [Outcome("rloo", check, without=without.get(check, "")) for check in CHECKS]


def test_divisors_are_all_in_use() -> None:
    used = {judged(method, batch_for(method, 0)).divisor for method in METHODS.values()}
    assert used == set(Divisor)
