"""Settings at their ends: refused before anything is computed, or a run that ends with a report, or one clear line."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from faults.outcomes import DONE, SILENT, Counts, command

SMALL = ["evaluation.limit=2", "train.max_new_tokens=16"]
RUN = [
    "train.mini_batches=1",
    "train.problems_per_step=1",
    "train.samples_per_problem=2",
    "evaluation.limit=1",
    "evaluation.samples=1",
    "train.max_new_tokens=1",
    "train.learning_rate=0.9",
    "train.learning_rate=1e-300",
    "train.kl_coefficient=1e30",
    "train.weight_decay=1e30",
    "train.max_grad_norm=1e-30",
    "evaluation.temperature=0",
    "evaluation.temperature=0.01",
    "evaluation.temperature=100",
    "train.tokens_per_micro_batch=1",
    "train.sampling_batch_size=1",
    "train.epochs=3",
    "train.warmup_updates=1000",
    "train.schedule=cosine",
    "train.probe_every=1",
    "train.checkpoint_every=1000",
    "train.dynamic_sampling=1",
    "train.overlong_buffer=16",
    "train.precision=bfloat16",
    "train.activation_checkpointing=true",
    "train.lora_rank=1",
    "evaluation.batch_size=1",
    "evaluation.seed=4294967295",
    "fspo.c_low=1e-30",
    "fspo.c_high=1e30",
    "fspo.target_clip_rate=0.999",
    "fspo.drift=zero",
    "grpo.clip_low=0.999999",
    "grpo.clip_high=1e30",
]
REFUSED_AT_ONCE = [
    *(f"train.learning_rate={x}" for x in ("0", "1", "-1", "nan", "1e999", "")),
    *(f"train.{name}=0" for name in ("problems_per_step", "mini_batches", "epochs", "checkpoint_every")),
    *(f"train.{name}=-1" for name in ("kl_coefficient", "weight_decay", "warmup_updates", "lora_rank", "probe_every")),
    *(f"evaluation.{name}=0" for name in ("samples", "limit", "batch_size", "max_new_tokens")),
    *(f"evaluation.temperature={x}" for x in ("-1", "1e-40", "1e40")),
    *(f"evaluation.seed={x}" for x in ("-5", "4294967296")),
    "evaluation.samples=1000000000000",
    "train.samples_per_problem=1000000",
    "train.samples_per_problem=1",
    "train.mini_batches=1000000",
    "train.max_grad_norm=1e999",
    "train.overlong_buffer=1000",
    "train.tasks=gcd,gcd",
    "evaluation.tasks=gcd,gcd",
    "evaluation.tasks=none",
    "fspo.c_low=0",
    "fspo.c_low=1e999",
    "fspo.target_clip_rate=1",
    "grpo.clip_low=1",
    "grpo.clip_high=-1",
]


def campaign(size: int, seed: int, folder: Path) -> Counts:
    """So many runs, each with one or two settings at an end; every second one is refused before it starts."""
    counts, rng = Counts("strange settings"), random.Random(f"settings {seed}")
    fine, bad = list(RUN), list(REFUSED_AT_ONCE)
    rng.shuffle(fine)
    rng.shuffle(bad)
    for number in range(size):
        here = folder / f"setting-{number}"
        here.mkdir()
        first = (bad if number % 2 else fine)[number // 2 % len(bad if number % 2 else fine)]
        second = [rng.choice(fine)] if number // 2 >= len(fine) else []
        small = [one for one in SMALL if one.split("=")[0] not in first]
        words = ["compare", "smoke", "--steps", "1", "--set", *small, *second, first, "--out", "out"]
        ended = command(words, here)
        word = ended.word
        report = here / "out" / "report.html"
        if (word == DONE and (number % 2 or not report.exists())) or (word != DONE and report.exists()):
            word = SILENT
        if number % 2 and (here / "out").exists():
            word = SILENT  # refused, but only after it began
        counts.add(word, f"{[*second, first]}: {ended.said[-500:]}")
        shutil.rmtree(here)
    return counts
