"""What users expect of GRPOTrainer: in SuiteTrainer each works, or is refused by name (docs/other-trainers.md)."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from suite.experiments.names import METHODS
from suite.types import Credit, CreditInput, UserError

pytest.importorskip("trl", reason="trl is not installed (pip install fspo-suite[trl])")
from trl_world import (
    embedded,
    gradient_of,
    our_step,
    plugin,
    prompts,
    rewards,
    same_gradient,
    settings,
    trainer_of,
)

pytestmark = [pytest.mark.external, pytest.mark.xdist_group("trl_features")]
WEIGHTS = [1.0, -0.25]


def length(completions: list[str], **_: Any) -> list[float]:
    """A second reward: letters of the response."""
    return [float(len(text)) for text in completions]


def everything(folder: Path, **changes: Any) -> Any:
    """A run with most features at once: four optimizer steps of two micro-batches, two to a rollout batch."""
    given = {
        "gradient_accumulation_steps": 2,
        "max_steps": 4,
        "max_completion_length": 12,
        "beta": 0.1,
        "reward_weights": WEIGHTS,
        "mask_truncated_completions": True,
        "log_completions": True,
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "hyper": {"drift": "ema"},
        "shuffle_dataset": False,  # on resuming TRL draws another order of prompts
    }
    return settings(folder, **{**given, **changes})


def rich_trainer(folder: Path) -> Any:
    """A trainer for that run."""
    from datasets import Dataset

    data = Dataset.from_list([{"prompt": text} for text in prompts()])
    return trainer_of(everything(folder), reward=[rewards, length], eval_dataset=data)


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """That run, and what one more evaluation said and left (later ones want a process without other trainers)."""
    trainer = rich_trainer(tmp_path_factory.mktemp("rich"))
    trainer.train()
    trainer.evaluated = trainer.evaluate()
    trainer.model.train()
    return trainer


@contextmanager
def holding(thing: Any, **values: Any) -> Iterator[None]:
    """Attributes with other values for a while."""
    before = {name: getattr(thing, name) for name in values}
    for name, value in values.items():
        setattr(thing, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(thing, name, value)


def loss_and_gradient(trainer: Any, inputs: Any, kind: type | None = None) -> tuple[float, Any]:
    """What the trainer's loss (or that of the trainer it is derived from) says of one micro-batch."""
    trainer.model.zero_grad()
    with holding(trainer, method_state=trainer.method_state):
        loss = (kind or type(trainer))._compute_loss(trainer, trainer.model, inputs)
    loss.backward()
    return loss.item(), gradient_of(trainer.model)


def added(trainer: Any, inputs: Any, kind: type | None, **off: Any) -> tuple[float, Any]:
    """What a term adds to loss and gradient: with it, minus the same with these attributes instead."""
    loss, gradient = loss_and_gradient(trainer, inputs, kind)
    with holding(trainer, **off):
        without, less = loss_and_gradient(trainer, inputs, kind)
    return loss - without, {name: x - less[name] for name, x in gradient.items()}


def in_eval(trainer: Any, inputs: Mapping[str, Any], **changes: Any) -> float:
    """The loss of a batch on its own, without the terms beside the method's."""
    trainer.model.eval()
    with torch.no_grad(), holding(trainer, beta=0.0):
        found = trainer._compute_loss(trainer.model, {**inputs, **changes}).item()
    trainer.model.train()
    return found


