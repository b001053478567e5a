"""A random tiny model and an easy task, for tests of everything that needs a policy but no skill."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from suite.config import TrainConfig
from suite.experiments.embedded.tiny_model import TinyShape, character_tokenizer, tiny_qwen3
from suite.policy.sampling import SampleRequest, TransformersSampler
from suite.seeds import derive
from suite.training.rollout_source import RolloutSource
from suite.training.trainer import Trainer
from suite.types import Method, Problem, Task, Verdict

SHAPE = TinyShape(width=64, layers=2, heads=2, head_size=32, feed_forward=96, max_positions=96)


def load(split: str, data_dir: Path | None) -> list[Problem]:
    """Forty prompts of 1 to 9 digits."""
    rng = random.Random(f"small world {split}")
    return [Problem(f"{split}/{i}", f"{rng.randrange(10 ** rng.randint(1, 9))}=", "", "odd", "1") for i in range(40)]


def grade(pairs: Any) -> list[Verdict]:
    """A response is right when its text has an odd length: about half of random responses are."""
    return [Verdict.CORRECT if len(text) % 2 else Verdict.WRONG for text, _ in pairs]


ODD = Task("odd", "1", "ours", load, lambda p: p.prompt, lambda p: p.prompt, grade, (), 24)


def tiny(seed: int = 0) -> tuple[Any, Any]:
    """A random model and its tokenizer, the same for the same seed."""
    tokenizer = character_tokenizer("0123456789=+", SHAPE.max_positions)
    return tiny_qwen3(SHAPE, tokenizer, seed).eval(), tokenizer


def requests(tokenizer: Any, count: int, samples: int = 1) -> list[SampleRequest]:
    """`samples` requests for each of `count` problems."""
    return [
        SampleRequest(p.id, s, derive(0, "sample", 0, p.id, s), tuple(tokenizer(p.prompt).input_ids))
        for p in load("train", None)[:count]
        for s in range(samples)
    ]


def small_config(**changes: Any) -> TrainConfig:
    """Four steps of 4 x 4 responses, four updates each, at a rate that moves the policy."""
    settings = {
        "tasks": ("odd",),
        "steps": 4,
        "problems_per_step": 4,
        "samples_per_problem": 4,
        "mini_batches": 4,
        "learning_rate": 1e-3,
        "checkpoint_every": 2,
        "sampling_batch_size": 64,
    }
    return TrainConfig(**{**settings, **changes})


def small_source(config: TrainConfig, run_seed: int = 0, model_seed: int = 0) -> RolloutSource:
    """Rollouts of a fresh tiny model on the odd task."""
    model, tokenizer = tiny(model_seed)
    return RolloutSource.of(model, tokenizer, TransformersSampler(model, tokenizer), [ODD], config, run_seed, {})


def small_trainer(method: Method, folder: Path, config: TrainConfig | None = None, **changes: Any) -> Trainer:
    """A trainer of a fresh tiny model."""
    config = config or small_config()
    return Trainer(config, method, 0, small_source(config), folder, **changes)
