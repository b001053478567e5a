"""One optimizer step against the oracles: its gradient and what divides it, KL, estimates, critic, and its report.

The policy is a table of log-probabilities and the optimizer is plain gradient descent at rate 1, so that one step moves
the table by exactly the gradient, which the oracles know.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn, optim

from methods import fspo as fspo_oracle
from methods import ppo as ppo_oracle
from methods import step_gradient, step_loss
from methods.checks import oracle_of
from strategies import METHODS, rows_of
from suite.arithmetic import divisor_count
from suite.methods.trial_batches import batch_for, replace, with_hyper
from suite.policy.packed_attention import Packing
from suite.policy.scoring import MicroBatch
from suite.training.update import Learner, optimizer_step
from suite.training.whole_batch import ScoredBatch, whole_lengths
from suite.types import Divisor, Method, PolicyBatch

LIMIT = 24
SPLITS = ([[0, 1, 2, 3, 4, 5]], [[4], [1, 3, 0], [2, 5]])


class Table(nn.Module):
    """A parameter for every token."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__()
        self.numbers = nn.Parameter(numbers.clone())

    def of(self, micro: MicroBatch) -> Tensor:
        """The rows of a micro-batch at its width."""
        return self.numbers[list(micro.rows)][:, : micro.response_mask.shape[1]]


class TableLearner(Learner):
    """A learner whose policy and critic are tables."""

    def score(self, batch: MicroBatch) -> Tensor:
        """log_probs of the table."""
        return self.model.of(batch)

    def values(self, batch: MicroBatch) -> Tensor | None:
        """The table of the critic."""
        critic: Any = self.critic
        return None if critic is None else critic.of(batch)


def learner_of(batch: PolicyBatch, **settings: Any) -> TableLearner:
    """Gradient descent at rate 1, not cut, without a KL term."""
    model = Table(batch.log_probs)
    optimizer = optim.SGD(model.parameters(), lr=1.0)
    schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    return TableLearner(model, optimizer, schedule, **{"max_grad_norm": math.inf, "kl_coefficient": 0.0, **settings})


def parts_of(batch: PolicyBatch, split: list[list[int]]) -> list[ScoredBatch]:
    """The batch in micro-batches, each padded to its own longest response only."""
    parts = []
    for rows in split:
        piece = batch.rows(rows)
        width = int(piece.response_mask.nonzero()[:, 1].max()) + 1
        cut = {
            f.name: x[:, :width]
            for f in dataclasses.fields(piece)
            if f.name != "lengths" and (x := getattr(piece, f.name)) is not None
        }
        piece = replace(piece, **cut)
        blank = torch.zeros_like(piece.response_mask, dtype=torch.int64)
        micro = MicroBatch(tuple(rows), blank, blank, Packing((), blank), piece.response_mask, blank, blank, blank)
        parts.append(ScoredBatch(micro, piece, blank.double()))
    return parts


def expected_slope(method: Method, batch: PolicyBatch, state: dict[str, float]) -> tuple[Tensor, Tensor]:
    """The gradient of the step's loss by the oracle, and the rows that lie at no kink."""
    oracle, rows = oracle_of(method.name), rows_of(batch)
    slope = step_gradient(oracle.response, oracle.DIVISOR, rows, method.hyper, state, max_new_tokens=LIMIT)
    smooth = [oracle.response(row, method.hyper, state).margin > 5e-6 for row in rows]
    return torch.tensor(slope, dtype=torch.float64), torch.tensor(smooth)


# --- the optimizer step -----------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_divisor_counts_the_step_and_no_padding(split: list[list[int]]) -> None:
    batch = batch_for(METHODS["grpo"], 1)
    parts = parts_of(batch, split)
    assert divisor_count(Divisor.RESPONSES, whole_lengths(parts), LIMIT) == 6
    assert divisor_count(Divisor.TOKENS, whole_lengths(parts), LIMIT) == int(batch.response_mask.sum())
    assert divisor_count(Divisor.CONSTANT, whole_lengths(parts), LIMIT) == 6 * LIMIT


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", ["rloo", "grpo", "dr_grpo", "dapo", "fspo"])
def test_a_step_climbs_the_oracle_and_the_next_one_too(name: str, split: list[list[int]]) -> None:
    batch = batch_for(METHODS[name], 4)
    learner = learner_of(batch)
    for done in range(2):
        here = replace(batch, log_probs=learner.model.numbers.detach().clone())
        slope, smooth = expected_slope(METHODS[name], here, {})
        report, _ = optimizer_step(learner, METHODS[name], parts_of(batch, split), {}, LIMIT)
        moved = learner.model.numbers.detach() - here.log_probs
        torch.testing.assert_close(moved[smooth], -slope[smooth], rtol=1e-6, atol=1e-8)
        oracle = oracle_of(name)
        loss = step_loss(oracle.response, oracle.DIVISOR, rows_of(here), METHODS[name].hyper, {}, max_new_tokens=LIMIT)
        assert report.objective == pytest.approx(-loss, rel=1e-10)
        assert learner.schedule.last_epoch == done + 1


