"""What it costs that vLLM draws from today's weights: seconds of a call for one token, by what changed before it.

    python -m benchmarks.hand_over [--model smollm2] [--precision float32] [--rounds 8] [--out FILE]

`new weights`: after an optimizer step on every weight. `same weights`: after nothing; what is left is the question
whether something changed, and the token. No limit is asked for: the figures are for comparing commits on one machine.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Literal

import torch
import tyro

from suite.commands.console import complaints
from suite.config import TrainConfig, VllmConfig
from suite.experiments.models import load_named
from suite.experiments.names import METHODS
from suite.experiments.recipe_book import TRAINED
from suite.policy.sampling import SampleRequest, SamplingSettings
from suite.policy.vllm_sampler import VllmSampler
from suite.records.files import write_atomically
from suite.records.provenance import machine, versions
from suite.training.trainer import build_learner
from suite.types import UserError


def measured(model: str, precision: Literal["float32", "bfloat16"], rounds: int) -> dict[str, Any]:
    """Seconds of every call, the first one with the start of the engine."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_named(model, torch.float32, device)
    learner = build_learner(loaded.model, METHODS["fspo"], TrainConfig(TRAINED, learning_rate=1e-6))
    sampler = VllmSampler(loaded.model, loaded.tokenizer, VllmConfig(precision, 8))
    asked = [SampleRequest("one token", 0, 7, (1, 2, 3))]

    def call() -> float:
        start = time.perf_counter()
        sampler.sample(asked, SamplingSettings(1))
        return time.perf_counter() - start

    found: dict[str, list[float]] = {"start": [call()], "same weights": [], "new weights": []}
    for _ in range(rounds):
        found["same weights"].append(call())
        for p in loaded.model.parameters():
            p.grad = torch.randn_like(p)
        learner.optimizer.step()
        found["new weights"].append(call())
    return {"engine": sampler.engine, "device": device, "seconds": found}


def run(
    model: str = "smollm2",
    precision: Literal["float32", "bfloat16"] = "float32",
    rounds: int = 8,
    out: Path | None = None,
) -> None:
    """Measure, print the fastest and the median of each kind, and keep all of it.

    Args:
        model: embedded, smollm2, or a folder.
        precision: What the engine computes in.
        rounds: Calls of each kind.
        out: JSON file for every figure.
    """
    found = measured(model, precision, rounds)
    for name, seconds in found["seconds"].items():
        print(f"{name}: fastest {min(seconds):.3f} s, median {statistics.median(seconds):.3f} s of {len(seconds)}")
    if out is not None:
        facts = {"model": model, "precision": precision, **found, "machine": machine(), "versions": versions()}
        write_atomically(out, json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    try:
        tyro.cli(run, prog="python -m benchmarks.hand_over")
    except UserError as error:
        complaints.print(f"benchmarks.hand_over: error: {error}", markup=False)
        sys.exit(2)
