"""What planted bugs (tests/mutants) showed to be held by no other test: the optimizer step, its report, the metrics.

The policy is a table of log-probabilities and the optimizer is plain gradient descent at rate 1, so that one step moves
the table by exactly the gradient, which the oracles know.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn, optim

from checks import ORACLES, compare_values
from fspo.resampling import cluster_ids
from oracles import fspo as fspo_oracle
from oracles import ppo as ppo_oracle
from oracles import step_gradient, step_loss
from oracles.advantages import leave_one_out
from strategies import METHODS, rows_of
from suite.arithmetic import effective_sample_size, kl_k1, kl_k3
from suite.metrics import update_metrics
from suite.packed_attention import Packing
from suite.parts import credited
from suite.probes import batch_for, batch_from_log_ratios, judged, replace, with_hyper
from suite.scoring import MicroBatch
from suite.seeds import derive, gumbel_noise
from suite.types import Divisor, Method, PolicyBatch
from suite.update import Learner, Part, StepReport, count, optimizer_step

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


def parts_of(batch: PolicyBatch, split: list[list[int]]) -> list[Part]:
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
        parts.append(Part(micro, piece, blank.double()))
    return parts


def expected_slope(method: Method, batch: PolicyBatch, state: dict[str, float]) -> tuple[Tensor, Tensor]:
    """The gradient of the step's loss by the oracle, and the rows that lie at no kink."""
    oracle, rows = ORACLES[method.name], rows_of(batch)
    slope = step_gradient(oracle.response, oracle.DIVISOR, rows, method.hyper, state, max_new_tokens=LIMIT)
    smooth = [oracle.response(row, method.hyper, state).margin > 5e-6 for row in rows]
    return torch.tensor(slope, dtype=torch.float64), torch.tensor(smooth)


# --- the optimizer step -----------------------------------------------------------------------------


@pytest.mark.parametrize("split", SPLITS)
def test_divisor_counts_the_step_and_no_padding(split: list[list[int]]) -> None:
    batch = batch_for(METHODS["grpo"], 1)
    parts = parts_of(batch, split)
    assert count(Divisor.RESPONSES, parts, LIMIT) == 6
    assert count(Divisor.TOKENS, parts, LIMIT) == int(batch.response_mask.sum())
    assert count(Divisor.CONSTANT, parts, LIMIT) == 6 * LIMIT


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
        oracle = ORACLES[name]
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
        up, down = (ppo_oracle.value_loss(rows_of(replace(batch, values=batch.values + s))[0], method.hyper)
                    for s in (step, -step))  # fmt: skip
        assert change == pytest.approx(-(up - down) / (2 * h * tokens), rel=1e-5, abs=1e-8)


def test_every_response_gets_the_advantage_of_its_own_reward(tmp_path: Path) -> None:
    """Micro-batches are sorted by length: the rewards have to follow."""
    from small_world import small_config, small_trainer  # transformers takes seconds, and only this test needs it
    from suite.trainer import build_learner

    config = small_config(mini_batches=2, tokens_per_micro_batch=100)
    trainer = small_trainer(METHODS["rloo"], tmp_path, config)
    trainer.learner, trainer.start_model = build_learner(trainer.source.model, METHODS["rloo"], config), None
    rollouts = trainer.source.record(0).rollouts
    rewards = [float(r.reward or 0.0) for r in rollouts]
    problems = sorted({r.problem_id for r in rollouts})
    expected = leave_one_out(rewards, [problems.index(r.problem_id) for r in rollouts])
    parts = [part for mini in credited(trainer.method, trainer._score(rollouts, 0), rollouts) for part in mini]
    found = {i: a for part in parts for i, a in zip(part.micro.rows, part.batch.advantages[:, 0].tolist(), strict=True)}
    assert [found[i] for i in range(len(rollouts))] == pytest.approx(expected, abs=1e-6)
    assert len(set(expected)) > 2


# --- what a step reports ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dapo", "gspo"])
def test_a_report_counts_weights_and_no_padding(name: str) -> None:
    method = METHODS[name].scaled(0.05)
    batch = batch_for(method, 2)
    report, _ = optimizer_step(learner_of(batch), method, parts_of(batch, SPLITS[1]), {}, LIMIT)
    order = [i for rows in SPLITS[1] for i in rows]
    found = [ORACLES[name].response(rows_of(batch)[i], method.hyper, {}) for i in order]
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


def report_of(shares: list[float], lengths: list[int], log_ratios: list[float], weights: list[float]) -> StepReport:
    """A report of as many responses as shares, every token of one response with the same log ratio."""
    width = max(lengths)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    ratios = torch.tensor(log_ratios)[:, None] * mask
    known = {
        "rows": tuple(range(len(shares))), "token_log_ratios": ratios, "mask": mask, "grad_norm": 1.0, "objective": 0.0,
        "lengths": torch.tensor(lengths).float(), "outside_share": torch.tensor(shares),
        "clipped_share": torch.tensor(shares) / 2, "log_weights": torch.tensor(weights), "kl_to_start": None,
        "value_loss": None, "log_probs": ratios, "old_log_probs": torch.zeros_like(ratios),
    }  # fmt: skip
    return StepReport(**{f.name: known[f.name] for f in dataclasses.fields(StepReport)})


