"""The suite's side of a duel: its own trainer, on recorded rollouts or on those that it draws itself."""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.duel import Bell
from benchmarks.material import Material
from benchmarks.planned import PlannedSampler, planned_lengths
from suite.config import TrainConfig
from suite.experiments.models import load_named
from suite.experiments.names import METHODS, tasks_named
from suite.policy.engines import sampler_for
from suite.policy.loading import LoadedModel
from suite.policy.sampling import SamplingSettings, TransformersSampler
from suite.records.costs import GIB, SECONDS, peak_bytes
from suite.records.rollout_set import RolloutSet
from suite.training.rollout_source import RolloutSource
from suite.training.trainer import Trainer
from suite.training.update import StepReport

SEED = 0
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Waiting:
    """A source of rollouts that waits for the bell before it gives any."""

    model: Any
    sampler: Any
    settings: SamplingSettings
    bell: Bell
    give: Callable[[int], RolloutSet]
    drawn: list[float] = field(default_factory=list)
    """Seconds that each round took to give its rollouts, without the waiting."""

    def record(self, step: int) -> RolloutSet:
        """The rollouts of a step, once the round has begun."""
        self.bell.wait()
        found = self.give(step)
        self.drawn.append(time.perf_counter() - self.bell.start)
        return found


class Watched(Trainer):
    """The suite's trainer; keeps the reports of a step's updates, and how many tokens each of their passes computed."""

    reports: list[StepReport]
    computed: int

    def _update(self, parts: Any) -> list[StepReport]:
        self.computed = sum(part.micro.input_ids.numel() for mini in parts for part in mini)
        self.reports = super()._update(parts)
        return self.reports


def loaded_model(task: Mapping[str, Any]) -> LoadedModel:
    """The task's model in the task's dtype, on the CPU."""
    return load_named(task["model"], DTYPES[task["dtype"]], "cpu")


def config_of(task: Mapping[str, Any]) -> TrainConfig:
    """The task as a training run: one epoch of its updates, AdamW at a constant rate."""
    return TrainConfig(
        tasks=tuple(task["tasks"]),
        model=task["model"],
        steps=task["rounds"] + 1,
        problems_per_step=task["prompts"],
        samples_per_problem=task["samples"],
        mini_batches=task["updates"],
        learning_rate=task["learning_rate"],
        max_new_tokens=task["max_new_tokens"],
        sampling_batch_size=task["prompts"] * task["samples"],
        tokens_per_micro_batch=task["micro_tokens"],
        checkpoint_every=10**9,
    )


def source_of(task: Mapping[str, Any], config: TrainConfig, loaded: LoadedModel, bell: Bell) -> Waiting:
    """Recorded rows where the task has them, else what the sampler draws (no stop texts: the peer knows none)."""
    if task.get("material"):
        rows = Material(**task["material"]).rollouts()
        settings = SamplingSettings(task["max_new_tokens"])
        sampler = TransformersSampler(loaded.model, loaded.tokenizer)  # never asked
        return Waiting(loaded.model, sampler, settings, bell, lambda step: RolloutSet({"step": step}, rows))
    plain = [dataclasses.replace(one, stop=()) for one in tasks_named(task["tasks"])]
    sampler = sampler_for(task["engine"], loaded.model, loaded.tokenizer, "float32", config.sampling_batch_size)
    if (lengths := planned_lengths(task)) is not None:
        sampler = PlannedSampler(sampler, lengths)
    inner = RolloutSource.of(loaded.model, loaded.tokenizer, sampler, plain, config, SEED, {})
    return Waiting(loaded.model, sampler, inner.settings, bell, inner.record)


def play(task: Mapping[str, Any], folder: Path) -> None:
    """Train until the bell falls silent."""
    bell, config = Bell(), config_of(task)
    loaded = loaded_model(task)
    source: Any = source_of(task, config, loaded, bell)

    def on_step(step: int, numbers: Mapping[str, float]) -> None:
        reports = trainer.reports
        bell.done(
            loss=[-report.objective for report in reports],
            grad_norm=[report.grad_norm for report in reports],
            phases={phase: numbers[SECONDS + phase] for phase in ("score", "update")} | {"sample": source.drawn[-1]},
            reward=numbers["reward/mean"],
            tokens=numbers["tokens/scored"],
            computed=trainer.computed,
            response_tokens=numbers["tokens/sampled"],
        )

    trainer = Watched(config, METHODS[task["method"]], SEED, source, folder, on_step=on_step)
    bell.say(loaded_gib=peak_bytes() / GIB, threads=torch.get_num_threads())
    trainer.run()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        play(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(temporary))
