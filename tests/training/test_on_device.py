"""What trains, samples and evaluates on a CPU does so on a GPU, with the CPU's numbers.

Every test takes the fixture `device`: the pretended one everywhere, and a card where there is one. The pretended device
computes with the CPU's values in another order of sums (other tiles, attention by its definition), so its numbers
are the CPU's up to float32 rounding. A card multiplies with other kernels, and its tolerance is ten times as wide.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from small_world import ODD, requests, small_config, small_source, tiny
from strategies import METHODS
from suite.config import EvalConfig, TrainConfig
from suite.evaluation.evaluate import evaluate
from suite.experiments.names import EMBEDDED_MODEL
from suite.methods.trial_batches import with_hyper
from suite.policy.loading import load_model, model_digest
from suite.policy.lora import merged
from suite.policy.sampling import HalfPrecisionSampler, SamplingSettings, TransformersSampler
from suite.policy.scoring import pack, score, score_and_entropy
from suite.records.rollout_set import RolloutSet
from suite.replay.null_update import PRECISIONS, noise_by_change, null_update
from suite.training.rollout_source import RolloutSource
from suite.training.step_batches import credited, mini_batches, scored_step
from suite.training.trainer import Trainer, build_learner
from suite.training.update import optimizer_step
from suite.types import FinishReason, Method, Rollout

ROUNDING = {"pretended": 1e-5, "cuda": 1e-4}
"""Of log-probs and of means of them: 1e-5 is a hundred units in the last place of float32, over two layers and sums."""
HALF = 2.0**-8
"""One rounding to bfloat16."""


def source_on(place: str, config: TrainConfig, sampler: Any = TransformersSampler) -> RolloutSource:
    """Rollouts of the tiny model on a device."""
    model, tokenizer = tiny()
    model.to(place)
    return dataclasses.replace(small_source(config), model=model, sampler=sampler(model, tokenizer))


def trainer_on(place: str, method: Method, config: TrainConfig, folder: Path, **more: Any) -> Trainer:
    return Trainer(config, method, 0, source_on(place, config), folder, **more)


def comparable(row: dict[str, float]) -> dict[str, float]:
    """The numbers of a logged step that do not come from a clock or a memory counter."""
    return {k: x for k, x in row.items() if not k.startswith(("seconds", "memory", "peak")) and not math.isnan(x)}


def close(found: Any, wanted: Any, device: str, scale: float = 1.0) -> None:
    """The same numbers up to rounding, relative to themselves or, where they cancel, to `scale`."""
    tolerance = ROUNDING[device]
    found, wanted = (torch.as_tensor(x).detach().cpu().double() for x in (found, wanted))
    torch.testing.assert_close(found, wanted, rtol=10 * tolerance, atol=tolerance * scale, equal_nan=True)


# --- whole training runs --------------------------------------------------------------------------

FITTED_ONCE = with_hyper(METHODS["ppo"], critic_warmup_epochs=1)
RUNS: dict[str, tuple[Method, dict[str, Any]]] = {
    "two steps": (METHODS["fspo"], {"steps": 2}),
    "a critic": (FITTED_ONCE, {}),
    "kl": (METHODS["grpo"], {"kl_coefficient": 0.05}),
    "checkpointed activations": (METHODS["fspo"], {"activation_checkpointing": True}),
    "lora": (METHODS["fspo"], {"lora_rank": 2, "kl_coefficient": 0.05}),
    "dynamic sampling": (METHODS["dapo"], {"dynamic_sampling": 1, "overlong_buffer": 8}),
}


def short(**changes: Any) -> TrainConfig:
    """A step of 3 x 4 responses of at most 12 tokens, two updates of two micro-batches or more."""
    settings = {"steps": 1, "problems_per_step": 3, "mini_batches": 2, "max_new_tokens": 12}
    return small_config(**{**settings, "tokens_per_micro_batch": 70, "learning_rate": 1e-4, **changes})


@pytest.mark.parametrize("name", RUNS)
def test_a_run_is_the_cpus(name: str, device: str, tmp_path: Path) -> None:
    """Sampling, scoring, credit, two updates a step, the log, the checkpoint, and the weights after two steps."""
    method, changes = RUNS[name]
    if "lora_rank" in changes:
        pytest.importorskip("peft")
    config = short(**changes)
    there, here = (trainer_on(x, method, config, tmp_path / x) for x in ("cuda", "cpu"))
    rows, wanted = there.run(), here.run()
    assert there.source.model.device.type == "cuda"
    for row, expected in zip(rows, wanted, strict=True):
        found, expected = comparable(row), comparable(expected)
        assert found.keys() == expected.keys()
        for key in found:
            close(found[key], expected[key], device)
    for mine, cpus in zip(there.source.model.parameters(), here.source.model.parameters(), strict=True):
        # An entry of the gradient that nearly vanishes may change its sign: AdamW then moves it the other way.
        gap = (mine.detach().cpu() - cpus.detach()).abs()
        assert gap.max() <= 2 * config.steps * config.updates_per_rollout * config.learning_rate
        assert gap.mean() <= 0.01 * config.learning_rate


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("method", [METHODS["fspo"], FITTED_ONCE], ids=lambda method: method.name)
def test_a_resumed_run_is_the_uninterrupted_one(method: Method, device: str, tmp_path: Path) -> None:
    """Bit for bit, from a checkpoint that the CPU reads as well as the device that wrote it."""

    def interrupt(step: int, numbers: object) -> None:
        raise Interrupted

    config = short(steps=2, checkpoint_every=1, schedule="cosine", warmup_updates=2)
    whole = trainer_on("cuda", method, config, tmp_path / "whole")
    rows = whole.run()
    with pytest.raises(Interrupted):
        trainer_on("cuda", method, config, tmp_path / "cut", on_step=interrupt).run()
    (tmp_path / "cpu").mkdir()
    for file in (tmp_path / "cut").glob("*.*"):
        (tmp_path / "cpu" / file.name).write_bytes(file.read_bytes())
    resumed = trainer_on("cuda", method, config, tmp_path / "cut")
    assert [comparable(row) for row in resumed.run()] == [comparable(row) for row in rows]
    for a, b in zip(whole.source.model.parameters(), resumed.source.model.parameters(), strict=True):
        assert torch.equal(a, b)
    last = trainer_on("cpu", method, config, tmp_path / "cpu").run()[-1]
    for key, value in comparable(last).items():
        close(value, rows[-1][key], device)


def test_a_run_in_bfloat16_is_the_float32_run_up_to_its_rounding(device: str, tmp_path: Path) -> None:
    """Autocast in training, attention by the kernel with its gradient, and a bfloat16 sampler."""
    config = short(learning_rate=1e-5)
    first = source_on("cpu", config).record(0)
    rows = []
    for precision in ("float32", "bfloat16"):
        config = dataclasses.replace(config, precision=precision)
        source = source_on("cuda", config, HalfPrecisionSampler if precision == "bfloat16" else TransformersSampler)
        rows += Trainer(config, METHODS["fspo"], 0, source, tmp_path / precision, first).run()
    plain, half = map(comparable, rows)
    assert half["entropy/mean"] == pytest.approx(plain["entropy/mean"], abs=2 * HALF)
    assert half["grad_norm/mean"] == pytest.approx(plain["grad_norm/mean"], rel=8 * HALF)
    assert 0 < half["sampler_gap/mean_abs"] < 8 * HALF
    assert plain["sampler_gap/mean_abs"] < ROUNDING[device]


# --- every method ---------------------------------------------------------------------------------


@cache
def recorded() -> tuple[TrainConfig, RolloutSet]:
    """One step's rollouts, drawn on the CPU."""
    config = short(learning_rate=1e-3)
    return config, small_source(config).record(0)


