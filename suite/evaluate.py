"""Evaluation: k responses to every problem of every set, graded, with noise that does not depend on the method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from suite.config import EvalConfig
from suite.rollouts import data_digest, encode, grade
from suite.sampling import Sampler, SampleRequest, SamplingSettings
from suite.seeds import derive
from suite.types import EvalResult, FinishReason, Problem, Rollout, Task


def evaluation_problems(task: Task, data_dir: Path | None, limit: int | None) -> list[Problem]:
    """The first `limit` problems (all without a limit) of the task's evaluation split."""
    return task.load("eval", data_dir)[:limit]


def evaluate(
    sampler: Sampler,
    tokenizer: Any,
    tasks: Sequence[Task],
    config: EvalConfig,
    data_dir: Path | None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> list[tuple[EvalResult, list[Rollout]]]:
    """For each task its verdicts and the graded responses, problem by problem, `config.samples` side by side.

    The noise of a response is a function of (config.seed, task, problem, sample, position, token) alone.
    `on_progress(task, new, total)` is told how many responses were finished, first 0 of each task.
    """
    results = []
    for task in tasks:
        problems = evaluation_problems(task, data_dir, config.limit)
        repeated = [p for p in problems for _ in range(config.samples)]
        requests = []
        for place, problem in enumerate(repeated):
            sample = place % config.samples
            key = derive(config.seed, "evaluate", task.name, problem.id, sample)
            requests.append(SampleRequest(problem.id, sample, key, encode(tokenizer, task, problem, config.chat)))
        settings = SamplingSettings(
            max_new_tokens=config.max_new_tokens or task.max_new_tokens,
            temperature=config.temperature,
            batch_size=config.batch_size,
            stop=task.stop,
        )

        def told(new: int, name: str = task.name, total: int = len(requests)) -> None:
            if on_progress is not None:
                on_progress(name, new, total)

        told(0)
        rollouts = grade(tokenizer, {task.name: task}, repeated, sampler.sample(requests, settings, told))
        results.append((summarise(task, problems, rollouts, config.samples), rollouts))
    return results


def summarise(task: Task, problems: Sequence[Problem], rollouts: Sequence[Rollout], samples: int) -> EvalResult:
    """Verdicts and lengths per problem, and the share of responses cut at the token limit."""
    groups = [rollouts[i : i + samples] for i in range(0, len(rollouts), samples)]
    cut = sum(r.finish_reason == FinishReason.LENGTH for r in rollouts)
    return EvalResult(
        task=task.name,
        task_version=task.version,
        data_digest=data_digest(problems),
        problem_ids=tuple(p.id for p in problems),
        verdicts=tuple(tuple(r.verdict for r in group if r.verdict is not None) for group in groups),
        lengths=tuple(tuple(len(r.response_ids) for r in group) for group in groups),
        truncated_share=cut / len(rollouts),
    )
