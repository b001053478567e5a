"""The name of a model's weights: the same for the same weights alone, whoever changes them and whatever he forgets."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from small_world import small_config, small_trainer, tiny
from strategies import METHODS
from suite.policy import revisions
from suite.policy.loading import model_digest
from suite.policy.revisions import LOOKED_AT, follow, following, weights_changed, weights_name
from suite.training.checkpoint import load_checkpoint, save_checkpoint
from suite.training.trainer import build_learner


@pytest.fixture
def model() -> Any:
    return tiny()[0]


def test_a_model_that_nobody_follows_is_named_by_its_weights(model: Any) -> None:
    same = copy.deepcopy(model)
    assert weights_name(model) == weights_name(same) == model_digest(model)
    with torch.no_grad():
        same.model.norm.weight.data[3] += 1e-3
    assert weights_name(same) == model_digest(same) != model_digest(model)


def test_a_followed_model_has_the_digest_for_a_name_until_its_first_change(model: Any) -> None:
    follow(model)
    first = weights_name(model)
    assert first == model_digest(model) == weights_name(model)
    weights_changed(model)
    second = weights_name(model)
    assert second != first
    assert weights_name(model) == second
    assert "after 1 changes" in second


def test_the_weights_of_a_followed_model_are_read_once(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr("suite.policy.loading.model_digest", lambda m: read.append(m) or f"digest {len(read)}")
    follow(model)
    for _ in range(3):
        weights_name(model)
        weights_changed(model)
    assert len(read) == 1


def test_two_models_after_as_many_changes_have_two_names(model: Any) -> None:
    other = copy.deepcopy(model)
    for one in (model, other):
        follow(one)
        weights_name(one)
        weights_changed(one)
    assert weights_name(model) != weights_name(other)


def test_a_copy_of_a_followed_model_is_not_followed(model: Any) -> None:
    follow(model)
    weights_changed(model)
    assert weights_name(copy.deepcopy(model)) == model_digest(model)


def test_a_model_is_followed_for_a_block(model: Any) -> None:
    with following(model):
        with following(model):
            weights_name(model)
        weights_changed(model)
        assert "after 1 changes" in weights_name(model)
    assert weights_name(model) == model_digest(model)
    follow(model)
    with following(model):
        weights_name(model)
    weights_changed(model)
    assert "after 1 changes" in weights_name(model), "who was followed before is followed after it"


# --- who changes weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("counted", [True, False])
def test_every_step_of_the_trainers_optimizer_is_a_change(model: Any, fused: bool, counted: bool) -> None:
    """The planted mistake: an optimizer that nobody hooked. A fused one raises no version counter either."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=fused)
    follow(model, *([optimizer] if counted else []))
    names = [weights_name(model)]
    for _ in range(3):
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        names.append(weights_name(model))
    assert len(set(names)) == 4
    assert ("after 3 changes" in names[-1]) == counted


@pytest.mark.parametrize("lora", [0, 2])
def test_a_learners_steps_are_counted(model: Any, lora: int) -> None:
    if lora:
        pytest.importorskip("peft", reason="needs peft")
    learner = build_learner(model, METHODS["fspo"], small_config(lora_rank=lora))
    before = weights_name(model)
    for p in model.parameters():
        p.grad = torch.ones_like(p) if p.requires_grad else None
    learner.optimizer.step()
    assert "after 1 changes" in weights_name(model)
    assert weights_name(model) != before


def silently(change: Callable[[Any], None]) -> Callable[[Any], None]:
    return torch.no_grad()(change)


@pytest.mark.parametrize(
    "change",
    [
        silently(lambda m: m.model.norm.weight.add_(1e-4)),
        silently(lambda m: m.model.embed_tokens.weight[5, 7:8].mul_(1.01)),
        silently(lambda m: m.load_state_dict(tiny(1)[0].state_dict())),
        lambda m: m.model.norm.weight.data.mul_(1 + 1e-6),
        lambda m: m.model.layers[1].mlp.up_proj.weight.data.copy_(torch.randn(96, 64)),
        lambda m: setattr(m.model.norm, "weight", torch.nn.Parameter(2 * m.model.norm.weight.detach())),
    ],
    ids=["in place", "one number in place", "load_state_dict", "data, each by one bit", "data, one matrix", "replaced"],
)
def test_changes_that_nobody_counted_are_seen(model: Any, change: Callable[[Any], None]) -> None:
    follow(model)
    before = weights_name(model)
    change(model)
    assert weights_name(model) != before


def test_what_no_glance_sees_has_to_be_counted(model: Any) -> None:
    """The limit: one number between those that are looked at, written past the tensor's version."""
    follow(model)
    before, weight = weights_name(model), model.model.layers[0].mlp.up_proj.weight
    assert weight.numel() // LOOKED_AT > 1
    weight.data.view(-1)[1] += 1
    assert weights_name(model) == before
    weights_changed(model)
    assert weights_name(model) != before


def test_a_checkpoint_that_is_read_is_a_change(model: Any, tmp_path: Path) -> None:
    follow(model)
    save_checkpoint(tmp_path / "c", {"model": model}, {}, {})
    before = weights_name(model)
    load_checkpoint(tmp_path / "c", {"model": model}, {})
    assert weights_name(model) != before


def test_adapters_that_come_and_go_are_changes(model: Any) -> None:
    pytest.importorskip("peft", reason="needs peft")
    from suite.policy.lora import add_adapters, fold_adapters

    follow(model)
    names = [weights_name(model)]
    for change in (lambda: add_adapters(model, 2, 4.0, "all-linear", 0), lambda: fold_adapters(model)):
        change()
        names.append(weights_name(model))
    assert len(set(names)) == 3


@pytest.mark.parametrize("lora", [0, 2])
def test_in_training_no_name_is_given_twice(tmp_path: Path, lora: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights differ at every step of a run and after a resume, and so do their names; names tell equal weights."""
    if lora:
        pytest.importorskip("peft", reason="needs peft")
    seen: list[tuple[str, str]] = []

    def trained(steps: int) -> None:
        trainer = small_trainer(METHODS["fspo"], tmp_path, small_config(steps=steps, lora_rank=lora))
        model = trainer.source.model
        trainer.on_rollouts = lambda step, recorded: seen.append((weights_name(model), model_digest(model)))
        trainer.run()
        seen.append((weights_name(model), model_digest(model)))

    trained(2)
    trained(4)  # from the checkpoint after step 2
    names, digests = zip(*seen, strict=True)
    assert len(set(names)) == len(names) == 2 + 1 + 2 + 1
    assert len(set(digests)) >= 5, "the resumed run's first weights may be those that the first run ended with"


def test_the_hook_is_what_counts(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted mistake in the hook is noticed by the count."""
    monkeypatch.setattr(revisions, "weights_changed", lambda m: None)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    follow(model, optimizer)
    weights_name(model)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert "after 0 changes" in weights_name(model), "seen in a glance alone"
