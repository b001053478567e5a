"""What a device is asked for, counted on the pretended one: launches and host waits, by update, micro-batch and token.

So that a slow loop fails without any clock. Where versions of torch and transformers differ in what a layer launches,
the test pins a bound, or that a count does not depend on what it must not depend on.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pretended_cuda import PretendedCuda
from pretended_rules import Counts
from small_world import requests, small_config, small_source, tiny
from strategies import METHODS
from suite.policy import sampling, vocabulary_tiles
from suite.policy.packed_attention import use_packed_attention
from suite.policy.sampling import HalfPrecisionSampler, SamplingSettings, TransformersSampler
from suite.policy.scoring import pack, score, score_and_entropy
from suite.policy.vocabulary_tiles import log_probs_of
from suite.training.step_batches import credited, mini_batches, scored_step
from suite.training.trainer import Trainer, build_learner
from suite.training.update import optimizer_step
from suite.types import FinishReason, Rollout

TILE = 2**26
"""Logits of one tile on a GPU."""
PACKED_PARTS = 7
"""Tensors of a micro-batch that are made on the host and copied: ids, positions, mask, places, source, targets, ends.
"""


@pytest.fixture
def cuda() -> Iterator[PretendedCuda]:
    with PretendedCuda() as device:
        yield device


def launches(counts: Counts) -> int:
    return sum(counts.launches.values())


def waits(counts: Counts) -> int:
    return sum(counts.waits.values())


def qwen(layers: int = 2, shared: int = 2, vocabulary: int = 40) -> Any:
    """A random model with grouped heads."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen3",
        hidden_size=32,
        intermediate_size=48,
        num_attention_heads=4,
        num_key_value_heads=shared,
        head_dim=8,
        num_hidden_layers=layers,
        vocab_size=vocabulary,
        max_position_embeddings=256,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    use_packed_attention(model.base_model)
    return model


def drawn(count: int, prompt: int = 3, response: int = 5) -> list[Rollout]:
    """Rollouts of different lengths."""
    draw = torch.Generator().manual_seed(count)
    ids = [torch.randint(1, 40, (prompt + response + i,), generator=draw).tolist() for i in range(count)]
    return [
        Rollout(str(i), 0, i, tuple(x[:prompt]), tuple(x[prompt:]), (0.0,) * (response + i), FinishReason.STOP)
        for i, x in enumerate(ids)
    ]


# --- the vocabulary's head ------------------------------------------------------------------------