def test_metrics_by_hand() -> None:
    """The first update is left out; shares are means over responses, not over tokens; KL is a mean over tokens."""
    first = report_of([1.0, 1.0, 1.0], [2, 2, 2], [9.0, 9.0, 9.0], [9.0])
    later = report_of([1.0, 0.0, 0.5], [1, 3, 4], [0.5, -0.1, 0.2], [math.log(2), 0.0])
    numbers = update_metrics([first, later], torch.tensor([1.0, -2.0, 3.0]))
    tokens = [0.5] + [-0.1] * 3 + [0.2] * 4
    drift = sum(tokens) / 8
    squares = [(length * (x - drift)) ** 2 / length for x, length in ((0.5, 1), (-0.1, 3), (0.2, 4))]
    expected = {
        "clip/outside_band": 0.5,
        "clip/outside_band_positive": 0.75,
        "clip/outside_band_negative": 0.0,
        "clip/clipped": 0.25,
        "clip/clipped_positive": 0.375,
        "clip/clipped_negative": 0.0,
        "ratio/effective_sample_size": 9 / (2 * 5),
        "ratio/mean_weight": 1.5,
        "ratio/drift": drift,
        "ratio/sigma_hat": math.sqrt(sum(squares) / 3),
        "kl/old_new_k1": -drift,
        "kl/old_new_k3": sum(math.exp(x) - 1 - x for x in tokens) / 8,
    }
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, rel=1e-5)


# --- small things -----------------------------------------------------------------------------------


def test_effective_sample_size_is_kishs() -> None:
    g = torch.Generator().manual_seed(0)
    logs = torch.randn(50, generator=g, dtype=torch.float64)
    w = [math.exp(x) for x in logs.tolist()]
    assert effective_sample_size(logs).item() == pytest.approx(sum(w) ** 2 / (50 * sum(x * x for x in w)), rel=1e-12)
    assert effective_sample_size(logs + 2000).item() == pytest.approx(effective_sample_size(logs).item(), rel=1e-12)
    assert effective_sample_size(torch.zeros(7)).item() == pytest.approx(1)
    assert effective_sample_size(torch.tensor([0.0, -800.0, -800.0, -800.0])).item() == pytest.approx(1 / 4)


def test_kl_estimators_agree_with_the_divergence() -> None:
    """Both are unbiased over samples of the old policy, k3 is never negative; by hand at one point."""
    old, new = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.3, 0.5]).double()
    exact = (old * (old / new).log()).sum().item()
    for estimator in (kl_k1, kl_k3):
        assert (old * estimator((new / old).log())).sum().item() == pytest.approx(exact, rel=1e-12)
    assert kl_k1(torch.tensor(0.25)).item() == -0.25
    assert kl_k3(torch.tensor(0.25).double()).item() == pytest.approx(math.exp(0.25) - 1.25, rel=1e-12)
    assert kl_k3(torch.linspace(-3, 3, 61)).min().item() >= 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["dppo_tv", "dppo_kl"])
def test_a_token_that_was_certain_is_masked_like_any_other(name: str, dtype: torch.dtype) -> None:
    """Old probability exactly 1: (1 - q) log((1 - q) / (1 - p)) is 0 there, not NaN, which is never beyond a bound."""
    ratios = torch.tensor([[-0.5, -0.01], [-0.5, -0.01]], dtype=dtype)
    batch = batch_from_log_ratios(ratios, torch.tensor([[-1.0], [1.0]], dtype=dtype))
    assert judged(METHODS[name], batch).clipped.tolist() == [[True, False], [False, False]]
    assert compare_values(METHODS[name], batch, {}, rtol=1e-6, atol=1e-6) is None


def test_noise_of_a_row_is_the_same_in_every_chunk() -> None:
    """So many tokens that a CPU takes a few rows at a time."""
    keys, positions = torch.arange(40) * 7919, torch.arange(40)
    together = gumbel_noise(keys, positions, 5000)
    assert torch.equal(together.flip(0), gumbel_noise(keys.flip(0), positions.flip(0), 5000))


def test_labels_that_hold_the_separator_cannot_be_confused() -> None:
    assert derive(0, "a", "b") != derive(0, "astr:b")


def test_clusters_are_pairs_of_seed_and_problem() -> None:
    frame = pd.DataFrame({"seed": [0, 0, 1, 1, 0], "problem_id": ["a", "b", "a", "b", "a"]})
    ids = cluster_ids(frame)
    assert np.unique(ids).tolist() == [0, 1, 2, 3]
    assert ids[0] == ids[4]
