"""The command that writes a recipe as commands of another trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from suite.app import Name, Options, app, say
from suite.config import CompareConfig
from suite.types import UserError


@app.command(name="export-verl")
def export_verl(
    recipe: Name,
    /,
    methods: str | None = None,
    seeds: int | None = None,
    steps: int | None = None,
    model: str | None = None,
    options: Options = (),
    gpus: int = 8,
    out: Path | None = None,
) -> None:
    """Write a recipe as verl commands: one bash script a method, with every setting, and those that verl lacks.

    Args:
        recipe: A name that fspo recipes lists.
        methods: Comma-separated methods instead of the recipe's.
        seeds: Count of seeds (0, 1, ...) instead of the recipe's.
        steps: Rollout steps instead of the recipe's.
        model: Start model instead of the recipe's: a folder or a hub id.
        options: Settings apart from the recipe's, for instance --set fspo.c_low=0.05 train.learning_rate=3e-5.
        gpus: Devices on the one node.
        out: Folder for METHOD.sh files; without it, the scripts are printed.
    """
    from suite.files import write_atomically

    if gpus < 1:
        raise UserError(f"--gpus {gpus}: at least 1")
    config = _config(recipe, methods, seeds, steps, model, options)
    for name, text in _scripts(config, gpus).items():
        if out is None:
            say(text.splitlines())
        else:
            write_atomically(out / f"{name}.sh", text)
            say([f"wrote {out / name}.sh"])


def _config(
    name: str, methods: str | None, seeds: int | None, steps: int | None, model: str | None, options: Sequence[str]
) -> CompareConfig:
    """The recipe with what was changed. No data and no model are looked for: they need not be on this machine."""
    from suite.recipes import recipe, with_options

    if seeds is not None and seeds < 1:
        raise UserError(f"--seeds {seeds}: at least 1")
    config = recipe(name)
    changes = {key: value for key, value in {"steps": steps, "model": model}.items() if value is not None}
    config = replace(config, train=replace(config.train, **changes))
    chosen = config.methods if methods is None else tuple(methods.split(","))
    return with_options(
        replace(config, methods=chosen, seeds=config.seeds if seeds is None else tuple(range(seeds))), options
    )


def _scripts(config: CompareConfig, gpus: int) -> dict[str, str]:
    from suite.fetch import cache_folder
    from suite.recipes import EMBEDDED_MODEL, METHODS, method_with, tasks_named
    from suite.verl_command import lines_of, script

    limit = config.train.max_new_tokens or max(task.max_new_tokens for task in tasks_named(config.train.tasks))
    folders = {"embedded": EMBEDDED_MODEL, "smollm2": cache_folder() / "smollm2"}
    model = str(folders.get(config.train.model, config.train.model))
    found = {}
    for name in config.methods:
        if name not in METHODS:
            raise UserError(f"{name}: fspo.plugins.verl knows the suite's own methods only: {', '.join(METHODS)}")
        method = method_with(name, config.options)
        found[name] = script(config, method, lines_of(config, method, limit, model, gpus))
    return found