def test_the_gradient_is_cut_at_its_norm() -> None:
    batch = batch_for(METHODS["rloo"], 4)
    whole, cut = learner_of(batch), learner_of(batch, max_grad_norm=0.01)
    reports = [optimizer_step(x, METHODS["rloo"], parts_of(batch, SPLITS[1]), {}, LIMIT)[0] for x in (whole, cut)]
    moved = [(x.model.numbers.detach() - batch.log_probs).norm().item() for x in (whole, cut)]
    assert moved[0] == pytest.approx(reports[0].grad_norm, rel=1e-5)
    assert moved[1] == pytest.approx(0.01, rel=1e-3)
    assert reports[1].grad_norm == pytest.approx(reports[0].grad_norm, rel=1e-5)


@pytest.mark.parametrize("split", SPLITS)
def test_kl_penalty_is_k3_per_token_of_the_step(split: list[list[int]]) -> None:
    batch = batch_for(METHODS["fspo"], 2)
    start = batch.old_log_probs + 0.3 * torch.randn(
        batch.response_mask.shape, generator=torch.Generator().manual_seed(0)
    )
    batch = replace(batch, ref_log_probs=start, advantages=torch.zeros_like(batch.advantages))
    learner = learner_of(batch, kl_coefficient=0.7)
    report, _ = optimizer_step(learner, METHODS["fspo"], parts_of(batch, split), {}, LIMIT)
    mask, tokens = batch.response_mask, int(batch.response_mask.sum())
    new, ref = batch.log_probs[mask].tolist(), start[mask].tolist()
    penalty = sum(math.exp(r - n) - 1 - (r - n) for n, r in zip(new, ref, strict=True)) / tokens
    assert report.kl_to_start == pytest.approx(penalty, rel=1e-10)
    slope = [0.7 * (1 - math.exp(r - n)) / tokens for n, r in zip(new, ref, strict=True)]
    moved = learner.model.numbers.detach() - batch.log_probs
    assert moved[mask].tolist() == pytest.approx([-x for x in slope], rel=1e-9, abs=1e-12)
    assert not moved[~mask].any()


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("drift", ["batch", "ema"])
def test_estimates_are_taken_before_the_update_or_after_it(drift: str, split: list[list[int]]) -> None:
    """`batch`: from this very mini-batch, before its surrogate; `ema`: left for the next step. Once in both cases."""
    method = with_hyper(METHODS["fspo"], drift=drift, target_clip_rate=0.5)
    batch, before = batch_for(method, 3), {"drift": 0.01, "sigma": 0.05}
    rows = rows_of(batch)
    after = fspo_oracle.observe(rows, method.hyper, before)
    used = after if drift == "batch" else before
    report, state = optimizer_step(learner_of(batch), method, parts_of(batch, split), before, LIMIT)
    assert dict(state) == pytest.approx(after, rel=1e-10)
    loss = step_loss(fspo_oracle.response, fspo_oracle.DIVISOR, rows, method.hyper, used)
    assert report.objective == pytest.approx(-loss, rel=1e-10)


@pytest.mark.parametrize("split", SPLITS)
def test_the_critic_descends_the_value_loss_per_token_of_the_step(split: list[list[int]]) -> None:
    method = METHODS["ppo"]
    batch = batch_for(method, 1)
    assert batch.values is not None
    learner = learner_of(batch)
    critic: Any = Table(batch.values)
    learner.critic, learner.critic_optimizer = critic, optim.SGD(critic.parameters(), lr=1.0)
    learner.critic_schedule = optim.lr_scheduler.LambdaLR(learner.critic_optimizer, lambda step: 1.0)
    report, _ = optimizer_step(learner, method, parts_of(batch, split), {}, LIMIT)
    tokens, h = int(batch.response_mask.sum()), 1e-6
    assert report.value_loss == pytest.approx(
        sum(ppo_oracle.value_loss(row, method.hyper) for row in rows_of(batch)) / tokens, rel=1e-10
    )
    moved = (critic.numbers.detach() - batch.values)[0].tolist()
    for t, change in enumerate(moved):
        step = torch.zeros_like(batch.values)
        step[0, t] = h
        up, down = (
            ppo_oracle.value_loss(rows_of(replace(batch, values=batch.values + s))[0], method.hyper)
            for s in (step, -step)
        )
        assert change == pytest.approx(-(up - down) / (2 * h * tokens), rel=1e-5, abs=1e-8)


# --- what a step reports ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dapo", "gspo"])
def test_a_report_counts_weights_and_no_padding(name: str) -> None:
    method = METHODS[name].scaled(0.05)
    batch = batch_for(method, 2)
    report, _ = optimizer_step(learner_of(batch), method, parts_of(batch, SPLITS[1]), {}, LIMIT)
    order = [i for rows in SPLITS[1] for i in rows]
    found = [oracle_of(name).response(rows_of(batch)[i], method.hyper, {}) for i in order]
    counted = [sum(rows_of(batch)[i].mask) if name == "dapo" else 1 for i in order]
    assert report.rows == tuple(order)
    assert report.outside_share.tolist() == pytest.approx(
        [sum(f.outside) / n for f, n in zip(found, counted, strict=True)], rel=1e-6
    )
    assert report.clipped_share.tolist() == pytest.approx(
        [sum(f.clipped) / n for f, n in zip(found, counted, strict=True)], rel=1e-6
    )
    assert 0 < report.clipped_share.sum() < report.outside_share.sum()
    masks = [rows_of(batch)[i].mask if name == "dapo" else [True] for i in order]
    weights = [
        w for f, mask in zip(found, masks, strict=True) for w, keep in zip(f.log_weight, mask, strict=True) if keep
    ]
    assert report.log_weights.tolist() == pytest.approx(weights, rel=1e-10, abs=1e-12)
