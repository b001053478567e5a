"""Bugs that other implementations had, each with where it was reported: ours must not have them."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

import baselines
from small_world import small_config, small_source, small_trainer
from strategies import METHODS, SEQUENCE_LEVEL
from suite.arithmetic import kl_k1, kl_k3
from suite.methods.trial_batches import batch_for, batch_from_log_ratios, gradient, judged, replace, widened, with_hyper
from suite.policy.sampling import SamplingSettings
from suite.records.update_log import UpdateLog
from suite.replay.one_method import clip_rate
from suite.types import Clip, Divisor, PolicyBatch


def one_response(length: int, advantage: float = 1.0) -> PolicyBatch:
    """A response at ratio 1."""
    ratios = torch.zeros(1, length, dtype=torch.float64)
    return batch_from_log_ratios(ratios, torch.full((1, 1), advantage, dtype=torch.float64), old=-1.0)


def gaussian(sigma: float, length: int, rows: int = 500) -> PolicyBatch:
    """Responses with independent Gaussian token log ratios and A = 1."""
    ratios = sigma * torch.randn(rows, length, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return batch_from_log_ratios(ratios, torch.ones(rows, 1, dtype=torch.float64), old=-1.0)


@pytest.mark.parametrize("name", ["rloo", "gspo", "gspo_sqrt", "fspo", "no_clip"])
@pytest.mark.parametrize("length", [1, 4, 64])
def test_a_sequence_loss_is_not_multiplied_by_the_length(name: str, length: int) -> None:
    """TRL issue 3823: a (B, 1) loss broadcast under a token sum."""
    batch = widened(one_response(length), 7, "right")
    found = judged(METHODS[name], batch)
    assert found.objective.tolist() == [1.0]
    assert found.divisor == Divisor.RESPONSES
    pushed = gradient(METHODS[name], batch).sum().item()
    assert pushed == pytest.approx(1.0 if name.startswith("gspo") else length, rel=1e-12)


def test_a_range_belongs_to_its_ratio() -> None:
    """TRL issue 3834: .2 on GSPO's ratio never clips, 3e-4 on a summed ratio clips everything."""
    batch = gaussian(0.02, 200)

    def outside(name: str, **changes: float) -> float:
        return judged(with_hyper(METHODS[name], **changes), batch).outside_band.double().mean().item()

    assert outside("gspo", clip_low=0.2, clip_high=0.2) == 0.0
    assert outside("rloo", clip_low=3e-4, clip_high=4e-4) > 0.99
    assert 0.3 < outside("gspo") < 1
    assert 0 < outside("gspo_wide") < 0.3


@pytest.mark.parametrize("name", ["gspo", "luspo", "gspo_token"])
def test_the_sequence_mean_is_over_counted_tokens_in_log_space(name: str) -> None:
    """Soup issues 723, 744: masked tokens leak into the mean. unsloth-zoo issue 870: sum of exps for exp of the sum."""
    ratios = torch.tensor([[0.5, 40.0, -0.3, 0.1, -60.0]], dtype=torch.float64)
    mask = torch.tensor([[True, False, True, True, False]])
    batch = batch_from_log_ratios(ratios, torch.ones(1, 1, dtype=torch.float64), mask, old=-1.0)
    weight = judged(METHODS[name], batch).log_weight[0, 0].item()
    assert weight == pytest.approx((0.5 - 0.3 + 0.1) / 3, rel=1e-12)
    assert weight != pytest.approx(math.log((math.exp(0.5) + math.exp(-0.3) + math.exp(0.1)) / 3), rel=1e-3)


@pytest.mark.parametrize("name", METHODS)
def test_the_gradient_of_a_step_knows_no_micro_batch_padding_or_order(name: str) -> None:
    """verl PR 5798, open-instruct issues 1161 and 1137: denominators off by accumulation or by devices.

    Summed over pieces of 1, 2 and 3 responses, each padded on its own and in another order, divided once.
    """
    method, batch = METHODS[name], batch_for(METHODS[name], 4)
    whole = gradient(method, batch)
    pieces: list[list[int]] = [[5], [0, 3], [4, 1, 2]]
    for extra, rows in enumerate(pieces):
        part = gradient(method, widened(batch.rows(rows), extra, "right"))
        torch.testing.assert_close(part[:, : whole.shape[1]], whole[rows], rtol=1e-12, atol=1e-14)


def test_a_dual_clip_belongs_to_a_min() -> None:
    """labs-molt PR 53: a dual clip applied to losses that are not PPO's min."""
    with_dual = {
        name
        for name, method in METHODS.items()
        if any("dual" in field.name for field in dataclasses.fields(method.hyper))
    }
    assert with_dual
    assert all(METHODS[name].clip == Clip.MIN for name in with_dual)


def test_training_samples_from_the_whole_distribution() -> None:
    """TRL issue 6789: top-p or top-k biases the log-probabilities that are compared."""
    assert small_source(small_config()).settings.temperature == 1.0
    fields = {field.name for field in dataclasses.fields(SamplingSettings)}
    assert fields == {"max_new_tokens", "temperature", "batch_size", "stop"}


def test_a_collapse_of_summed_weights_is_seen(tmp_path: Path) -> None:
    """NeMo-RL PR 2269: mean weight .06, the batch scaled down 17 times, and nobody saw it."""
    row = small_trainer(METHODS["rloo"], tmp_path, small_config(steps=1)).run()[0]
    assert 0 < row["ratio/mean_weight"] < math.inf
    assert 0 < row["ratio/effective_sample_size"] <= 1


def test_a_clip_rate_counts_responses_and_not_tokens() -> None:
    """verl's GSPO metric: weighted by tokens, a clip fraction hides what happens to short responses."""
    lengths, wide = np.array([1, 99]), np.array([0.5, 0.0])
    new = np.repeat(wide, lengths) - 1.0
    log = UpdateLog(
        problem_ids=np.array(["short", "long"]),
        seed=0,
        step=0,
        update=1,
        reward=np.ones(2),
        advantage=np.ones(2),
        truncated=np.zeros(2, bool),
        lengths=lengths,
        log_probs=new,
        old_log_probs=np.full(100, -1.0),
    )
    for name in SEQUENCE_LEVEL:
        rate = clip_rate(METHODS[name], log, {})
        assert rate == (0.0 if METHODS[name].clip in (Clip.NONE, Clip.GATE) else 0.5), name
    assert clip_rate(baselines.METHODS["grpo"], log, {}) == 0.5


def test_kl_is_that_of_the_ratio_as_it_is() -> None:
    """prime-rl issue 1329: KL logged from a clamped ratio."""
    x = torch.tensor([-30.0, 25.0], dtype=torch.float64)
    assert kl_k1(x).tolist() == [30.0, -25.0]
    assert kl_k3(x).tolist() == pytest.approx([math.exp(-30) - 1 + 30, math.exp(25) - 1 - 25], rel=1e-12)


def test_a_first_step_with_one_tensor_keeps_its_gradient() -> None:
    """TRL's shortcut of old = new.detach(): without the detach every gradient is 0."""
    batch = one_response(3)
    log_probs = batch.log_probs.clone().requires_grad_(True)
    judged(METHODS["fspo"], replace(batch, log_probs=log_probs, old_log_probs=log_probs)).objective.sum().backward()
    assert log_probs.grad is not None
    assert log_probs.grad.tolist() == [[1.0, 1.0, 1.0]]
