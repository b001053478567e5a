"""An optimizer step on a tree of common starts is that on its sequences, for every method and kind of training."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from exact_model import with_exact_norms
from small_world import small_config, small_trainer
from strategies import METHODS
from suite.methods.trial_batches import with_hyper
from suite.policy import prefix_tree
from suite.training.step_batches import credited
from suite.training.trainer import build_learner
from suite.training.update import optimizer_step
from suite.types import Method

FEW_SHOT = tuple(3 + i % 11 for i in range(30))
NEVER, ALWAYS = 1.1, 0.0


def one_step(
    method: Method, saving: float, folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> tuple[dict[str, torch.Tensor], float, int]:
    """Gradients after two optimizer steps in float64 on few-shot prompts, the objective, and tokens computed."""
    monkeypatch.setattr(prefix_tree, "SAVING", saving)
    config = small_config(mini_batches=2, tokens_per_micro_batch=150, **changes)
    trainer = small_trainer(method, folder, config)
    drawn = trainer.source.record(0).rollouts
    rollouts = [dataclasses.replace(one, prompt_ids=FEW_SHOT + one.prompt_ids) for one in drawn]
    model = with_exact_norms(trainer.source.model.double())
    start = copy.deepcopy(model) if config.kl_coefficient else None
    trainer.learner, trainer.start_model = build_learner(model, method, config), start
    parts = credited(trainer.method, trainer._score(rollouts, 0), rollouts)
    state: Any = {}
    for mini in parts:
        report, state = optimizer_step(trainer.learner, method, mini, state, 24)
        if mini is parts[0]:
            assert report.log_weights.abs().max() == 0, "old and new scores come from one layout"
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return gradients, report.objective, sum(part.micro.input_ids.shape[1] for mini in parts for part in mini)


VARIANTS: dict[str, tuple[Method, dict[str, Any]]] = {
    **{name: (method, {}) for name, method in METHODS.items()},
    "fspo, drift of its own mini-batch": (with_hyper(METHODS["fspo"], drift="batch"), {}),
    "fspo with a KL penalty": (METHODS["fspo"], {"kl_coefficient": 0.1}),
    "fspo with adapters": (METHODS["fspo"], {"lora_rank": 2}),
    "fspo with activations computed twice": (METHODS["fspo"], {"activation_checkpointing": True}),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_an_update_on_a_tree_is_that_on_its_sequences(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, changes = VARIANTS[name]
    plain, objective, many = one_step(method, NEVER, tmp_path / "plain", monkeypatch, **changes)
    shared, other, few = one_step(method, ALWAYS, tmp_path / "tree", monkeypatch, **changes)
    assert few < 0.7 * many
    assert other == pytest.approx(objective, rel=1e-10, abs=1e-12)
    assert plain.keys() == shared.keys()
    for parameter, gradient in plain.items():
        scale = max(1.0, float(gradient.abs().max()))
        torch.testing.assert_close(shared[parameter], gradient, rtol=0, atol=1e-11 * scale, msg=parameter)
