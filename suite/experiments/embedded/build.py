"""The embedded base model: built from a seed, measured with the suite's own sampler, saved with its record."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from suite.config import EvalConfig
from suite.evaluation.evaluate import evaluate
from suite.experiments.embedded.fine_tuning import SftConfig, fine_tune
from suite.experiments.embedded.tiny_model import TinyShape, character_tokenizer, tiny_qwen3
from suite.policy.loading import model_digest, tokenizer_digest
from suite.policy.model_folders import write_sums
from suite.policy.sampling import TransformersSampler
from suite.records.files import write_atomically
from suite.records.provenance import versions
from suite.statistics.verdict_counts import pass_at_k, scores
from suite.types import Policy, Task

RECORD = "base.json"
SAMPLES = 8


def build_base(
    folder: Path,
    alphabet: str,
    examples: Iterator[tuple[str, str]],
    tasks: Sequence[Task],
    seed: int,
    console: Console,
    shape: TinyShape | None = None,
    config: SftConfig | None = None,
) -> dict[str, dict[str, float]]:
    """Build, measure and save the model with its tokenizer and base.json; returns pass@1 and pass@8 of every set.

    One thread, so that the same seed gives the same weights on machines of one kind.
    """
    shape, config = shape or TinyShape(rope_theta=1000.0), config or SftConfig()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start = time.perf_counter()
        tokenizer = character_tokenizer(alphabet, shape.max_positions)
        model = tiny_qwen3(shape, tokenizer, seed)
        columns = (TextColumn("fine-tuning, loss {task.fields[loss]:.3f}"), BarColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            row = bar.add_task("", total=config.tokens, loss=float("nan"))
            fine_tune(model, tokenizer, examples, config, seed, lambda n, loss: bar.update(row, completed=n, loss=loss))
        seconds = time.perf_counter() - start
        measured = pass_rates(model, tokenizer, tasks)
    finally:
        torch.set_num_threads(threads)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    record = {
        "seed": seed,
        "shape": asdict(shape),
        "training": asdict(config),
        "parameters": sum(p.numel() for p in model.parameters()),
        "model_digest": model_digest(model),
        "tokenizer_digest": tokenizer_digest(tokenizer),
        "measured": measured,
        "versions": {key: value for key, value in versions().items() if key != "commit"},
    }
    write_atomically(folder / RECORD, json.dumps(record, indent=1) + "\n")
    write_sums(folder)
    console.print(f"built in {seconds:.0f} s: {folder}", highlight=False)
    return measured


def pass_rates(model: Policy, tokenizer: object, tasks: Sequence[Task]) -> dict[str, dict[str, float]]:
    """pass@1, pass@8 and the mean length of the model's responses on the evaluation split of every set."""
    config = EvalConfig(tuple(t.name for t in tasks), samples=SAMPLES)
    measured = {}
    for result in evaluate(TransformersSampler(model, tokenizer), tokenizer, tasks, config, None):
        counted = scores({0: result}, "base")
        measured[result.task] = {
            "pass@1": float(counted.means.mean()),
            f"pass@{SAMPLES}": float(pass_at_k(counted.correct, SAMPLES, SAMPLES).mean()),
            "mean_length": sum(map(sum, result.lengths)) / sum(map(len, result.lengths)),
        }
    return measured