def same_term(ours: tuple[float, Any], theirs: tuple[float, Any]) -> None:
    """Differences of float32 losses and gradients of order one: 1e-6 of rounding on each side."""
    assert ours[0] == pytest.approx(theirs[0], abs=1e-6)
    assert abs(theirs[0]) > 1e-5, "nothing to compare"
    same_gradient(theirs[1], ours[1], share=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("corrected", [False, True])
def test_beta_is_trls_own_kl_term(corrected: bool, rich: Any):
    rich._step = 2
    with holding(rich.args, use_bias_correction_kl=corrected):
        for inputs in rich._buffered_inputs:
            ours = added(rich, inputs, None, beta=0.0)
            same_term(ours, added(rich, inputs, plugin().trl.GRPOTrainer, beta=0.0))


@pytest.mark.slow
def test_beta_is_the_suites_kl_coefficient(tmp_path: Path):
    args = settings(tmp_path, gradient_accumulation_steps=2, beta=0.3, method="dapo", use_bias_correction_kl=False)
    trainer = trainer_of(args)
    trainer.train()
    batches, weights = trainer._buffered_inputs, dict(trainer.model.named_parameters())
    parts = [loss_and_gradient(trainer, inputs) for inputs in batches]
    report, gradient, _ = our_step(weights, batches, trainer.method, {}, kl=0.3)
    assert report.kl_to_start is not None
    assert report.kl_to_start > 1e-4
    assert sum(loss for loss, _ in parts) == pytest.approx(0.3 * report.kl_to_start - report.objective, abs=3e-6)
    same_gradient({name: parts[0][1][name] + parts[1][1][name] for name in gradient}, gradient)


@pytest.mark.slow
def test_the_routers_auxiliary_loss_is_trls(tmp_path: Path):
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    experts = {"num_key_value_heads": 1, "num_local_experts": 4, "router_aux_loss_coef": 0.5}
    model = MixtralForCausalLM(MixtralConfig(vocab_size=len(embedded().tokenizer), **shape, **experts))
    args = settings(tmp_path, gradient_accumulation_steps=2, max_steps=1, max_completion_length=6, method="dr_grpo")
    trainer = trainer_of(args, model=model)
    trainer.train()
    assert trainer.state.log_history[0]["aux_loss"] > 0
    for inputs in trainer._buffered_inputs:
        ours = added(trainer, inputs, None, aux_loss_enabled=False)
        same_term(ours, added(trainer, inputs, plugin().trl.GRPOTrainer, aux_loss_enabled=False))


def credited(name: str, given: list[float], asked: list[str]) -> list[float]:
    """A method's advantages of rewards, each compared with the others of its prompt."""
    groups, mask = torch.tensor([asked.index(prompt) for prompt in asked]), torch.ones(len(asked), 1, dtype=torch.bool)
    seen = CreditInput(torch.tensor(given), groups, mask)
    return METHODS[name].credit(seen, METHODS[name].hyper).advantages[:, 0].tolist()


@pytest.mark.slow
def test_several_rewards_are_weighed_and_summed(rich: Any):
    texts = list(rich._logs["completion"])
    given = [WEIGHTS[0] * a + WEIGHTS[1] * b for a, b in zip(rewards(texts), length(texts), strict=True)]
    wanted = credited("fspo", given, list(rich._logs["prompt"]))
    assert list(rich._logs["advantages"]) == pytest.approx(wanted, abs=1e-5)
    assert any(wanted)


@pytest.mark.slow
def test_trls_own_advantages_can_be_chosen(tmp_path: Path):
    trainer = trainer_of(settings(tmp_path, method="rloo", scale_rewards="none", max_steps=1))
    trainer.train()
    texts, asked = list(trainer._logs["completion"]), list(trainer._logs["prompt"])
    wanted = credited("dr_grpo", rewards(texts), asked)
    assert list(trainer._logs["advantages"]) == pytest.approx(wanted, abs=1e-5)
    assert wanted != pytest.approx(credited("rloo", rewards(texts), asked))
    found = torch.cat([batch["advantages"] for batch in trainer._buffered_inputs])
    assert sorted(found.tolist()) == pytest.approx(sorted(wanted), abs=1e-5)


def test_responses_without_a_reward_or_a_rival_teach_nothing(rich: Any):
    none, method = float("nan"), METHODS["rloo"]
    with holding(rich, method=method, num_generations=4):
        rich._rewards = torch.tensor([[1.0, 0], [none, none], [0, none], [0, 4], *[[none, none]] * 3, [1, 1]])
        found = rich._advantages(torch.ones(8, 1, dtype=torch.bool))
        assert found.tolist() == [1.5, 0, 0.0, -1.5, 0, 0, 0, 0]
        rich._rewards = torch.full((8, 2), none)
        assert rich._advantages(torch.ones(8, 1, dtype=torch.bool)).tolist() == [0.0] * 8


def test_advantages_of_tokens_reach_the_loss(rich: Any):
    inputs, grpo = rich._buffered_inputs[0], METHODS["grpo"]

    def spread(seen: CreditInput, hyper: Any) -> Credit:
        return Credit(grpo.credit(seen, hyper).advantages * seen.response_mask)

    mask = inputs["completion_mask"].bool()
    with holding(rich, method=dataclasses.replace(grpo, credit=spread)):
        rich._rewards = torch.arange(16.0).reshape(8, 2) ** 2
        by_token = rich._advantages(mask)
        assert by_token.shape == mask.shape
        rich.method = grpo
        by_response = rich._advantages(mask)
        assert in_eval(rich, inputs, advantages=by_token) == pytest.approx(
            in_eval(rich, inputs, advantages=by_response)
        )


@pytest.mark.slow
def test_masked_truncated_responses_count_and_teach_nothing(rich: Any):
    inputs = rich._buffered_inputs[0]
    kept = inputs["completion_mask"].any(dim=1)
    assert 0 < kept.sum() < len(kept)
    fewer = {name: x[kept] if torch.is_tensor(x) and x.dim() else x for name, x in inputs.items()}
    for name, share in (("rloo", float(kept.float().mean())), ("dapo", 1.0)):
        rich.model.eval()
        with holding(rich, method=METHODS[name], beta=0.0):
            (_, whole), (_, part) = loss_and_gradient(rich, inputs), loss_and_gradient(rich, fewer)
        rich.model.train()
        same_gradient(whole, {key: share * x for key, x in part.items()})
        assert float(whole["model.embed_tokens.weight"].abs().max()) > 1e-4


def test_what_a_tool_wrote_does_not_count(rich: Any):
    inputs = rich._buffered_inputs[0]
    tools = torch.ones_like(inputs["completion_mask"])
    tools[:, 1:4] = 0
    elsewhere = inputs["old_per_token_logps"] + 5.0 * (1 - tools)
    without = in_eval(rich, inputs, tool_mask=tools)
    assert in_eval(rich, inputs, tool_mask=tools, old_per_token_logps=elsewhere) == without
    assert in_eval(rich, inputs) != without


def test_without_old_log_probs_the_ratio_is_one(rich: Any):
    """TRL leaves them out where every optimizer step has a rollout batch of its own."""
    inputs = {name: x for name, x in rich._buffered_inputs[0].items() if name != "old_per_token_logps"}
    with holding(rich, method=METHODS["rloo"]):
        assert in_eval(rich, inputs) == pytest.approx(-float(inputs["advantages"].mean()), abs=1e-6)
    assert in_eval(rich, rich._buffered_inputs[0]) != pytest.approx(in_eval(rich, inputs), abs=1e-6)


def test_vllms_weights_multiply_whole_responses(tmp_path: Path, rich: Any):
    inputs = rich._buffered_inputs[0]
    weights = torch.full((8, 1), 2.0)
    assert in_eval(rich, inputs, importance_sampling_ratio=weights) == pytest.approx(2 * in_eval(rich, inputs))
    with pytest.raises(UserError, match="weighed by whole responses; take sequence_mask"):
        settings(tmp_path, use_vllm=True, vllm_importance_sampling_mode="token_mask", method="grpo")


@pytest.mark.slow
def test_evaluation_judges_and_changes_nothing(rich: Any):
    found = rich.evaluated
    assert found.keys() >= {"eval_loss", "eval_reward", "eval_kl", "eval_fspo/clipped", "eval_fspo/drift"}
    last = Path(rich.args.output_dir) / "checkpoint-4"
    assert json.loads((last / "fspo_state.json").read_text()) == rich.method_state
    saved = load_file(last / "model.safetensors")
    assert all(torch.equal(rich.model.get_parameter(name), weight) for name, weight in saved.items())
    steps = [entry["step"] for entry in rich.state.log_history if "eval_loss" in entry]
    assert steps == [2, 4, 4]


@pytest.mark.slow
def test_a_resumed_run_ends_as_one_that_was_not_stopped(rich: Any, tmp_path: Path):
    again = rich_trainer(tmp_path)
    again.train(resume_from_checkpoint=str(Path(rich.args.output_dir) / "checkpoint-2"))
    assert again.state.global_step == 4
    assert again.method_state == rich.method_state
    assert again.method_state["drift"] != 0
    for (name, a), b in zip(again.model.named_parameters(), rich.model.parameters(), strict=True):
        assert torch.equal(a, b), name


@pytest.mark.slow
def test_a_saved_model_loads(rich: Any, tmp_path: Path):
    from transformers import AutoModelForCausalLM

    rich.save_model(str(tmp_path))
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for name, weight in loaded.named_parameters():
        assert torch.equal(weight, rich.model.get_parameter(name)), name
    card = (Path(rich.args.output_dir) / "README.md").read_text()
    assert METHODS["fspo"].title in card


@pytest.mark.slow
def test_completions_are_kept_with_the_methods_advantages(rich: Any):
    import pandas as pd

    table = pd.read_parquet(Path(rich.args.output_dir) / "completions" / "completions_00003.parquet")
    given = WEIGHTS[0] * table["rewards"] + WEIGHTS[1] * table["length"]
    assert table["advantage"].tolist() == pytest.approx(credited("fspo", list(given), list(table["prompt"])), abs=1e-5)


TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.mark.slow
def test_an_adapter_learns_from_conversations(tmp_path: Path):
    """LoRA and chat messages; the reference of `beta` is the model without its adapter."""
    peft = pytest.importorskip("peft", reason="peft is not installed (pip install fspo-suite[lora])")
    from datasets import Dataset

    tokenizer = embedded().tokenizer
    tokenizer.chat_template = TEMPLATE
    data = Dataset.from_list([{"prompt": [{"role": "user", "content": text}]} for text in prompts()])

    def judged(completions: list[Any], **_: Any) -> list[float]:
        assert {message["role"] for one in completions for message in one} == {"assistant"}
        return rewards([one[0]["content"] for one in completions])

    trainer = trainer_of(
        settings(tmp_path, method="ctpo", beta=0.1, learning_rate=1e-2),
        reward=judged,
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"),
    )
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    moved = {name for name, p in trainer.model.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all("lora_" in name for name in moved)
    first, second = trainer.state.log_history[:2]
    assert (first["kl"], first["ctpo/outside_band"]) == (0, 0), "the adapter begins as nothing"
    assert second["kl"] > 0
    texts = [one[0]["content"] for one in trainer._logs["completion"]]
    asked = [str(prompt) for prompt in trainer._logs["prompt"]]
    assert list(trainer._logs["advantages"]) == pytest.approx(credited("ctpo", rewards(texts), asked), abs=1e-5)
