"""FSPO inside TRL's trainer: it trains, and its loss and gradients on TRL's own batches are the suite's."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from methods import Row, step_loss
from methods import fspo as oracle
from suite.advantages import group_standardised
from suite.experiments.names import EMBEDDED_MODEL, METHODS, tasks_named
from suite.policy.loading import load_model
from suite.policy.scoring import micro_batches, score
from suite.training.update import Learner, optimizer_step
from suite.training.whole_batch import ScoredBatch
from suite.types import FinishReason, PolicyBatch, Rollout, UserError

pytest.importorskip("trl", reason="trl is not installed (pip install fspo-suite[trl])")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
pytestmark = pytest.mark.external

WIDTHS = {"fspo_c_low": 2e-3, "fspo_c_high": 3e-3}


def prompts() -> list[str]:
    """What the embedded model knows how to go on with."""
    (task,) = tasks_named(("recurrence",))
    return [task.render(problem) for problem in task.load("train", None)[:4]]


def rewards(completions: list[str], **_: Any) -> list[float]:
    """Something that differs within a group and needs no skill."""
    return [float(len(text) % 3) for text in completions]


def settings(folder: Path, **changes: Any) -> Any:
    """Two rollout batches of 16 responses, two optimizer steps on each half of one, at a rate that leaves the band."""
    given = {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "max_steps": 2,
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "steps_per_generation": 2,
        "num_iterations": 2,
        "learning_rate": 1e-3,
        "max_completion_length": 24,
        "max_grad_norm": 1.0,
        "logging_steps": 1,
        "report_to": [],
        "save_strategy": "no",
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "seed": 3,
        "lr_scheduler_type": "constant",
        **WIDTHS,
    }
    return importlib.import_module("fspo.plugins.trl").FSPOConfig(**{**given, **changes})


class Seen(SimpleNamespace):
    """One call of the loss: TRL's batch, weights and running estimates before it, the loss, the gradient after it."""


def trainer_of(args: Any) -> tuple[Any, list[Seen]]:
    """A trainer of the embedded model, and a list that fills with what its loss saw."""
    from datasets import Dataset

    plugin = importlib.import_module("fspo.plugins.trl")
    seen: list[Seen] = []

    class Watched(plugin.FSPOTrainer):
        def _compute_loss(self, model: Any, inputs: Any) -> Any:
            held = {name: x.clone() if torch.is_tensor(x) else x for name, x in inputs.items()}
            weights = {name: p.detach().clone() for name, p in model.named_parameters()}
            before = dict(self.fspo_state)
            loss = super()._compute_loss(model, inputs)
            after = dict(self.fspo_state)
            seen.append(Seen(batch=held, weights=weights, loss=loss.item(), state=before, state_after=after))
            return loss

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any) -> Any:
            result = super().training_step(model, inputs, num_items_in_batch)
            seen[-1].gradient = {name: p.grad.clone() for name, p in model.named_parameters()}
            return result

    loaded = load_model("embedded", dtype=torch.float32, device="cpu", embedded_folder=EMBEDDED_MODEL)
    loaded.tokenizer.padding_side = "left"
    data = Dataset.from_list([{"prompt": text} for text in prompts()])
    trainer = Watched(loaded.model, rewards, args, train_dataset=data, processing_class=loaded.tokenizer)
    return trainer, seen


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[Seen]]:
    trainer, seen = trainer_of(settings(tmp_path_factory.mktemp("trl"), max_steps=4))
    trainer.train()
    return trainer, seen


def rollouts_of(batch: dict[str, Any]) -> list[Rollout]:
    """TRL's padded batch as rollouts of the suite."""
    found = []
    for i in range(len(batch["prompt_ids"])):
        prompt = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()].tolist()
        response = batch["completion_ids"][i][batch["completion_mask"][i].bool()].tolist()
        zeros = (0.0,) * len(response)
        found.append(Rollout(str(i), 0, i, tuple(prompt), tuple(response), zeros, FinishReason.STOP))
    return found


def with_weights(seen: Seen) -> Any:
    """The embedded model with the weights that the loss was taken at."""
    model: Any = load_model("embedded", dtype=torch.float32, device="cpu", embedded_folder=EMBEDDED_MODEL).model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(seen.weights[name])
    return model


def our_step(seen: Seen, hyper: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the suite's own optimizer step on TRL's batch, in micro-batches of its own."""
    model, batch = with_weights(seen), seen.batch
    parts = []
    for micro in micro_batches(rollouts_of(batch), range(len(batch["prompt_ids"])), 160, "cpu"):
        mask, rows = micro.response_mask, list(micro.rows)
        old = batch["old_per_token_logps"][rows, : mask.shape[1]]
        advantages = batch["advantages"][rows][:, None]
        parts.append(ScoredBatch(micro, PolicyBatch(old, old, advantages, mask, micro.lengths), torch.zeros_like(old)))
    assert len(parts) > 1
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    learner = Learner(model, optimizer, schedule, max_grad_norm=float("inf"), kl_coefficient=0.0)
    method = dataclasses.replace(METHODS["fspo"], hyper=hyper)
    report, _ = optimizer_step(learner, method, parts, seen.state, 24)
    return -report.objective, {name: p.grad for name, p in model.named_parameters()}


def oracle_loss(seen: Seen, hyper: Any) -> float:
    """The equation as loops over floats, on the log-probs of the weights that TRL's loss was taken at."""
    model, batch = with_weights(seen), seen.batch
    rows = []
    for (micro,), i in ((micro_batches(rollouts_of(batch), [i], 1, "cpu"), i) for i in range(len(batch["prompt_ids"]))):
        with torch.no_grad():
            new = score(model, micro)[0].double().tolist()
        old = batch["old_per_token_logps"][i, : len(new)].double().tolist()
        rows.append(Row(new, old, [float(batch["advantages"][i])], [True] * len(new)))
    return step_loss(oracle.response, oracle.DIVISOR, rows, hyper, seen.state)


@pytest.mark.slow
def test_it_trains_and_logs_what_it_clips(trained: tuple[Any, list[Seen]]):
    trainer, seen = trained
    assert trainer.state.global_step == len(seen) == 4
    logged = [entry for entry in trainer.state.log_history if "fspo/clipped" in entry]
    assert [entry["loss"] for entry in logged] == pytest.approx([one.loss for one in seen], abs=1e-4)
    assert logged[0]["fspo/outside_band"] == 0, "the first update of a rollout has ratio 1"
    assert 0 < logged[-1]["fspo/clipped"] <= logged[-1]["fspo/outside_band"] <= 1
    moved = [one.weights["model.embed_tokens.weight"] for one in seen]
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(moved))


