"""What a comparison would do, checked as far as that goes without the weights: nothing is trained, nothing written."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from suite.config import CHECKPOINT_RULE, CompareConfig
from suite.evaluation.evaluate import evaluation_problems
from suite.experiments.evaluation_overlap import left_out, overlap_lines
from suite.experiments.models import cached_folder, is_smollm2, model_place
from suite.experiments.names import tasks_named
from suite.experiments.recipe_book import primary_sentence
from suite.experiments.sampler_choice import AUTO, kept_engine
from suite.policy.engines import require_engine
from suite.records.comparison_folder import additions, grown_by, holds
from suite.records.costs import GIB
from suite.types import UserError

FLOAT32 = 4
"""Bytes of a number in a trained model and in an update log."""


def dry_run(config: CompareConfig, out: Path, code: Mapping[str, str], workers: str | None = None) -> list[str]:
    """What would be done with a resolved config, a line each, the last one beginning with "would run".

    `workers` says which processes compute, on which devices.
    Resolving has checked names, settings, data and overlaps. UserError: an engine that is not installed or that this
    machine cannot have as it is set, a model reference that can name nothing, a folder with another comparison, too
    little disk for the trained models.
    """
    config = kept_engine(config, out)
    if config.train.sampler != AUTO:
        require_engine(config.train.sampler, vllm=config.train.vllm)
    where, folder = _files_of(config.train.model)
    there = ""
    if holds(config, out, code):
        more = grown_by(additions(config, out))
        there = ", where it goes on with what is there" + (f" and adds {more}" if more else "")
    return [
        f"model: {config.train.model}, {where}",
        *(["sampler: auto, measured before the first cell"] if config.train.sampler == AUTO else []),
        *_data_lines(config),
        *(f"left out: {line}" for line in overlap_lines(config)),
        _work_line(config),
        *([] if workers is None else [f"workers: {workers}"]),
        _disk_line(config, out, folder),
        primary_sentence(config),
        CHECKPOINT_RULE,
        f"would run {config.name} in {out}{there}",
    ]


def _files_of(reference: str) -> tuple[str, Path | None]:
    """Where a model's files are, in words, and their folder where that is known without a network.

    UserError where the reference can name no model.
    """
    place = model_place(reference)
    if is_smollm2(reference) and place.folder is None:
        return "not on this machine: will come out of a PyPI package (93 MB)", None
    if place.options:
        return f"on this machine ({place.source})", place.folder
    if (cached := cached_folder(place.source)) is not None:
        return f"on this machine ({cached})", cached
    return "not on this machine: will come from the hub", None


def parameter_count(folder: Path) -> int | None:
    """Numbers in the folder's safetensors files, from their headers; None where there are none to read."""
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                for key in file.keys():  # noqa: SIM118 (not a dict)
                    size = 1
                    for n in file.get_slice(key).get_shape():
                        size *= n
                    total += size
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: not a readable model file ({error}); get the complete files") from error
    return total or None


def _data_lines(config: CompareConfig) -> list[str]:
    """Problems of every set, as they are on this machine or on the hub; digests were checked when they were read."""
    train, evaluation = config.train, config.evaluation
    held_out = sum(n for counts in left_out(config).values() for n in counts.values())
    lines = [
        f"train: {task.name}, {len(task.load('train', train.data_dir)):,} problems" for task in tasks_named(train.tasks)
    ]
    lines[-1] += f" ({held_out} of them left out)" if held_out else ""
    for task in tasks_named(evaluation.tasks):
        used, whole = len(evaluation_problems(task, train.data_dir, evaluation)), len(task.load("eval", train.data_dir))
        setting = "evaluation.limits" if task.name in evaluation.single_limits else "evaluation.limit"
        cut = f", the first of {whole:,}: {setting} = {used}" if used < whole else ""
        lines.append(f"evaluate: {task.name}, {used:,} problems{cut}")
    return lines


def _work_line(config: CompareConfig) -> str:
    """Cells, steps, responses and the most tokens that they can have."""
    train, evaluation = config.train, config.evaluation
    cells = len(config.methods) * len(config.seeds)
    a_step = train.problems_per_step * train.samples_per_problem
    drawn = a_step * (cells * (train.steps - 1) + len(config.seeds))  # all methods of a seed share its first step
    limit = train.max_new_tokens or max(task.max_new_tokens for task in tasks_named(train.tasks))
    asked, tokens = 0, 0
    for task in tasks_named(evaluation.tasks):
        count = len(evaluation_problems(task, train.data_dir, evaluation)) * evaluation.samples * (cells + 1)
        asked, tokens = asked + count, tokens + count * (evaluation.max_new_tokens or task.max_new_tokens)
    updates = f"{train.steps:,} steps of {train.updates_per_rollout} updates"
    return (
        f"work: {len(config.methods)} methods x {len(config.seeds)} seeds = {cells} cells, {updates}; {drawn:,} "
        f"responses to train on (at most {drawn * limit:,} tokens), {asked:,} to evaluate (at most {tokens:,})"
    )


def _disk_line(config: CompareConfig, out: Path, folder: Path | None) -> str:
    """Room for trained models and update logs, against what is free; UserError where the models alone do not fit."""
    train, cells = config.train, len(config.methods) * len(config.seeds)
    place = next(p for p in (out.absolute(), *out.absolute().parents) if p.exists())
    free = shutil.disk_usage(place).free
    limit = train.max_new_tokens or max(task.max_new_tokens for task in tasks_named(train.tasks))
    responses = cells * train.steps * train.problems_per_step * train.samples_per_problem
    logs = f"at most {_gib(2 * FLOAT32 * responses * limit * train.epochs)} of update logs"
    count = None if folder is None else parameter_count(folder)
    if count is None:
        return f"disk: a trained model a cell (size not known here), {logs}; {_gib(free)} free at {place}"
    models = FLOAT32 * count * cells
    if models > free:
        raise UserError(
            f"{place}: {_gib(free)} free, but {cells} trained models of {count:,} parameters take {_gib(models)}; free "
            "space, choose another --out, or train fewer cells"
        )
    return f"disk: {_gib(models)} of trained models, {logs}; {_gib(free)} free at {place}"


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
