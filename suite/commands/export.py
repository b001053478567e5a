"""The command that writes a recipe as commands of another trainer, with the data and the reward that they need."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from suite.commands.arguments import Recipe, RecipeChanges, first_seeds, listed
from suite.commands.console import complaints, say
from suite.config import CompareConfig, plain_data
from suite.experiments.recipes import Changes
from suite.types import Task, UserError

if TYPE_CHECKING:
    from suite.experiments.verl_command import Prompts
    from suite.experiments.verl_data import Problems

MANIFEST = "export.json"


def export(
    recipe: Recipe,
    /,
    methods: str | None = None,
    seeds: int | None = None,
    changes: RecipeChanges = Changes(),  # noqa: B008 (frozen)
    gpus: int = 8,
    out: Path | None = None,
) -> None:
    """Write a recipe as verl runs: one bash script a method, with every setting, and those that verl lacks.

    With --data-dir also the training and evaluation problems, without those that overlap, as the trainer takes them.
    The reward of verl is the suite's grader. No model is looked for: it need not be on this machine, though its
    tokenizer is used where it is.

    Args:
        recipe: A name that fspo recipes lists, FILE.toml, or FILE.py:NAME.
        methods: Comma-separated methods instead of the recipe's.
        seeds: Count of seeds (0, 1, ...) instead of the recipe's.
        changes: What is changed of the recipe. --data-dir also gives train.parquet and eval.parquet.
        gpus: Devices on the one node.
        out: Folder for METHOD.sh and the files beside them; without it, the scripts are printed.
    """
    from suite.experiments.models import model_place
    from suite.experiments.names import GENERATED_TASKS
    from suite.experiments.recipes import changed
    from suite.experiments.sampler_choice import AUTO, with_engine
    from suite.experiments.verl_data import write_files

    if gpus < 1:
        raise UserError(f"--gpus {gpus}: at least 1")
    if changes.data_dir is not None and out is None:
        raise UserError("--data-dir: needs --out, the folder for the Parquet files")
    here = changes if changes.data_dir is None else replace(changes, data_dir=changes.data_dir.resolve())
    config = changed(recipe, here, listed(methods, "--methods"), first_seeds(seeds))
    config = with_engine(config, "vllm") if config.train.sampler == AUTO else config
    data_at_hand = changes.data_dir is not None or all(task.name in GENERATED_TASKS for task in _tasks(config))
    reference = model_place(config.train.model).absolute
    problems, prompts = _data(config, reference) if out is not None and data_at_hand else (None, _unknown(config))
    scripts = _scripts(config, reference, gpus, prompts, asked_for=methods is not None)
    if out is None:
        for text in scripts.values():
            say(text.splitlines())
        return
    files = _files(config, reference, gpus, scripts, problems, prompts)
    written = write_files(out, files)
    say(f"wrote {out / name}" if name in written else f"is there: {out / name}" for name in files)
    if problems is None:
        say(["no train.parquet and eval.parquet: give --data-dir, or set DATA to a folder that has them"])


def _unknown(config: CompareConfig) -> Prompts:
    from suite.experiments.verl_command import Prompts
    from suite.experiments.verl_data import stop_texts

    return Prompts(stop=stop_texts(_tasks(config)))


def _tasks(config: CompareConfig) -> list[Task]:
    """The tasks of training and evaluation, each once."""
    from suite.experiments.names import is_own, tasks_named

    names = list(dict.fromkeys((*config.train.tasks, *config.evaluation.tasks)))
    if own := [name for name in names if is_own(name)]:
        raise UserError(
            f"{own[0]}: verl's reward knows the suite's sets only; export a recipe without files of your own"
        )
    return tasks_named(names)


def _data(config: CompareConfig, reference: str) -> tuple[Problems, Prompts]:
    """The problems of both files and the length of their prompts, with progress on the screen."""
    from suite.experiments.evaluation_overlap import overlap_lines, overlaps_of, refuse_overlap
    from suite.experiments.local_jobs import progress_bar
    from suite.experiments.names import tasks_named
    from suite.experiments.verl_data import measured, problems_of, tokenizer_at_hand

    with complaints.status("reading the sets and comparing training with evaluation"):
        refuse_overlap(config)
        left_out = {found.train.id for found in overlaps_of(config)}
        problems = problems_of(config, tasks_named(config.train.tasks), tasks_named(config.evaluation.tasks), left_out)
    say(f"left out: {line}" for line in overlap_lines(config))
    tokenizer = tokenizer_at_hand(reference)
    with progress_bar(complaints) as bar:
        total = len(problems.train) + len(problems.evaluation)
        row = bar.add_task("counting prompts", total=total, visible=tokenizer is not None)
        prompts = measured(problems, config.train, tokenizer, lambda count: bar.advance(row, count))
    say(
        [
            f"{len(problems.train)} training and {len(problems.evaluation)} evaluation problems; "
            f"data.max_prompt_length {prompts.longest} ({prompts.found})"
        ]
    )
    return problems, prompts


def _scripts(config: CompareConfig, reference: str, gpus: int, prompts: Prompts, asked_for: bool) -> dict[str, str]:
    """The script of every method. One of the recipe that verl cannot run is left out with a line; asked for by name,
    it is a UserError."""
    from suite.experiments.names import METHODS, tasks_named
    from suite.experiments.settings import method_in
    from suite.experiments.verl_command import lines_of
    from suite.experiments.verl_script import script

    limit = config.train.max_new_tokens or max(task.max_new_tokens for task in tasks_named(config.train.tasks))
    found = {}
    for name in config.methods:
        if name not in METHODS:
            raise UserError(f"{name}: fspo.plugins.verl knows the suite's own methods only: {', '.join(METHODS)}")
        method = method_in(config, name)
        if method.reads_state(method.hyper) and not asked_for:
            complaints.print(
                f"left out: {name} (its running estimates need whole optimizer steps; verl has micro-batches)"
            )
            continue
        found[name] = script(config, method, lines_of(config, method, limit, reference, gpus, prompts))
    return found


def _files(
    config: CompareConfig,
    reference: str,
    gpus: int,
    scripts: dict[str, str],
    problems: Problems | None,
    prompts: Prompts,
) -> dict[str, bytes | str]:
    """Every file of the export by its name, the one that says which export it is first."""
    from suite.experiments.verl_data import parquet, reward_file, stop_file
    from suite.experiments.verl_script import VERL

    settings = {key: value for key, value in plain_data(config).items() if key != "methods"}
    manifest = {"verl": VERL, "model": reference, "gpus": gpus, "data": problems is not None, "config": settings}
    files: dict[str, bytes | str] = {MANIFEST: json.dumps(manifest, indent=1) + "\n"}
    files["compute_score.py"] = reward_file(_tasks(config))
    if prompts.stop:
        files["agent_loop.yaml"] = stop_file(prompts.stop)
    if problems is not None:
        files["train.parquet"] = parquet(problems.train, problems.tasks, "train", config.train.chat)
        files["eval.parquet"] = parquet(problems.evaluation, problems.tasks, "eval", config.train.chat)
    return files | {f"{name}.sh": text for name, text in scripts.items()}