def two_updates(method: Method, place: str) -> tuple[list[torch.Tensor], list[float]]:
    """The second update's gradients, and what both updates saw, in numbers."""
    config, drawn = recorded()
    learner = build_learner(tiny()[0].to(place), method, config)
    minis = mini_batches(drawn.rollouts, config, 0, 0, learner.model.device)
    parts = credited(method, scored_step(learner, minis, drawn.rollouts), drawn.rollouts)
    state, numbers = {}, []
    for mini in parts:
        report, state = optimizer_step(learner, method, mini, state, 24)
        seen = (report.outside_share, report.clipped_share, report.log_weights, report.token_log_ratios)
        numbers += [report.objective, report.grad_norm, report.value_loss or 0.0, *(float(x.sum()) for x in seen)]
    return [p.grad for p in learner.model.parameters()], numbers


@pytest.mark.parametrize("name", METHODS)
def test_two_updates_of_every_method_are_the_cpus(name: str, device: str) -> None:
    gradients, numbers = two_updates(METHODS[name], "cuda")
    expected, wanted = two_updates(METHODS[name], "cpu")
    close(numbers, wanted, device, scale=10)
    for mine, cpus in zip(gradients, expected, strict=True):
        assert mine.is_cuda
        # As a whole: AdamW moves an entry whose first gradient nearly vanishes by its sign, which rounding decides.
        assert (mine.cpu() - cpus).norm() <= 10 * ROUNDING[device] * cpus.norm()


# --- drawing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [SamplingSettings(24), SamplingSettings(24, temperature=0), SamplingSettings(24, stop=("7", "3="), batch_size=7)],
    ids=["sampled", "greedy", "stop texts"],
)
def test_texts_are_the_cpus(settings: SamplingSettings, device: str) -> None:
    model, tokenizer = tiny()
    asked = requests(tokenizer, 8, samples=2)
    wanted = TransformersSampler(model, tokenizer).sample(asked, settings)
    drawn = TransformersSampler(model.to("cuda"), tokenizer).sample(asked, settings)
    assert [(r.response_ids, r.finish_reason) for r in drawn] == [(r.response_ids, r.finish_reason) for r in wanted]
    assert len({len(r.response_ids) for r in drawn}) > 1 or settings.temperature == 0
    for mine, cpus in zip(drawn, wanted, strict=True):
        close(mine.sampler_log_probs, cpus.sampler_log_probs, device)


