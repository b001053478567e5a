"""Adapters: the first policy is the base, only they move, and outside the trainer nobody meets one."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from small_world import requests, small_config, small_source, small_trainer, tiny
from strategies import METHODS
from suite.config import CompareConfig, EvalConfig
from suite.policy.hand_over import handed_over
from suite.policy.loading import load_model, model_digest
from suite.policy.lora import add_adapters, fold_adapters, merged
from suite.policy.ranks import ALONE
from suite.policy.sampling import HalfPrecisionSampler, SamplingSettings, TransformersSampler
from suite.policy.scoring import score
from suite.records.result import curves_of
from suite.training.step_batches import credited, mini_batches, scored
from suite.training.trainer import build_learner
from suite.training.update import optimizer_step
from suite.types import UserError

pytest.importorskip("peft", reason="needs peft: pip install fspo-suite[lora]")

LORA = {"lora_rank": 2, "lora_alpha": 4.0}
SETTINGS = SamplingSettings(8)


def adapted(seed: int = 0, scale: float = 0.0) -> tuple[Any, Any]:
    """The tiny model with adapters; B is normal noise of that scale."""
    model, tokenizer = tiny()
    add_adapters(model, 2, 4.0, "all-linear", seed)
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(scale * torch.randn(parameter.shape, generator=noise))
    return model, tokenizer


def scores(model: Any, rollouts: Any, config: Any) -> torch.Tensor:
    """Log-probs of every response, in the micro-batches of the first mini-batch."""
    with torch.no_grad():
        return torch.cat([score(model, m).flatten() for m in mini_batches(rollouts, config, 0, 0, "cpu")[0]])


def adapters_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters() if "lora_" in name}


def test_the_first_policy_is_the_base_bit_for_bit() -> None:
    config, (model, tokenizer), (base, _) = small_config(), adapted(), tiny()
    asked = requests(tokenizer, 4, 2)
    drawn = TransformersSampler(model, tokenizer).sample(asked, SETTINGS)
    plain = TransformersSampler(base, tokenizer).sample(asked, SETTINGS)
    assert [r.response_ids for r in drawn] == [r.response_ids for r in plain]
    for one, other in zip(drawn, plain, strict=True):  # on some processors a product of one row takes another kernel
        assert one.sampler_log_probs == pytest.approx(other.sampler_log_probs, abs=1e-6)
    rollouts = small_source(config).record(0).rollouts
    assert torch.equal(scores(model, rollouts, config), scores(base, rollouts, config))
    assert model_digest(merged(model)) == model_digest(base)


def test_every_linear_layer_but_the_head_has_adapters_and_only_they_are_trainable() -> None:
    model, _ = adapted()
    base, _ = tiny()
    linear = {n for n, m in base.named_modules() if isinstance(m, torch.nn.Linear) and m is not base.lm_head}
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {f"{name}.lora_{x}.default.weight" for name in linear for x in "AB"}
    assert not model.training


def test_adapters_are_drawn_from_their_seed_alone() -> None:
    state = torch.get_rng_state()
    one, same, other = (adapters_of(adapted(seed)[0]) for seed in (3, 3, 4))
    model_noise = torch.get_rng_state()
    tiny()
    tiny()
    assert torch.equal(state, model_noise)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not any(torch.equal(one[name], other[name]) for name in one if "lora_A" in name)


@pytest.mark.parametrize("name", ["fspo", "gspo", "grpo", "rloo", "ppo"])
def test_the_first_gradient_is_the_full_one_seen_through_a(name: str) -> None:
    """With W + s B A and B = 0:  dJ/dB = s (dJ/dW) A^T  and  dJ/dA = s B^T (dJ/dW) = 0."""
    method, gradients, learners = METHODS[name], [], []
    for changes in ({}, LORA):
        config = small_config(mini_batches=1, max_grad_norm=1e9, **changes)
        source = small_source(config)
        learner = build_learner(source.model, method, config, seed=5)
        rollouts = source.record(0).rollouts
        minis = [[scored(learner, m, rollouts) for m in mini] for mini in mini_batches(rollouts, config, 0, 0, "cpu")]
        optimizer_step(learner, method, credited(method, minis, rollouts)[0], {}, 24)
        gradients.append({n: p.grad for n, p in source.model.named_parameters() if p.grad is not None})
        learners.append(learner)
    full, low = gradients
    drawn = adapters_of(adapted(5)[0])
    names = {n.removesuffix(".lora_B.default.weight") for n in low if "lora_B" in n}
    assert len(names) == 14
    assert len(low) == 28
    for layer in names:
        expected = 2.0 * full[f"{layer}.weight"] @ drawn[f"{layer}.lora_A.default.weight"].T
        found = low[f"{layer}.lora_B.default.weight"]
        assert expected.abs().max() > 0
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
        assert not low[f"{layer}.lora_A.default.weight"].any()


@pytest.mark.parametrize("name", ["fspo", "ppo"])
def test_only_adapters_move_and_the_start_model_stays_the_base(name: str, tmp_path: Path) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    config = small_config(kl_coefficient=0.05, **LORA)
    rollouts = small_source(config).record(3).rollouts
    base, _ = tiny()
    trainer = small_trainer(METHODS[name], tmp_path, config)

    def look(step: int, numbers: Any) -> None:
        seen.append({n: p.detach().clone() for n, p in trainer.source.model.named_parameters()})
        assert torch.equal(scores(trainer.start_model, rollouts, config), scores(base, rollouts, config))
        assert (numbers["loss/kl_to_start"] > 0) or step == 0

    trainer.on_step = look
    trainer.run()
    start = adapters_of(adapted(0)[0])
    weights = dict(base.named_parameters())
    for key, value in seen[-1].items():
        if "lora_" in key:
            assert not torch.equal(value, start[key])
        else:
            assert torch.equal(value, weights[key.replace(".base_layer", "")])
    frozen = {id(p) for p in trainer.start_model.parameters()}
    assert {id(p) for p in trainer.source.model.parameters()} == frozen, "a second copy of frozen weights"


def test_a_merged_copy_is_the_policy_and_leaves_it_alone() -> None:
    config, (model, _), (base, _) = small_config(), adapted(scale=0.1), tiny()
    rollouts, before = small_source(config).record(0).rollouts, model_digest(model)
    whole = merged(model)
    assert [n for n, _ in whole.named_parameters()] == [n for n, _ in base.named_parameters()]
    assert merged(whole) is whole
    adapter, plain = scores(model, rollouts, config), scores(whole, rollouts, config)
    torch.testing.assert_close(plain, adapter, rtol=0, atol=2e-5)
    assert (adapter - scores(base, rollouts, config)).abs().max() > 0.05
    assert model_digest(model) == before
    assert all(p.requires_grad for p in whole.parameters())


def test_the_trained_model_is_plain_saves_and_loads(tmp_path: Path) -> None:
    policies = []
    config = small_config(**LORA)
    trainer = small_trainer(METHODS["fspo"], tmp_path, config)
    trainer.on_step = lambda step, numbers: policies.append(merged(trainer.source.model))
    trainer.run()
    model = trainer.source.model
    assert model_digest(model) == model_digest(policies[-1]) != model_digest(tiny()[0])
    model.save_pretrained(tmp_path / "model")
    trainer.source.tokenizer.save_pretrained(tmp_path / "model")
    assert load_model(str(tmp_path / "model"), dtype=torch.float32, device="cpu").digest == model_digest(model)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("name", ["ppo", "fspo"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(name: str, tmp_path: Path) -> None:
    def interrupt(step: int, numbers: object) -> None:
        if step == 2:
            raise Interrupted

    config = small_config(schedule="cosine", warmup_updates=3, kl_coefficient=0.05, **LORA)
    whole = small_trainer(METHODS[name], tmp_path / "whole", config)
    curves = curves_of(whole.run())
    with pytest.raises(Interrupted):
        small_trainer(METHODS[name], tmp_path / "cut", config, on_step=interrupt).run()
    resumed = small_trainer(METHODS[name], tmp_path / "cut", config)
    assert curves_of(resumed.run()) == curves
    assert model_digest(resumed.source.model) == model_digest(whole.source.model)
    again = small_trainer(METHODS[name], tmp_path / "cut", config)
    again.run()  # nothing left to do, as after a kill during the evaluation
    assert model_digest(again.source.model) == model_digest(whole.source.model)


def test_a_checkpoint_holds_what_is_trained(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    small_trainer(METHODS["fspo"], tmp_path, small_config(**LORA)).run()
    names = [n for n in load_file(tmp_path / "checkpoint.safetensors") if n.startswith("model.")]
    assert len(names) == 28
    assert all("lora_" in name for name in names)


def test_the_critic_is_a_full_copy_without_adapters() -> None:
    learner = build_learner(tiny()[0], METHODS["ppo"], small_config(**LORA))
    base = dict(tiny()[0].base_model.named_parameters())
    body = dict(learner.critic.body.named_parameters())
    assert body.keys() == base.keys()
    assert all(p.requires_grad and torch.equal(p, base[n]) for n, p in body.items())
    assert len(learner.critic_optimizer.param_groups[0]["params"]) == len(base) + 2


def test_the_half_precision_sampler_draws_from_the_merged_policy() -> None:
    model, tokenizer = tiny()
    sampler = HalfPrecisionSampler(model, tokenizer)
    add_adapters(model, 2, 4.0, "all-linear", 0)
    model.load_state_dict(adapted(scale=0.3)[0].state_dict())
    sampler.sample(requests(tokenizer, 1), SETTINGS)
    for mine, theirs in zip(sampler.inner.model.parameters(), merged(model).parameters(), strict=True):
        assert torch.equal(mine, theirs.to(torch.bfloat16))


def test_vllm_is_given_the_merged_policy() -> None:
    model, _ = adapted(scale=0.1)
    with handed_over(model, torch.float32, ALONE) as folder:
        given = load_file(folder / "model.safetensors") | load_file(folder / "head.safetensors")
    wanted = merged(model).state_dict()
    assert given.keys() == wanted.keys()
    assert all(torch.equal(given[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ("q_prj", "q_prj"),
        ("q_proj,q_prj", "has no layer 'q_prj'"),
        ("q_proj,lm_head", "neither embeddings nor the output head"),
        ("embed_tokens", "neither embeddings nor the output head"),
    ],
)
def test_layers_that_cannot_be_adapted_are_refused(targets: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught:
        add_adapters(tiny()[0], 2, 4.0, targets, 0)
    assert "train.lora_targets" in str(caught.value)


def test_named_layers_alone_are_adapted_and_folded_again() -> None:
    model, _ = tiny()
    add_adapters(model, 1, 2.0, "q_proj,v_proj", 0)
    assert {name.split(".")[-4] for name in adapters_of(model)} == {"q_proj", "v_proj"}
    fold_adapters(model)
    assert model_digest(model) == model_digest(tiny()[0])
    assert copy.deepcopy(model).state_dict().keys() == tiny()[0].state_dict().keys()


@pytest.mark.slow
def test_a_cell_with_adapters_trains_evaluates_and_leaves_a_plain_model(tmp_path: Path) -> None:
    from suite.experiments.cells import CellJob
    from suite.experiments.finished import comparison_stages
    from suite.experiments.names import EMBEDDED_MODEL
    from suite.experiments.recipes import recipe
    from suite.records.packed import read_result

    smoke = recipe("smoke")
    train = dataclasses.replace(smoke.train, steps=1, lora_rank=1, learning_rate=1e-3, portable=False)
    config = CompareConfig("x", ("fspo",), (0,), train, EvalConfig(("gcd",), samples=1, limit=2))
    for job in (job for stage in comparison_stages(config, tmp_path) for job in stage):
        job.run()
    cell = CellJob(config, tmp_path, "fspo", 0).folder
    result, trained = read_result(cell), load_model(str(cell / "model"), dtype=torch.float32, device="cpu")
    base = load_model("embedded", dtype=torch.float32, device="cpu", embedded_folder=EMBEDDED_MODEL)
    assert result.config["lora_rank"] == 1
    assert result.digests["final_model"] == trained.digest != base.digest
    assert trained.model.state_dict().keys() == base.model.state_dict().keys()
    assert result.environment["canary"] == "same"
