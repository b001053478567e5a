"""What a plan can know of texts before anything starts: prompts on this machine are counted, others assumed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from suite.config import CompareConfig
from suite.experiments.models import model_folder
from suite.experiments.names import GENERATED_TASKS, tasks_named
from suite.planning.cost_model import Lengths
from suite.policy.loading import load_tokenizer
from suite.policy.prompting import encode
from suite.types import Problem, Task

ASSUMED_PROMPT = (200, 1000)
"""Mean and longest prompt where no text is at hand: assumed (ours)."""
ASSUMED_PROBLEMS = 300
"""Problems of an evaluation set that is not at hand: assumed (ours)."""
MEAN_OF_LIMIT = 0.5
"""Mean response over its limit where nothing is said: assumed (ours)."""
LOOKED_AT = 256


def problems_at_hand(task: Task, split: str, data_dir: Path | None) -> Sequence[Problem] | None:
    """The problems of a generated set, or of one in the data folder; None for a set that only the hub has."""
    here = task.name in GENERATED_TASKS or data_dir is not None
    return task.load(split, data_dir) if here else None


def expected_lengths(config: CompareConfig, response: float | None) -> Lengths:
    """Prompts counted with the model's tokenizer where both are at hand; `response` is the mean, None to assume it."""
    chosen, folder = tasks_named(config.train.tasks), model_folder(config.train.model)
    limit = config.train.max_new_tokens or max(task.max_new_tokens for task in chosen)
    prompts = _encoded(config, chosen, folder)
    sizes = [len(prompt) for prompt in prompts]
    mean, longest = (sum(sizes) / len(sizes), max(sizes)) if prompts else ASSUMED_PROMPT
    common = next((i for i, column in enumerate(zip(*prompts, strict=False)) if len(set(column)) > 1), 0)
    words = f"prompts {mean:.0f} tokens, at most {longest} ({'counted' if prompts else 'assumed'})"
    words += f", {common} of them common to all" if common else ""
    likely = min(limit, response if response is not None else MEAN_OF_LIMIT * limit)
    said = "as given" if response is not None else "assumed: half of the limit"
    return Lengths(mean, longest, likely, limit, f"{words}; responses {likely:.0f} ({said}), limit {limit}", common)


def _encoded(config: CompareConfig, chosen: Sequence[Task], folder: Path | None) -> list[tuple[int, ...]]:
    """Token ids of up to LOOKED_AT prompts of each training set; none where a set or the tokenizer is not here."""
    found = [(task, problems_at_hand(task, "train", config.train.data_dir)) for task in chosen]
    if folder is None or any(problems is None for _, problems in found):
        return []
    tokenizer, _ = load_tokenizer(config.train.model, folder)
    return [
        encode(tokenizer, task, problem, config.train.chat)
        for task, problems in found
        for problem in (problems or ())[:LOOKED_AT]
    ]


def questions_of(config: CompareConfig) -> tuple[int, str]:
    """Problems of all evaluation sets, and which of them are assumed, in words."""
    total, assumed = 0, []
    for task in tasks_named(config.evaluation.tasks):
        problems = problems_at_hand(task, "eval", config.train.data_dir)
        limit = config.evaluation.limit_of(task.name)
        if problems is None and limit is None:
            assumed.append(task.name)
        count = ASSUMED_PROBLEMS if problems is None else len(problems)
        total += min(count, limit) if limit else count
    words = f", {', '.join(assumed)} assumed to have {ASSUMED_PROBLEMS}" if assumed else ""
    return total, f"{total} problems in {len(config.evaluation.tasks)} evaluation sets{words}"
