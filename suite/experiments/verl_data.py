"""The files beside a verl script: the training and evaluation problems as Parquet, the reward, where responses end."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from suite.config import CompareConfig, TrainConfig
from suite.evaluation.evaluate import evaluation_problems
from suite.experiments.verl_command import REWARD_WORKERS, Prompts
from suite.types import Problem, Task, UserError

if TYPE_CHECKING:
    import pyarrow

BATCH = 512
TEMPLATE_TOKENS = 256
"""What a chat template may put around a question, where no tokenizer is at hand to count."""
_REWARD = '''\
"""Reward of the verl runs beside this file: 1 for a correct answer, else 0, by the grader of fspo-suite.

verl imports it in every reward process; run as a program it checks that the grader is installed here.
"""

from suite.experiments.verl_reward import compute_score, require_grader

__all__ = ["compute_score"]

require_grader({versions}, side_by_side={side_by_side})
'''
_STOP = """\
# A response ends at one of these texts, as in the suite; verl's own agent loop knows the end token only.
- name: fspo
  _target_: fspo.plugins.verl.stopping_agent_loop
  stop: {stop}
"""


@dataclass(frozen=True)
class Problems:
    """What a run trains and is evaluated on, in the order of the files, with the tasks they belong to."""

    train: Sequence[Problem]
    evaluation: Sequence[Problem]
    tasks: dict[str, Task]

    def texts(self, tokenizer: Any, chat: bool) -> Iterable[str]:
        """The text that the model continues, of every problem; of a chat, the bare question without a tokenizer."""
        from suite.policy.prompting import prompt_text

        for problem in (*self.train, *self.evaluation):
            task = self.tasks[problem.task]
            bare = chat and tokenizer is None
            yield task.question(problem) if bare else prompt_text(tokenizer, task, problem, chat)


def problems_of(
    config: CompareConfig, training: Sequence[Task], evaluation: Sequence[Task], left_out: set[str]
) -> Problems:
    """What a comparison trains on, as the trainer takes it, and the first of each evaluation set up to its limit.

    UserError where a set cannot be read, is for evaluation only, or is too small for a rollout step.
    """
    from suite.training.rollout_source import RolloutSource

    nothing: Any = None
    source = RolloutSource.of(nothing, nothing, nothing, training, config.train, 0, {}, left_out)
    asked = [p for task in evaluation for p in evaluation_problems(task, config.train.data_dir, config.evaluation)]
    return Problems(source.problems, asked, {task.name: task for task in (*training, *evaluation)})


def stop_texts(tasks: Iterable[Task]) -> tuple[str, ...]:
    """Where responses end, of all tasks together, as in the suite's training."""
    return tuple(dict.fromkeys(stop for task in tasks for stop in task.stop))


def tokenizer_at_hand(reference: str) -> Any:
    """The tokenizer of a model folder, a GGUF file or a hub id in the cache; None where it is not on this machine."""
    from transformers import AutoTokenizer

    from suite.experiments.models import model_place

    try:
        place = model_place(reference)
        return AutoTokenizer.from_pretrained(
            place.source, **place.options | {"local_files_only": True, "trust_remote_code": False}
        )
    except (UserError, OSError, ValueError, KeyError, ImportError):
        return None


def measured(
    problems: Problems, train: TrainConfig, tokenizer: Any, told: Callable[[int], None] = lambda count: None
) -> Prompts:
    """What the prompts are like. No text has more tokens than bytes (and a begin token): without a tokenizer bytes
    stand for tokens, with one a text that is too short in bytes to be the longest is not counted.

    UserError where a chat is asked of a tokenizer without a chat template.
    """
    if train.chat and tokenizer is not None and not tokenizer.chat_template:
        raise UserError(f"train.chat = True: the tokenizer of {train.model} has no chat template; take another model")
    stop = stop_texts(problems.tasks.values())
    texts = sorted(problems.texts(tokenizer, train.chat), key=_bytes, reverse=True)
    if tokenizer is None:
        longest = _bytes(texts[0]) + 1 + train.chat * TEMPLATE_TOKENS
        found = "bytes, of which a prompt has more than tokens: the tokenizer was not at hand"
        if train.chat:
            found += f"; {TEMPLATE_TOKENS} assumed for the chat template"
        return Prompts(longest, found, None, stop, limited=True)
    longest = 0
    for start in range(0, len(texts), BATCH):
        batch = [text for text in texts[start : start + BATCH] if _bytes(text) + 1 > longest]
        if batch:
            longest = max(longest, *map(len, tokenizer(batch, add_special_tokens=not train.chat).input_ids))
        told(len(texts[start : start + BATCH]))
    begin = not train.chat and tokenizer("1").input_ids[:1] == [tokenizer.bos_token_id]
    return Prompts(longest, "the longest of both files, in tokens of the model", begin, stop, limited=True)


def _bytes(text: str) -> int:
    return len(text.encode())


def parquet(problems: Sequence[Problem], tasks: dict[str, Task], split: str, chat: bool) -> bytes:
    """One file of verl's: prompt (chat messages), data_source, reward_model.ground_truth and extra_info of every row.

    The message is the suite's own prompt, which the exported chat template hands through; of a chat, the question.
    """
    import pyarrow
    from pyarrow import parquet as files

    def row(index: int, problem: Problem) -> dict[str, Any]:
        task = tasks[problem.task]
        text = task.question(problem) if chat else task.render(problem)
        return {
            "prompt": [{"role": "user", "content": text}],
            "data_source": problem.task,
            "reward_model": {"style": "rule", "ground_truth": problem.gold},
            "extra_info": {"index": index, "id": problem.id, "split": split, "task_version": problem.task_version},
        }

    table = pyarrow.Table.from_pylist([row(i, problem) for i, problem in enumerate(problems)])
    buffer = io.BytesIO()
    files.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def reward_file(tasks: Iterable[Task]) -> str:
    """The Python file with `compute_score` that verl imports."""
    versions = {task.name: task.judged_version for task in tasks}
    return _REWARD.format(versions=json.dumps(versions), side_by_side=REWARD_WORKERS)


def stop_file(stop: Sequence[str]) -> str:
    """The YAML file of verl's agent loops that ends responses at stop texts."""
    return _STOP.format(stop=json.dumps(list(stop)))


def write_files(out: Path, files: dict[str, bytes | str]) -> list[str]:
    """Write an export, keep what stands there already, return the names of what was written.

    UserError, before anything is written, for a folder with other content.
    """
    from suite.records.files import listed, write_atomically

    first = next(iter(files))
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: not a folder; choose another --out")
    if (names := listed(out)) and first not in names:
        raise UserError(f"{out}: not empty and no export; choose another --out folder")
    for name, content in files.items():
        if (out / name).exists() and not _same(out / name, content):
            raise UserError(f"{out / name}: has other content than this export; choose another --out folder")
    missing = [name for name in files if not (out / name).exists()]
    for name in missing:
        write_atomically(out / name, files[name])
    return missing


def _same(path: Path, content: bytes | str) -> bool:
    """Whether a file holds that content; of Parquet files the rows count, for every version writes its own bytes."""
    if isinstance(content, str):
        return path.read_bytes() == content.encode()
    return path.read_bytes() == content or _table(path.read_bytes()) == _table(content)


def _table(content: bytes) -> pyarrow.Table | None:
    import pyarrow
    from pyarrow import parquet as files

    try:
        return files.read_table(io.BytesIO(content))
    except pyarrow.ArrowInvalid:
        return None