@pytest.mark.slow
def test_loss_and_gradients_are_ours_on_trls_own_batches(trained: tuple[Any, list[Seen]]):
    trainer, seen = trained
    for one in seen:
        loss, gradient = our_step(one, trainer.args.hyper)
        assert one.loss == pytest.approx(loss, abs=2e-6)
        for name, theirs in one.gradient.items():
            scale = max(float(theirs.abs().max()), 1e-6)
            torch.testing.assert_close(theirs, gradient[name], rtol=0, atol=2e-4 * scale, msg=lambda m, n=name: n + m)


@pytest.mark.slow
def test_the_loss_is_the_equations(trained: tuple[Any, list[Seen]]):
    trainer, seen = trained
    for one in seen:
        assert one.loss == pytest.approx(oracle_loss(one, trainer.args.hyper), abs=2e-6)
    wider = dataclasses.replace(trainer.args.hyper, c_low=1.0, c_high=1.0)
    assert seen[-1].loss != pytest.approx(oracle_loss(seen[-1], wider), abs=1e-4), "no band at all would pass as well"


@pytest.mark.slow
def test_advantages_are_standardised_in_their_group(trained: tuple[Any, list[Seen]]):
    trainer, seen = trained
    given = torch.tensor(list(trainer._logs["rewards"]["rewards"]))[:16]
    wanted = group_standardised(given, torch.arange(4).repeat_interleave(4), ddof=1, eps=1e-4)
    found = torch.cat([one.batch["advantages"] for one in seen[:2]])
    assert found.sort().values.tolist() == pytest.approx(wanted.sort().values.tolist(), abs=1e-5)


@pytest.mark.slow
def test_running_estimates_see_whole_optimizer_steps_and_travel_with_checkpoints(tmp_path: Path):
    args = settings(
        tmp_path,
        gradient_accumulation_steps=2,
        steps_per_generation=2,
        fspo_drift="ema",
        save_strategy="steps",
        save_steps=2,
        max_steps=2,
    )
    trainer, seen = trainer_of(args)
    trainer.train()
    first, second = (one.state_after for one in seen[:2])
    assert (first, second) == ({}, {"drift": 0.0, "sigma": 0.0}), "known at the end of the step only"
    rows = []
    for one in seen[2:]:
        model = with_weights(one)
        for i, rollout in enumerate(rollouts_of(one.batch)):
            (micro,) = micro_batches([rollout], [0], 1, "cpu")
            with torch.no_grad():
                new = score(model, micro)[0].double().tolist()
            old = one.batch["old_per_token_logps"][i, : len(new)].double().tolist()
            rows.append(Row(new, old, [1.0], [True] * len(new)))
    wanted = oracle.observe(rows, args.hyper, seen[2].state)
    assert trainer.fspo_state == pytest.approx(wanted, rel=1e-3)
    assert json.loads((tmp_path / "checkpoint-2" / "fspo_state.json").read_text()) == trainer.fspo_state
    again, _ = trainer_of(args)
    again.create_optimizer_and_scheduler(2)
    again._load_optimizer_and_scheduler(str(tmp_path / "checkpoint-2"))
    assert again.fspo_state == trainer.fspo_state


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"beta": 0.04}, "beta = 0.04: FSPO has no such setting"),
        ({"epsilon": 0.1}, "epsilon = 0.1: FSPO has no such setting"),
        ({"loss_type": "grpo"}, "loss_type = 'grpo'"),
        ({"fspo_drift": "batch", "gradient_accumulation_steps": 2}, "set gradient_accumulation_steps=1"),
        ({"fspo_drift": "much"}, "zero, batch, ema or a number"),
        ({"fspo_c_low": -1.0}, "c_low"),
        ({"use_vllm": True, "vllm_importance_sampling_mode": "token_mask"}, "weighs whole responses"),
    ],
)
def test_a_setting_that_would_be_lost_is_refused(tmp_path: Path, changes: dict[str, Any], complaint: str):
    with pytest.raises(UserError, match=complaint):
        settings(tmp_path, **changes)


def test_hyper_parameters_arrive(tmp_path: Path):
    args = settings(tmp_path, fspo_drift="-0.002", fspo_c_dual=0.5, fspo_target_clip_rate=0.1)
    assert args.hyper == dataclasses.replace(
        METHODS["fspo"].hyper, c_low=2e-3, c_high=3e-3, drift=-0.002, c_dual=0.5, target_clip_rate=0.1
    )
    assert args.scale_rewards == "group"


def test_another_config_is_refused(tmp_path: Path):
    plugin = importlib.import_module("fspo.plugins.trl")
    theirs = plugin.trl.GRPOConfig(str(tmp_path), use_cpu=True, bf16=False)
    with pytest.raises(UserError, match="args is GRPOConfig, it takes an FSPOConfig"):
        plugin.FSPOTrainer("nothing", rewards, theirs)