def test_the_bfloat16_sampler_follows_the_weights(device: str) -> None:
    """It draws in bfloat16 what the float32 weights say, before and after they have moved."""
    model, tokenizer = tiny()
    model.to("cuda")
    sampler = HalfPrecisionSampler(model, tokenizer)
    texts = []
    for seed in (0, 1):
        with torch.no_grad():
            for mine, new in zip(model.parameters(), tiny(seed)[0].parameters(), strict=True):
                mine.copy_(new)
        drawn = sampler.sample(requests(tokenizer, 8), SamplingSettings(24))
        texts.append([r.response_ids for r in drawn])
        batch = pack(drawn, range(len(drawn)), "cuda")
        with torch.no_grad():
            found = score(merged(model), batch).cpu()
        for row, r in zip(found, drawn, strict=True):
            gap = row[: len(r.response_ids)] - torch.tensor(r.sampler_log_probs)
            assert gap.abs().max() < 16 * HALF
    assert sampler.inner.model.dtype == torch.bfloat16
    assert texts[0] != texts[1]


def test_an_evaluation_is_the_cpus(device: str) -> None:
    model, tokenizer = tiny()
    config = EvalConfig(("odd",), samples=2, limit=8, max_new_tokens=16)
    wanted = evaluate(TransformersSampler(model, tokenizer), tokenizer, [ODD], config, None)
    model.to("cuda")
    assert evaluate(TransformersSampler(model, tokenizer), tokenizer, [ODD], config, None) == wanted


# --- bfloat16 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_model_loads(dtype: torch.dtype, device: str) -> None:
    """With its first scoring pass, in bfloat16 through the kernel; and its weights are those on the CPU."""
    loaded = load_model("embedded", dtype=dtype, device="cuda", embedded_folder=EMBEDDED_MODEL)
    assert loaded.model.device.type == "cuda"
    assert loaded.model.dtype == dtype
    plain = AutoModelForCausalLM.from_pretrained(EMBEDDED_MODEL, dtype=dtype, local_files_only=True)
    assert loaded.digest == model_digest(plain)


def drawn_at_random(*lengths: tuple[int, int]) -> list[Rollout]:
    """Rollouts of random tokens, of so many in prompt and response."""
    draw = torch.Generator().manual_seed(1)
    ids = [torch.randint(1, 40, (p + r,), generator=draw).tolist() for p, r in lengths]
    return [
        Rollout(str(i), 0, i, tuple(x[:p]), tuple(x[p:]), (0.0,) * r, FinishReason.STOP)
        for i, (x, (p, r)) in enumerate(zip(ids, lengths, strict=True))
    ]


@pytest.mark.parametrize("shared", [1, 2, 4], ids="{} heads of keys".format)
def test_bfloat16_scores_and_gradients_by_the_kernel_are_float32s_up_to_rounding(shared: int, device: str) -> None:
    """Against float32 on the CPU with the same weights; grouped heads included."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen3",
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=shared,
        head_dim=16,
        num_hidden_layers=2,
        vocab_size=40,
        max_position_embeddings=128,
    )
    model = AutoModelForCausalLM.from_config(config).bfloat16().float().eval()
    drawn = drawn_at_random((5, 11), (9, 7), (3, 1), (1, 30), (8, 8))
    found = []
    for place, dtype in (("cpu", torch.float32), ("cuda", torch.bfloat16)):
        model.to(place, dtype).zero_grad()
        log_probs, entropy = score_and_entropy(model, batch := pack(drawn, range(5), place))
        log_probs[batch.response_mask].sum().backward()
        norm = torch.stack([p.grad.float().norm() for p in model.parameters()]).cpu()
        found.append((log_probs.detach().float().cpu(), entropy.float().cpu(), norm))
    for wanted, half, scale in zip(*found, (1.0, 1.0, float(found[0][2].max())), strict=True):
        torch.testing.assert_close(half, wanted, rtol=0, atol=8 * HALF * scale)
    assert not torch.equal(found[0][0], found[1][0])


def test_a_null_update_has_no_noise_in_the_same_pass_and_little_in_float32(device: str) -> None:
    config = short(problems_per_step=2, samples_per_problem=3)
    source = source_on("cuda", config)
    log = null_update(source.model, source.record(0).rollouts, config, 0, PRECISIONS)
    table = noise_by_change(log).set_index(["precision", "change"])
    for precision in PRECISIONS:
        if device == "pretended":
            assert table.loc[(precision, "again"), "token_max"] == 0
        assert table.loc[(precision, "again"), "token_max"] <= table.loc[("bfloat16", "than float32"), "token_max"]
    assert table.loc["float32", "token_max"].max() < 10 * ROUNDING[device]
    for precision in PRECISIONS[1:]:
        cast = table.loc[(precision, "than float32"), "token_rms"]
        assert 10 * table.loc["float32", "token_rms"].max() < cast < 16 * HALF
