"""The training loop: layout cannot change a step, a resumed run is the uninterrupted one, guards fire."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from methods.advantages import leave_one_out
from small_world import small_config, small_source, small_trainer
from strategies import METHODS
from suite.methods.trial_batches import with_hyper
from suite.records.result import curves_of
from suite.records.run_log import read_log
from suite.records.update_log import UpdateLog
from suite.training.step_batches import credited
from suite.training.trainer import Trainer, build_learner
from suite.training.update import optimizer_step
from suite.types import UserError


def one_step(method, tokens: int, tmp_path: Path) -> tuple[list[torch.Tensor], float, float]:
    """Gradients of the second mini-batch's parameters after two optimizer steps in float64, with a given budget."""
    config = small_config(mini_batches=2, tokens_per_micro_batch=tokens)
    trainer = small_trainer(method, tmp_path, config)
    rollouts = trainer.source.record(0).rollouts
    trainer.learner = build_learner(trainer.source.model.double(), method, config)
    trainer.start_model = None
    parts = credited(trainer.method, trainer._score(rollouts, 0), rollouts)
    state = {}
    for mini in parts:
        report, state = optimizer_step(trainer.learner, method, mini, state, 24)
    gradients = [p.grad.clone() for p in trainer.source.model.parameters()]
    return gradients, report.objective, report.grad_norm


VARIANTS = {
    **METHODS,
    "fspo batch drift": with_hyper(METHODS["fspo"], drift="batch"),
    "fspo target rate": with_hyper(METHODS["fspo"], drift="ema", target_clip_rate=0.2),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_micro_batches_cannot_change_an_optimizer_step(name: str, tmp_path: Path) -> None:
    whole = one_step(VARIANTS[name], 100_000, tmp_path)
    pieces = one_step(VARIANTS[name], 60, tmp_path)
    assert pieces[1] == pytest.approx(whole[1], rel=1e-6, abs=1e-9)
    assert pieces[2] == pytest.approx(whole[2], rel=1e-6)
    for a, b in zip(whole[0], pieces[0], strict=True):
        # transformers' norms stay float32: entries that nearly cancel keep the error of what they are the difference of
        torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-7 * float(a.abs().max()))


def test_every_response_gets_the_advantage_of_its_own_reward(tmp_path: Path) -> None:
    """Micro-batches are sorted by length: the rewards have to follow."""
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


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("name", ["ppo", "grpo", "dr_grpo", "fspo batch drift", "fspo target rate"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(name: str, tmp_path: Path) -> None:
    def interrupt(step: int, numbers: object) -> None:
        if step == 2:
            raise Interrupted

    method, config = VARIANTS[name], small_config(schedule="cosine", warmup_updates=3, kl_coefficient=0.05)
    whole = small_trainer(method, tmp_path / "whole", config)
    curves = curves_of(whole.run())
    with pytest.raises(Interrupted):
        small_trainer(method, tmp_path / "cut", config, on_step=interrupt).run()
    resumed = small_trainer(method, tmp_path / "cut", config)
    assert curves_of(resumed.run()) == curves
    assert [row["step"] for row in read_log(tmp_path / "cut")] == [0, 1, 2, 3]
    for a, b in zip(whole.source.model.parameters(), resumed.source.model.parameters(), strict=True):
        assert torch.equal(a, b)
    for path in sorted((tmp_path / "whole" / "updates").iterdir()):
        assert path.read_bytes() == (tmp_path / "cut" / "updates" / path.name).read_bytes()


def test_all_methods_meet_the_same_problems_and_noise() -> None:
    config = small_config()
    first = [small_source(config, run_seed=5).record(step) for step in (0, 3)]
    again = [small_source(config, run_seed=5).record(step) for step in (0, 3)]
    assert [r.digest for r in first] == [r.digest for r in again]
    other = small_source(config, run_seed=6).record(0)
    assert other.digest != first[0].digest
    assert {r.seed for r in first[0].rollouts}.isdisjoint(r.seed for r in first[1].rollouts)


def test_a_nearly_equal_policy_mostly_draws_the_same_tokens() -> None:
    config = small_config(problems_per_step=16)
    near, same = small_source(config), small_source(config).record(1).rollouts
    with torch.no_grad():
        for p in near.model.parameters():
            p.add_(1e-4 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0)))
    equal = [a.response_ids == b.response_ids for a, b in zip(near.record(1).rollouts, same, strict=True)]
    assert sum(equal) >= 0.9 * len(equal)


def test_every_epoch_of_problems_meets_each_once() -> None:
    source = small_source(small_config())
    ids = [p.id for step in range(10) for p in source.problems_of(step)]
    assert len(set(ids)) == len(ids) == len(source.problems)
    assert {p.id for p in source.problems_of(10)} <= set(ids)


def test_a_policy_that_is_not_deterministic_is_refused(tmp_path: Path) -> None:
    trainer = small_trainer(METHODS["grpo"], tmp_path)
    layer = trainer.source.model.base_model.layers[0]
    layer.mlp = nn.Sequential(layer.mlp, nn.Dropout(0.1).train())
    with pytest.raises(UserError, match="before the first update, where it must be 0"):
        trainer.run()


