"""What a job starts from: the start model and its sampler, its rollouts, and where it runs."""

from __future__ import annotations

import torch

from suite.config import CompareConfig, TrainConfig
from suite.experiments.evaluation_overlap import overlaps_of
from suite.experiments.models import load_named
from suite.experiments.names import tasks_named
from suite.experiments.own_rewards import reward_digests
from suite.policy.deterministic import compute_deterministically
from suite.policy.engines import require_engine, sampler_for
from suite.policy.loading import LoadedModel
from suite.policy.portable import ARITHMETIC, kind_of_arithmetic
from suite.policy.ranks import ranks_here
from suite.policy.sampling import Sampler
from suite.policy.vllm_sampler import PRECISIONS
from suite.records.provenance import machine, versions
from suite.training.rollout_source import RolloutSource
from suite.training.shared_sampling import sampler_of_ranks


def load(config: TrainConfig) -> tuple[LoadedModel, Sampler]:
    """The start model in float32 on the best device, and a sampler of the configured engine and precision.

    Under torchrun every process has both, and the sampler is one for all.
    """
    require_engine(config.sampler, vllm=config.vllm)
    compute_deterministically(config.deterministic)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_named(config.model, torch.float32, device)
    side_by_side = config.sampling_batch_size
    sampler = sampler_for(config.sampler, loaded.model, loaded.tokenizer, config.precision, side_by_side, config.vllm)
    return loaded, sampler_of_ranks(sampler, ranks_here())


def source_of(config: CompareConfig, loaded: LoadedModel, sampler: Sampler, seed: int) -> RolloutSource:
    """Where the rollouts of a training run come from: its tasks without what the evaluation sets hold too."""
    digests = {"model": loaded.digest, "tokenizer": loaded.tokenizer_digest}
    digests |= {f"reward {name}": digest for name, digest in reward_digests(config.all_tasks).items()}
    chosen, held_out = tasks_named(config.train.tasks), {found.train.id for found in overlaps_of(config)}
    return RolloutSource.of(loaded.model, loaded.tokenizer, sampler, chosen, config.train, seed, digests, held_out)


def environment_of(sampler: Sampler, config: TrainConfig) -> dict[str, str]:
    """Versions, machine, arithmetic and engine of this process, and with how many others it works."""
    here = {ARITHMETIC: kind_of_arithmetic(config.portable), "sampler": sampler.engine}
    return {**versions(), **machine(), **here, "processes": str(ranks_here().count)}


def model_for_evaluation(model: str, precision: str) -> LoadedModel:
    """The named model in that precision, on the GPU where there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_named(model, PRECISIONS[precision], device)
