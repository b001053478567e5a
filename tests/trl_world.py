"""The embedded model in TRL's trainer, and the same optimizer steps by the suite, for the tests of the plug-in."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from suite.experiments.names import EMBEDDED_MODEL, tasks_named
from suite.policy.loading import load_model
from suite.policy.scoring import micro_batches
from suite.training.update import Learner, StepReport, optimizer_step
from suite.training.whole_batch import ScoredBatch
from suite.types import FinishReason, Method, PolicyBatch, Rollout, State

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
LIMIT = 24
"""Tokens of a response at most."""
QUIET = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "lr_scheduler_type": "constant",
    "logging_steps": 1,
    "report_to": [],
    "save_strategy": "no",
    "disable_tqdm": True,
    "dataloader_pin_memory": False,
}
"""Settings of TRL's trainers for a short run on a CPU that shows and keeps nothing."""
Gradient = Mapping[str, torch.Tensor]


def plugin() -> Any:
    """fspo.plugins.trl, which imports TRL."""
    return importlib.import_module("fspo.plugins.trl")


def prompts() -> list[str]:
    """What the embedded model knows how to go on with."""
    (task,) = tasks_named(("recurrence",))
    return [task.render(problem) for problem in task.load("train", None)[:4]]


def rewards(completions: list[str], **_: Any) -> list[float]:
    """Something that differs within a group and needs no skill."""
    return [float(len(text) % 3) for text in completions]


def settings(folder: Path, config: str = "SuiteConfig", **changes: Any) -> Any:
    """Two rollout batches of 16 responses, two optimizer steps on each half of one, at a rate that leaves the band."""
    given = {
        **QUIET,
        "output_dir": str(folder),
        "max_steps": 2,
        "num_generations": 4,
        "per_device_train_batch_size": 8,
        "steps_per_generation": 2,
        "num_iterations": 2,
        "learning_rate": 1e-3,
        "max_completion_length": LIMIT,
        "max_grad_norm": 1.0,
        "seed": 3,
    }
    return getattr(plugin(), config)(**{**given, **changes})


def embedded() -> Any:
    """The embedded model and its tokenizer, as TRL wants it."""
    loaded = load_model("embedded", dtype=torch.float32, device="cpu", embedded_folder=EMBEDDED_MODEL)
    loaded.tokenizer.padding_side = "left"
    return loaded


def trainer_of(args: Any, kind: type | None = None, model: Any = None, reward: Any = rewards, **rest: Any) -> Any:
    """A SuiteTrainer (or another kind) of the embedded model on our prompts."""
    from datasets import Dataset

    loaded = embedded()
    rest.setdefault("train_dataset", Dataset.from_list([{"prompt": text} for text in prompts()]))
    rest.setdefault("processing_class", loaded.tokenizer)
    return (kind or plugin().SuiteTrainer)(model or loaded.model, reward, args, **rest)


class Seen(SimpleNamespace):
    """One call of the loss: TRL's batch, weights and running estimates before it, the loss, the gradient after it."""


def watched(args: Any, kind: type | None = None, **rest: Any) -> tuple[Any, list[Seen]]:
    """A trainer, and a list that fills with what its loss saw."""
    seen: list[Seen] = []
    base: Any = kind or plugin().SuiteTrainer

    class Watched(base):
        def _compute_loss(self, model: Any, inputs: Any) -> Any:
            held = {name: x.clone() if torch.is_tensor(x) else x for name, x in inputs.items()}
            weights = {name: p.detach().clone() for name, p in model.named_parameters()}
            before = dict(self.method_state)
            loss = super()._compute_loss(model, inputs)
            after = dict(self.method_state)
            seen.append(Seen(batch=held, weights=weights, loss=loss.item(), state=before, state_after=after))
            return loss

        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any) -> Any:
            result = super().training_step(model, inputs, num_items_in_batch)
            seen[-1].gradient = gradient_of(model)
            return result

    return trainer_of(args, Watched, **rest), seen


def gradient_of(model: Any) -> Gradient:
    """Every parameter's gradient, copied."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def rollouts_of(batch: Mapping[str, Any]) -> list[Rollout]:
    """TRL's padded batch as rollouts of the suite."""
    found = []
    for i in range(len(batch["prompt_ids"])):
        prompt = batch["prompt_ids"][i][batch["prompt_mask"][i].bool()].tolist()
        response = batch["completion_ids"][i][batch["completion_mask"][i].bool()].tolist()
        zeros = (0.0,) * len(response)
        found.append(Rollout(str(i), 0, i, tuple(prompt), tuple(response), zeros, FinishReason.STOP))
    return found


def with_weights(weights: Gradient) -> Any:
    """The embedded model with these weights."""
    model: Any = embedded().model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    return model


def our_step(
    weights: Gradient, batches: Sequence[Mapping[str, Any]], method: Method, state: State, kl: float = 0.0
) -> tuple[StepReport, Gradient, State]:
    """The suite's own optimizer step at these weights on TRL's batches, in micro-batches of its own."""
    model, parts = with_weights(weights), []
    for batch in batches:
        for micro in micro_batches(rollouts_of(batch), range(len(batch["prompt_ids"])), 160, "cpu"):
            mask, rows = micro.response_mask, list(micro.rows)
            old = batch["old_per_token_logps"][rows, : mask.shape[1]]
            start = batch["ref_per_token_logps"][rows, : mask.shape[1]] if kl else None
            advantages = batch["advantages"][rows][:, None]
            scored = PolicyBatch(old, old, advantages, mask, micro.lengths, ref_log_probs=start)
            parts.append(ScoredBatch(micro, scored, torch.zeros_like(old)))
    assert len(parts) > 1
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    learner = Learner(model, optimizer, schedule, max_grad_norm=float("inf"), kl_coefficient=kl)
    report, after = optimizer_step(learner, method, parts, state, LIMIT)
    return report, gradient_of(model), after


def same_gradient(theirs: Gradient, ours: Gradient, share: float = 2e-4) -> None:
    """AssertionError where a parameter's gradients differ by more than a share of its largest entry (float32 sums)."""
    assert theirs.keys() == ours.keys()
    for name, found in theirs.items():
        scale = max(float(found.abs().max()), 1e-6)
        torch.testing.assert_close(found, ours[name], rtol=0, atol=share * scale, msg=lambda m, n=name: n + m)
