"""From a problem to the tokens a model continues, and from what it wrote to a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from suite.policy.stop_texts import before_stop
from suite.records.files import digest_of
from suite.records.texts import one_line
from suite.types import Problem, Rollout, Task, UserError, Verdict


def prompt_text(tokenizer: Any, task: Task, problem: Problem, chat: bool = False) -> str:
    """The text the model continues: the task's own prompt, or its question in the chat template.

    UserError where the tokenizer has no chat template, or one that does not take a question.
    """
    if not chat:
        return task.render(problem)
    if not tokenizer.chat_template:
        raise UserError("chat: the model's tokenizer has no chat template; leave out --chat (train.chat)")
    messages = [{"role": "user", "content": task.question(problem)}]
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # whatever somebody's template raises
        raise UserError(f"chat: the tokenizer's chat template fails ({one_line(error)})") from error


def encode(tokenizer: Any, task: Task, problem: Problem, chat: bool = False) -> tuple[int, ...]:
    """Token ids of `prompt_text`; a chat template writes its special tokens itself."""
    return tuple(tokenizer(prompt_text(tokenizer, task, problem, chat), add_special_tokens=not chat).input_ids)


def data_digest(problems: Sequence[Problem]) -> str:
    """sha256 over ids, prompts and gold answers, in order."""
    return digest_of([[p.id, p.prompt, p.gold] for p in problems])


def with_verdicts(
    tokenizer: Any, tasks: Mapping[str, Task], problems: Sequence[Problem], rollouts: Sequence[Rollout]
) -> list[Rollout]:
    """The rollouts with verdict and reward (no answer and undecided are counted apart)."""
    texts = tokenizer.batch_decode([list(r.response_ids) for r in rollouts], skip_special_tokens=True)
    found: dict[int, tuple[Verdict, float]] = {}
    for name, task in tasks.items():
        rows = [i for i, p in enumerate(problems) if p.task == name]
        answers = [(before_stop(texts[i], task.stop), problems[i]) for i in rows]
        found.update(zip(rows, task.scored(answers), strict=True))
    return [replace(r, verdict=found[i][0], reward=found[i][1]) for i, r in enumerate(rollouts)]