def head(cuda: PretendedCuda, rows: int, vocabulary: int, dtype: torch.dtype) -> Counts:
    """Log-probs, entropy and gradient of so many tokens over so many ids."""
    draw = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 4, generator=draw).cuda().requires_grad_() for n in (rows, vocabulary))
    targets = torch.randint(vocabulary, (rows,), generator=draw).cuda()
    with cuda.counting() as counts:
        chosen, _ = log_probs_of(hidden, weight, None, targets, dtype=dtype)
        chosen.sum().backward()
    return counts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_head_launches_by_tiles_of_the_device(dtype: torch.dtype, cuda: PretendedCuda) -> None:
    """At most 50 launches a tile, forward and backward, and 50 beside; tiles as small as a CPU's would be 8 here."""
    found = {vocabulary: launches(head(cuda, 512, vocabulary, dtype)) for vocabulary in (1000, 4096, 16384)}
    for vocabulary, count in found.items():
        assert count <= 50 + 50 * math.ceil(vocabulary / (TILE // 512))
    assert len(set(found.values())) == 1


def test_the_head_never_waits(cuda: PretendedCuda) -> None:
    counts = head(cuda, 64, 1000, torch.float32)
    assert waits(counts) == 0, counts.report()


def test_a_head_of_several_tiles_launches_so_many_times_as_much(
    cuda: PretendedCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tiles of a test's size: the launches grow by the same number with each."""
    monkeypatch.setattr(vocabulary_tiles, "TILE", {"cpu": 2**8, "cuda": 2**12})
    one, two, three = (launches(head(cuda, 16, tiles * 256, torch.float32)) for tiles in (1, 2, 3))
    assert three - two == two - one <= 50


@pytest.mark.parametrize("precision", ["float32", "autocast"])
def test_entropy_is_float32_inside_autocast(precision: str, cuda: PretendedCuda) -> None:
    """Half precision of the entropy's sum is off by .01 nats, float32 by a millionth."""
    draw = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 8, generator=draw) for n in (64, 512))
    targets = torch.zeros(64, dtype=torch.int64)
    wanted = torch.distributions.Categorical(logits=hidden @ weight.T).entropy()
    with torch.autocast("cuda", torch.bfloat16, enabled=precision == "autocast"):
        _, found = log_probs_of(hidden.cuda(), weight.cuda(), None, targets.cuda(), dtype=torch.float32)
    assert found is not None
    torch.testing.assert_close(found.cpu(), wanted, rtol=1e-5, atol=1e-5)


# --- scoring --------------------------------------------------------------------------------------


def scored(cuda: PretendedCuda, layers: int, rows: int) -> tuple[Counts, Counts]:
    """Counts of packing a micro-batch, and of scoring it in bfloat16 with its gradient."""
    model = qwen(layers).to("cuda", torch.bfloat16)
    rollouts = drawn(rows)
    score(model, pack(rollouts, range(rows), "cuda"))  # what is made once a model is made here
    with cuda.counting() as packing:
        batch = pack(rollouts, range(rows), "cuda")
    with cuda.counting() as scoring:
        log_probs, _ = score_and_entropy(model, batch)
        log_probs.sum().backward()
    return packing, scoring


def test_scoring_copies_a_micro_batch_once_and_never_waits(cuda: PretendedCuda) -> None:
    """Whatever the layers: where sequences end is told the device once, not once a layer."""
    found = {layers: scored(cuda, layers, 4) for layers in (1, 2, 6)}
    for layers, (packing, scoring) in found.items():
        assert set(packing.waits) == {"a copy from the host"}
        assert waits(packing) <= PACKED_PARTS
        assert waits(scoring) == 0, scoring.report()
        assert scoring.launches["_varlen_attn"] == scoring.launches["_varlen_attn_backward"] == layers
    assert len({waits(packing) for packing, _ in found.values()}) == 1


def test_scoring_launches_by_layers_and_not_by_sequences(cuda: PretendedCuda) -> None:
    """A layer with its gradient: at most 200 launches in bfloat16, attention one forward and one backward."""
    one, two, three = (launches(scored(cuda, layers, 4)[1]) for layers in (1, 2, 3))
    assert three - two == two - one <= 200
    assert launches(scored(cuda, 2, 12)[1]) == two


# --- an optimizer step ----------------------------------------------------------------------------


def updates(cuda: PretendedCuda, name: str, tokens: int, **changes: Any) -> tuple[int, Counts, Counts]:
    """How many micro-batches an optimizer step has within a budget of tokens; counts of scoring them, of the step."""
    config = small_config(mini_batches=1, tokens_per_micro_batch=tokens, **changes)
    rollouts = small_source(config).record(0).rollouts
    method = METHODS[name]
    learner = build_learner(tiny()[0].to("cuda"), method, config)
    start = tiny()[0].to("cuda") if config.kl_coefficient else None
    with cuda.counting() as scoring:
        parts = scored_step(learner, mini_batches(rollouts, config, 0, 0, "cuda"), rollouts, start)
    (parts,) = credited(method, parts, rollouts)
    optimizer_step(learner, method, parts, {}, 24)
    with cuda.counting() as counts:
        optimizer_step(learner, method, parts, {}, 24)
    return len(parts), scoring, counts


@pytest.mark.parametrize("name", ["fspo", "grpo", "ppo"])
def test_an_optimizer_step_waits_as_often_with_one_micro_batch_as_with_many(name: str, cuda: PretendedCuda) -> None:
    (one, _, whole), (many, _, pieces) = (updates(cuda, name, tokens) for tokens in (10_000, 100))
    assert one == 1
    assert many >= 4
    assert waits(pieces) == waits(whole) <= 12, pieces.report()


def test_old_log_probs_cost_a_few_copies_a_micro_batch(cuda: PretendedCuda) -> None:
    (one, whole, _), (many, pieces, _) = (updates(cuda, "grpo", tokens) for tokens in (10_000, 100))
    assert one == 1
    assert waits(whole) <= PACKED_PARTS + 1, whole.report()
    assert waits(pieces) <= many * (PACKED_PARTS + 1), pieces.report()
    assert set(pieces.waits) == {"a copy from the host"}


def test_the_optimizer_is_one_kernel_for_all_weights(cuda: PretendedCuda) -> None:
    counts = updates(cuda, "grpo", 10_000)[2]
    assert counts.launches["_fused_adamw_"] == 1


# --- drawing --------------------------------------------------------------------------------------


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No token ends a response, so that the number of its steps is known."""
    monkeypatch.setattr(sampling, "end_token_ids", lambda model, tokenizer: [10**6])


STEPS = (16, 32)
"""Lengths of two runs, whose difference is that many decoding steps without the beginning and the end of a batch."""
MORE = STEPS[1] - STEPS[0]


def decoding(cuda: PretendedCuda, model: Any, rows: int = 4, **settings: Any) -> Counts:
    """What MORE decoding steps launch and wait for."""
    found, sampler = [], TransformersSampler(model.to("cuda"), tiny()[1])
    for steps in STEPS:
        with cuda.counting() as counts:
            drawn = sampler.sample(requests(sampler.tokenizer, rows), SamplingSettings(steps, **settings))
        assert {len(r.response_ids) for r in drawn} == {steps}
        found.append(counts)
    short, long = found
    return Counts(long.launches - short.launches, long.waits - short.waits, long.sites - short.sites)


def test_a_token_costs_less_than_one_wait_in_eight(cuda: PretendedCuda, endless: None) -> None:
    counts = decoding(cuda, qwen())
    assert waits(counts) <= MORE / 8, counts.report()


def test_stop_texts_are_looked_for_now_and_then(cuda: PretendedCuda, endless: None) -> None:
    """The host reads the tokens to decode them, and tells the device which rows have ended."""
    counts = decoding(cuda, qwen(), stop=("no such text",))
    assert waits(counts) <= MORE / 2, counts.report()


def test_a_token_launches_by_layers_and_not_by_rows_or_ids(cuda: PretendedCuda, endless: None) -> None:
    """At most 80 launches a layer and 80 beside, attention by its definition."""
    found = {layers: launches(decoding(cuda, qwen(layers))) / MORE for layers in (1, 2, 3)}
    assert found[3] - found[2] == pytest.approx(found[2] - found[1], abs=1)
    for layers, each in found.items():
        assert each <= 80 * layers + 80
    for other in (decoding(cuda, qwen(), rows=12), decoding(cuda, qwen(vocabulary=4000))):
        assert launches(other) / MORE == pytest.approx(found[2], abs=2)


def test_grouped_heads_are_not_copied_for_each_query_head(cuda: PretendedCuda, endless: None) -> None:
    """Decoding copies no keys and values, neither where each query head has its own nor where several share one."""
    for shared in (1, 2, 4):
        assert decoding(cuda, qwen(2, shared)).launches["clone"] == 0


def test_the_bfloat16_sampler_never_copies_the_float32_model(cuda: PretendedCuda) -> None:
    """Weight by weight into bfloat16: a copy in float32 first would be a second model in memory."""
    model, tokenizer = tiny()
    model.to("cuda")
    with cuda.counting() as counts:
        HalfPrecisionSampler(model, tokenizer)
    assert counts.launches["clone"] <= len(list(model.buffers()))


# --- a whole step ---------------------------------------------------------------------------------


def training_step(cuda: PretendedCuda, folder: Path, updates: int, tokens: int) -> tuple[int, Counts]:
    """Micro-batches of a training step, and what it waits for beside drawing its responses and its checkpoint."""
    config = small_config(mini_batches=updates, tokens_per_micro_batch=tokens, steps=2, checkpoint_every=2)
    source = small_source(config)
    first = source.record(0)
    source.model.to("cuda")
    minis = mini_batches(first.rollouts, config, 0, 0, "cpu")
    trainer = Trainer(config, METHODS["grpo"], 0, source, folder, first, on_step=stop)
    with cuda.counting() as counts, pytest.raises(Stopped):
        trainer.run()
    return sum(map(len, minis)), counts


class Stopped(Exception):
    pass


def stop(step: int, numbers: object) -> None:
    raise Stopped


def test_a_training_step_waits_a_few_times_a_micro_batch_and_an_update(cuda: PretendedCuda, tmp_path: Path) -> None:
    """Ten times a micro-batch, of which seven bring it to the device, and a dozen times an update."""
    for updates, tokens in ((1, 10_000), (1, 100), (4, 10_000)):
        micro_batches, counts = training_step(cuda, tmp_path / f"{updates}-{tokens}", updates, tokens)
        assert waits(counts) <= 25 + 12 * updates + 10 * micro_batches, counts.report()
