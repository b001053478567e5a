"""TRL's side of a duel: its GRPOTrainer, on recorded rollouts or on those that it draws itself.

The trainer is TRL's own. On recorded rollouts only its shuffle is given the suite's order, so that the updates of both
sides see the same responses; and one method is wrapped to read loss and padding.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from benchmarks.duel import Bell
from benchmarks.material import Material, deal
from benchmarks.our_side import SEED, loaded_model
from benchmarks.our_side import config_of as our_config
from benchmarks.planned import end_as_planned, planned_lengths
from suite.experiments.names import tasks_named
from suite.policy.sampling import end_token_ids
from suite.records.costs import GIB, peak_bytes
from suite.training.rollout_source import RolloutSource
from suite.types import Verdict

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
trl: Any = import_module("trl")
inside: Any = import_module("trl.trainer.grpo_trainer")


class Rounds(TrainerCallback):
    """Begins a round before the first update on a generation batch, and ends it when the last one is logged."""

    def __init__(self, bell: Bell, updates: int) -> None:
        self.bell, self.updates = bell, updates
        self.found: dict[str, list[float]] = {}
        self.facts: dict[str, float] = {}
        self.round = -1

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step % self.updates == 0:
            self.found, self.round = {"loss": [], "grad_norm": []}, self.round + 1
            self.bell.wait()

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **rest: Any) -> None:
        if logs is None or "grad_norm" not in logs:
            return
        for name, seen in self.found.items():
            seen.append(float(logs[name]))
        if "reward" in logs:
            self.facts |= {"reward": float(logs["reward"]), "mean_length": float(logs["completions/mean_length"])}
        if state.global_step % self.updates == 0:
            self.bell.done(**self.found, **self.facts)


def config_of(task: Mapping[str, Any], folder: str) -> Any:
    """The task as TRL's settings: GRPO's loss, one pass, no KL term, no gradient checkpointing (TRL is faster so)."""
    rows = task["prompts"] * task["samples"] // task["updates"]
    parts = -(-rows // min(rows, task.get("peer_rows", rows)))
    return trl.GRPOConfig(
        output_dir=folder,
        use_cpu=True,
        bf16=False,
        max_steps=task["updates"] * (task["rounds"] + 1),
        num_generations=task["samples"],
        per_device_train_batch_size=rows // parts,
        steps_per_generation=task["updates"] * parts,
        gradient_accumulation_steps=parts,
        num_iterations=1,
        max_completion_length=task["max_new_tokens"],
        temperature=1.0,
        beta=0.0,
        epsilon=0.2,
        loss_type="grpo",
        scale_rewards="group",
        learning_rate=task["learning_rate"],
        lr_scheduler_type="constant",
        weight_decay=0.0,
        max_grad_norm=1.0,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        gradient_checkpointing=False,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        shuffle_dataset=False,
    )


def trainer_class(rounds: Rounds) -> Any:
    """GRPOTrainer that notes the tokens and the padding of its batches."""

    class Noted(trl.GRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            found = super()._generate_and_score_completions(inputs)
            masks = torch.cat([found["prompt_mask"], found["completion_mask"]], dim=1)
            counted = float(masks.sum())
            rounds.facts |= {"tokens": counted, "padding": 1 - counted / masks.numel()}
            rounds.facts["response_tokens"] = float(found["completion_mask"].sum())
            return found

    return Noted


def recorded(task: Mapping[str, Any], rounds: Rounds) -> dict[str, Any]:
    """Data set, reward and rollouts that give TRL the recorded rows, and the suite's order of them."""
    rows = Material(**task["material"])
    count = len(rows.prompts)

    def places(prompts: list[str]) -> list[int]:
        return [int(prompt) * rows.samples + i % rows.samples for i, prompt in enumerate(prompts)]

    def rollouts(prompts: list[str], trainer: Any) -> dict[str, Any]:
        where = places(prompts)
        return {
            "prompt_ids": [rows.prompts[i] for i in where],
            "completion_ids": [rows.responses[i] for i in where],
            "logprobs": None,
        }

    def reward(prompts: list[str], **rest: Any) -> list[float]:
        return [rows.rewards[i] for i in places(prompts)]

    def dealt(batch: Mapping[str, Any]) -> dict[str, Any]:
        order = torch.tensor(deal(count, task["updates"], SEED, rounds.round))
        return {name: x[order] if torch.is_tensor(x) and x.ndim else x for name, x in batch.items()}

    inside.shuffle_sequence_dict = dealt
    asked = [{"prompt": str(i)} for _ in range(task["rounds"] + 1) for i in range(count // rows.samples)]
    return {"reward_funcs": reward, "rollout_func": rollouts, "rows": asked}


def drawn(task: Mapping[str, Any]) -> dict[str, Any]:
    """Data set and reward for TRL's own sampling: the problems that the suite's side meets, graded by its graders."""
    chosen = {one.name: one for one in tasks_named(task["tasks"])}
    nobody: Any = None  # draws here: the source only says which problems each cycle asks
    source = RolloutSource.of(nobody, nobody, nobody, list(chosen.values()), our_config(task), SEED, {})
    asked = [problem for step in range(task["rounds"] + 1) for problem in source.problems_of(step)]
    problems = {problem.id: problem for problem in asked}

    def reward(completions: list[str], problem: list[str], **rest: Any) -> list[float]:
        pairs = [(text, problems[name]) for text, name in zip(completions, problem, strict=True)]
        found = [0.0] * len(pairs)
        for name, one in chosen.items():
            rows = [i for i, (_, p) in enumerate(pairs) if p.task == name]
            for i, verdict in zip(rows, one.grade([pairs[i] for i in rows]), strict=True):
                found[i] = float(verdict == Verdict.CORRECT)
        return found

    return {
        "reward_funcs": reward,
        "rows": [{"prompt": chosen[problem.task].render(problem), "problem": problem.id} for problem in asked],
    }


def play(task: Mapping[str, Any], folder: str) -> None:
    """Train until the bell falls silent."""
    datasets: Any = import_module("datasets")
    bell = Bell()
    rounds = Rounds(bell, task["updates"])
    loaded: Any = loaded_model(task)
    loaded.tokenizer.padding_side = "left"
    if (lengths := planned_lengths(task)) is not None:
        end_as_planned(loaded.model, lengths, end_token_ids(loaded.model, loaded.tokenizer))
    given = recorded(task, rounds) if task.get("material") else drawn(task)
    data = datasets.Dataset.from_list(given.pop("rows"))
    trainer = trainer_class(rounds)(
        model=loaded.model,
        args=config_of(task, folder),
        train_dataset=data,
        processing_class=loaded.tokenizer,
        callbacks=[rounds],
        **given,
    )
    bell.say(loaded_gib=peak_bytes() / GIB, threads=torch.get_num_threads())
    trainer.train()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        play(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), temporary)
