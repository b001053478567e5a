"""A run of TRL's own GRPOTrainer on the embedded model, recorded into a bank: the example of results/trl-run.

    python -m benchmarks.trl_run --out results/trl-run/bank
    fspo bank lab results/trl-run/bank --no-model --out results/trl-run

TRL's defaults but for what a model of 0.43 million parameters and one CPU core ask for (`SIZE`), and four passes over
every rollout (`num_iterations`), without which every ratio is 1.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import tyro

from suite.commands.console import complaints
from suite.experiments.names import EMBEDDED_MODEL, tasks_named
from suite.policy.loading import load_model
from suite.types import Problem, Task, UserError, Verdict

TASK = "recurrence"
PASSES = 4
SIZE: Mapping[str, Any] = {
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "dataloader_pin_memory": False,
    "per_device_train_batch_size": 32,
    "max_completion_length": 64,
    "learning_rate": 3e-4,
}
"""What the size demands: a CPU, short responses, and a rate 300 times TRL's (1e-6 moves nothing so small)."""
QUIET: Mapping[str, Any] = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "logging_steps": PASSES}


def correct(task: Task, problems: Mapping[str, Problem]) -> Callable[..., list[float]]:
    """The reward: 1 for what the task's grader calls correct, 0 for the rest."""

    def is_correct(completions: Sequence[str], problem: Sequence[str], **rest: Any) -> list[float]:
        pairs = [(text, problems[name]) for text, name in zip(completions, problem, strict=True)]
        return [float(verdict == Verdict.CORRECT) for verdict in task.grade(pairs)]

    return is_correct


def grpo_trainer(folder: str, **changes: Any) -> Any:
    """TRL's GRPOTrainer of the embedded model; `changes` are settings of its config, or its `rollout_func`."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    trl, datasets = import_module("trl"), import_module("datasets")
    loaded: Any = load_model("embedded", dtype=torch.float32, device="cpu", embedded_folder=EMBEDDED_MODEL)
    loaded.tokenizer.padding_side = "left"
    (task,) = tasks_named((TASK,))
    problems = {problem.id: problem for problem in task.load("train", None)}
    rows = [{"prompt": task.render(problem), "problem": problem.id} for problem in problems.values()]
    rollouts = changes.pop("rollout_func", None)
    settings = {**SIZE, **QUIET, "num_iterations": PASSES, **changes}
    return trl.GRPOTrainer(
        model=loaded.model,
        reward_funcs=correct(task, problems),
        args=trl.GRPOConfig(output_dir=folder, **settings),
        train_dataset=datasets.Dataset.from_list(rows),
        processing_class=loaded.tokenizer,
        rollout_func=rollouts,
    )


def run(out: Path, steps: int = 48) -> None:
    """Train and record.

    Args:
        out: Folder of the bank.
        steps: Optimizer steps; four to a rollout of 32 responses.
    """
    plugin = import_module("fspo.plugins.trl")
    with tempfile.TemporaryDirectory() as folder:
        trainer = grpo_trainer(folder, max_steps=steps)
        plugin.RecordBank(trainer, out)
        trainer.train()
    for entry in trainer.state.log_history:
        if "reward" in entry:
            print(f"step {entry['step']}: reward {entry['reward']}, clipped {entry['clip_ratio/region_mean']}")


if __name__ == "__main__":
    try:
        tyro.cli(run, prog="python -m benchmarks.trl_run")
    except UserError as error:
        complaints.print(f"benchmarks.trl_run: error: {error}", markup=False)
        sys.exit(2)
