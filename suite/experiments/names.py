"""From names to the methods and tasks that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import baselines
import fspo
import tasks
from suite.experiments.known import lookup
from suite.experiments.own_rewards import judged_by, own_reward
from suite.methods.from_outside import imported_method, plugin_methods
from suite.types import Method, Task, UserError, reward_of
from tasks.own_problems import is_own, own_task

METHODS: dict[str, Method] = {**baselines.METHODS, **fspo.METHODS}
REFERENCE = "fspo"
"""The method whose own clip rate the others are matched to."""
PAPER_BASELINES = ("rloo", "grpo", "gspo", "gspo_wide")
"""The rivals of FSPO's abstract: its claim of accuracy is about these. GSPO at both of its ranges: they are disputed,
and the paper's is not public. Declared on 2026-11-29, before any run that is judged by it."""
EMBEDDED_MODEL = tasks.EMBEDDED_MODEL
EMBEDDED_TASKS = tasks.EMBEDDED_TASKS
GENERATED_TASKS = tasks.GENERATED_TASKS
LM_EVAL_TASKS = tasks.LM_EVAL_TASKS


def tasks_named(names: Sequence[str]) -> list[Task]:
    """The tasks of those names, in order; a file FILE.jsonl of the user's own is one, too (`tasks.own_problems`)."""
    return [_own_task(name) if is_own(name) else _set_of_ours(name) for name in names]


def require_sets(asked: Mapping[str, Sequence[str]], data_dir: Path | None) -> None:
    """Read the sets that are asked for, by split, so that a run ends before it begins where one cannot be read.

    UserError names all files together that the data folder lacks; of what else is wrong, the first.
    """
    sheets = {module.NAME: module.SHEET for module in tasks.REAL_SETS}
    if data_dir is not None:
        known = [(sheets[name], split) for split, names in asked.items() for name in names if name in sheets]
        kept = [(sheet, split) for sheet, split in known if split in sheet.files]
        lacking = dict.fromkeys(file for sheet, split in kept for file in sheet.missing(split, data_dir))
        if len(lacking) > 1:
            raise UserError(
                f"{data_dir}: {len(lacking)} files that are asked for are missing: {', '.join(lacking)}; "
                "add them, or leave --data-dir out to use the hub"
            )
    for split, names in asked.items():
        for task in tasks_named(names):
            task.load(split, data_dir)


def _own_task(name: str) -> Task:
    task, reward = own_task(name), reward_of(name)
    if task.name in tasks.TASKS:
        raise UserError(f"{name}: {task.name} is a set of the suite; give the file another name")
    return task if reward is None else judged_by(task, own_reward(reward))


def _set_of_ours(name: str) -> Task:
    if reward_of(name):
        raise UserError(f"task {name}: a reward of your own is for problems of your own, FILE.jsonl@MODULE:NAME")
    return lookup(tasks.TASKS, name, "task")


def known_methods() -> dict[str, Method]:
    """The suite's methods and those of plug-ins. A plug-in cannot take a name of ours."""
    added = plugin_methods()
    if taken := METHODS.keys() & added.keys():
        raise UserError(f"plug-in method {sorted(taken)[0]}: that name is taken; rename its entry point")
    return {**METHODS, **added}


def find_method(name: str) -> Method:
    """The method of that name, ours or a plug-in's, or the one that `package.module:NAME` names."""
    if ":" in name:
        return imported_method(name)
    if name not in (known := known_methods()) and Path(f"{name.removesuffix('.py')}.py").is_file():
        raise UserError(f"unknown method {name!r}; for a file of your own name its method too: {Path(name).stem}:NAME")
    return lookup(known, name, "method")
