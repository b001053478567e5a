"""Whether prompts and token limits fit into a model's context, known before anything is drawn or written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.config import CompareConfig, EvalConfig
from suite.evaluation.evaluate import evaluation_problems, sampling_settings_of
from suite.experiments.evaluation_overlap import overlaps_of
from suite.experiments.models import tokenizer_here
from suite.experiments.names import tasks_named
from suite.policy.prompting import encode, prompt_text
from suite.types import Problem, Task, UserError
from tasks.own_problems import is_own


@dataclass(frozen=True)
class AskedSet:
    """A set as a model is asked: its problems, the most tokens of a response, and whether it is a file of one's own."""

    words: str
    task: Task
    problems: Sequence[Problem]
    limit: int
    own: bool

    def surely_fits(self, tokenizer: Any, chat: bool, context: int) -> bool:
        """Whether no prompt has more bytes than the context has room for: a token stands for at least one byte.

        Then nothing has to be split into tokens, which takes seconds for a large set. Where a tokenizer makes texts
        longer, the sampler's own check is left.
        """
        most = max(len(prompt_text(tokenizer, self.task, problem, chat).encode()) for problem in self.problems)
        return most + tokenizer.num_special_tokens_to_add() + self.limit <= context

    def longest(self, tokenizer: Any, chat: bool) -> tuple[int, Problem]:
        """Tokens of the longest prompt, and its problem."""
        sizes = [len(encode(tokenizer, self.task, problem, chat)) for problem in self.problems]
        return max(zip(sizes, self.problems, strict=True), key=lambda pair: pair[0])

    def longest_plain(self, tokenizer: Any) -> int:
        """Tokens of the longest problem by itself, without worked examples."""
        return max(len(tokenizer(problem.prompt).input_ids) for problem in self.problems)


@dataclass(frozen=True)
class AskedTogether:
    """Sets under one setting of the token limit.

    `setting` is what is written before the number; `plain` is how files of one's own are asked without examples.
    """

    sets: Sequence[AskedSet]
    chat: bool
    setting: str
    plain: str = "@plain behind the file's name"


def training_sets(config: CompareConfig) -> AskedTogether:
    """What a comparison trains on, without what is left out since it stands in an evaluation set."""
    train, chosen = config.train, tasks_named(config.train.tasks)
    limit = train.max_new_tokens or max(task.max_new_tokens for task in chosen)
    out, sets = {found.train.id for found in overlaps_of(config)}, []
    for name, task in zip(train.tasks, chosen, strict=True):
        problems = [problem for problem in task.load("train", train.data_dir) if problem.id not in out]
        sets += [AskedSet("training set", task, problems, limit, is_own(name))] if problems else []
    return AskedTogether(sets, train.chat, "train.max_new_tokens=")


def evaluation_sets(config: EvalConfig, data_dir: Path | None) -> AskedTogether:
    """What a model is evaluated on."""
    sets = []
    for name, task in zip(config.tasks, tasks_named(config.tasks), strict=True):
        problems, limit = evaluation_problems(task, data_dir, config), sampling_settings_of(task, config).max_new_tokens
        sets.append(AskedSet("evaluation set", task, problems, limit, is_own(name)))
    return AskedTogether(sets, config.chat, "evaluation.max_new_tokens=")


def require_room_in_comparison(config: CompareConfig) -> None:
    """`require_room` for all that a comparison asks, where the model's tokenizer is on this machine."""
    if (found := tokenizer_here(config.train.model)) is not None:
        asked = [training_sets(config), evaluation_sets(config.evaluation, config.train.data_dir)]
        require_room(*found, asked, "--set ")


def require_room(tokenizer: Any, context: int | None, asked: Sequence[AskedTogether], option: str = "") -> None:
    """UserError where the longest prompt of a set and its token limit exceed the context (tokens; None: no bound).

    It names every such set and what to do; `option` stands before the settings.
    """
    if context is None:
        return
    too_long, advice, settings = [], [], []
    for part in asked:
        if all(one.surely_fits(tokenizer, part.chat, context) for one in part.sets):
            continue
        rooms = []
        for one in part.sets:
            size, problem = one.longest(tokenizer, part.chat)
            plain = size if part.chat else one.longest_plain(tokenizer)
            rooms.append(context - (plain if one.own and size >= context else size))
            if size + one.limit > context:
                asking = f"a prompt of {size:,} tokens (problem {problem.id})"
                too_long.append(f"{one.words} {one.task.name}, {asking} and max_new_tokens {one.limit:,}")
                if one.own and plain < size:
                    advice.append(f"examples take {size - plain:,} of these tokens, {part.plain} asks without them")
                elif size >= context:
                    advice.append(f"the prompt alone is too long: leave {problem.id} out, or take another model")
        if 1 <= min(rooms) < max(one.limit for one in part.sets):
            settings.append(f"{part.setting}{min(rooms)}")
    if too_long:
        advice += [f"{option}{' '.join(settings)} leaves room"] if settings else []
        raise UserError(
            f"{'; '.join(too_long)}: more than the model's context of {context:,}; {'; '.join(dict.fromkeys(advice))}"
        )