def test_a_loss_that_is_not_finite_stops_the_run_with_one_line(tmp_path: Path) -> None:
    method, config = METHODS["rloo"], small_config(mini_batches=1)
    trainer = small_trainer(method, tmp_path, config)
    trainer.learner, trainer.start_model = build_learner(trainer.source.model, method, config), None
    rollouts = trainer.source.record(0).rollouts
    (part,) = trainer._score(rollouts, 0)[0]
    far = dataclasses.replace(
        part.batch, old_log_probs=part.batch.log_probs - 200, advantages=-torch.ones_like(part.batch.advantages)
    )
    before = [p.clone() for p in trainer.source.model.parameters()]
    with pytest.raises(UserError, match=r"rloo: the loss is inf \(a log weight reached \d+\.\d\); lower learning_rate"):
        optimizer_step(trainer.learner, method, [dataclasses.replace(part, batch=far)], {}, 24)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.source.model.parameters(), strict=True))


def test_the_update_log_holds_what_the_updates_saw(tmp_path: Path) -> None:
    trainer = small_trainer(METHODS["fspo_zero_drift"], tmp_path)
    rows = trainer.run()
    log = UpdateLog.concat([UpdateLog.load(p) for p in sorted((tmp_path / "updates").iterdir())])
    assert len(log) == 4 * 16
    assert log.log_ratios[log.token_index(log.update == 0)].tolist() == [0.0] * int(log.lengths[log.update == 0].sum())
    for step, row in enumerate(rows):
        later = (log.step == step) & (log.update > 0)
        assert row["ratio/drift"] == pytest.approx(log.sums()[later].sum() / log.lengths[later].sum(), rel=1e-4)
        assert row["reward/mean"] == pytest.approx(log.reward[log.step == step].mean())
        inside = log.sums()[later] ** 2 <= 0.03**2 * log.lengths[later]
        assert row["clip/outside_band"] == pytest.approx(1 - inside.mean(), abs=1e-6)


def test_a_probe_asks_the_same_of_every_method_and_seed_and_changes_nothing(tmp_path: Path) -> None:
    probed = small_config(steps=3, probe_every=2, probe_problems=3, probe_samples=2)
    rows = small_trainer(METHODS["fspo"], tmp_path / "probed", probed).run()
    plain = small_trainer(METHODS["fspo"], tmp_path / "plain", small_config(steps=3)).run()
    other = small_source(probed, run_seed=1).probe()
    assert ["probe/reward" in row for row in rows] == [True, False, True]
    first = {name: x for name, x in rows[0].items() if name.startswith("probe/")}
    assert first.keys() == {"probe/reward", "probe/length", "probe/truncated"}
    assert other == first, "the start model answers as the start model, whatever the seed of the run"
    seconds = ("seconds/", "peak_gib/", "probe/")
    for row, without in zip(rows, plain, strict=True):
        kept = {name: x for name, x in row.items() if not name.startswith(seconds)}
        assert kept == {name: x for name, x in without.items() if not name.startswith(seconds)}


def test_the_running_drift_is_logged(tmp_path: Path) -> None:
    rows = small_trainer(METHODS["fspo"], tmp_path).run()
    assert all(row["state/drift"] < 0 < row["state/sigma"] for row in rows)


def test_with_one_update_per_rollout_no_ratio_is_reported(tmp_path: Path) -> None:
    rows = small_trainer(METHODS["gspo"], tmp_path, small_config(mini_batches=1, steps=1)).run()
    assert not [name for name in rows[0] if name.startswith(("clip/", "ratio/", "kl/old"))]


def test_several_epochs_reuse_a_rollout(tmp_path: Path) -> None:
    config = small_config(mini_batches=2, epochs=2, steps=1)
    small_trainer(METHODS["grpo"], tmp_path, config).run()
    log = UpdateLog.load(next((tmp_path / "updates").iterdir()))
    assert sorted(set(log.update)) == [0, 1, 2, 3]
    assert config.updates_per_rollout == 4
    third = log.rows(log.update == 2)
    assert third.problem_ids.tolist() == log.rows(log.update == 0).problem_ids.tolist()
    assert abs(third.sums()).max() > 0


def test_a_kl_term_holds_the_policy_near_its_start(tmp_path: Path) -> None:
    def distance(coefficient: float) -> float:
        trainer = small_trainer(METHODS["grpo"], tmp_path / str(coefficient), small_config(kl_coefficient=coefficient))
        start = copy.deepcopy(trainer.source.model)
        rows = trainer.run()
        assert all(math.isfinite(row["loss/kl_to_start"]) for row in rows)
        pairs = zip(start.parameters(), trainer.source.model.parameters(), strict=True)
        return sum(((a - b) ** 2).sum().item() for a, b in pairs)

    assert distance(100.0) < distance(1e-6)


def test_the_critic_is_fitted_before_the_policy_moves(tmp_path: Path) -> None:
    losses = []
    for epochs in (0, 8):
        method = with_hyper(METHODS["ppo"], critic_warmup_epochs=epochs)
        rows = small_trainer(method, tmp_path / str(epochs), small_config(steps=1)).run()
        losses.append(rows[0]["loss/value_loss"])
    assert losses[1] < 0.8 * losses[0]


def test_trainers_share_no_state(tmp_path: Path) -> None:
    trainer = small_trainer(METHODS["grpo"], tmp_path / "a")
    first = trainer.source.record(0)
    again = Trainer(
        **{
            **{f.name: getattr(trainer, f.name) for f in dataclasses.fields(trainer)},
            "source": small_source(trainer.config),
            "folder": tmp_path / "b",
            "first": first,
        }
    )
    assert curves_of(trainer.run()) == curves_of(again.run())
