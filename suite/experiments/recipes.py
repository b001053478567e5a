"""From the name of a recipe, or a file that holds one, and the changes to it, to a complete config."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from suite.config import CompareConfig
from suite.experiments.contexts import require_room_in_comparison
from suite.experiments.evaluation_overlap import refuse_overlap
from suite.experiments.names import find_method, lookup, require_sets, tasks_named
from suite.experiments.recipe_book import RECIPES
from suite.experiments.recipe_files import recipe_in_module, recipe_in_toml
from suite.experiments.settings import parsed, with_options, with_ranges
from suite.policy.lora import require_peft
from suite.records.own_methods import allow
from suite.records.ranges import Ranges
from suite.records.trackers import require_trackers
from suite.types import UserError


@dataclasses.dataclass(frozen=True)
class Changes:
    """What a command changes of a recipe. What is not given stays as the recipe has it."""

    steps: int | None = None
    """Rollout steps instead of the recipe's."""
    model: str | None = None
    """Start model instead of the recipe's: embedded, smollm2, a folder, a .gguf file or a hub id."""
    data_dir: Path | None = None
    """Folder of JSONL data sets; without it, real data sets come from the hub."""
    ranges: Path | None = None
    """Range file of fspo bank calibrate; settings of --set win over it."""
    credit: Literal["standardised", "leave_one_out", "own"] | None = None
    """One rule from rewards to advantages for all methods without a critic, or own; instead of the recipe's."""
    set: tuple[str, ...] = ()
    """Settings apart from the recipe's, each OWNER.FIELD=VALUE: fspo.c_low=0.05 train.tasks=gsm8k,svamp."""

    def words(self) -> list[str]:
        """The changes as the words of a command line that makes them again."""
        given = {
            "--steps": self.steps,
            "--model": self.model,
            "--data-dir": self.data_dir,
            "--ranges": self.ranges,
            "--credit": self.credit,
        }
        words = [word for option, value in given.items() if value is not None for word in (option, str(value))]
        return [*words, *(["--set", *self.set] if self.set else [])]


def recipe(reference: str) -> CompareConfig:
    """The recipe of that name, or the one in a file of the user's own: FILE.toml, FILE.py:NAME or package.module:NAME.

    UserError for a name that is not known (with the nearest), for a file that holds no recipe, and for a recipe of
    one's own that bears the name of one of the suite's and differs from it: its results would be taken for the other's.
    """
    if reference.endswith(".toml"):
        own = recipe_in_toml(Path(reference))
    elif ":" in reference:
        own = recipe_in_module(reference)
    else:
        _point_to_file(reference)
        return lookup(RECIPES, reference, "recipe")()
    if own.name in RECIPES and own != RECIPES[own.name]():
        raise UserError(
            f"{reference}: its name {own.name!r} is that of a recipe of the suite with other settings; "
            "give it a name of its own"
        )
    return own


def _point_to_file(name: str) -> None:
    """Raise UserError where the name is no recipe but a file with one lies here."""
    if name in RECIPES:
        return
    path = Path(name)
    if path.suffix == ".py" and path.is_file():
        raise UserError(f"unknown recipe {name!r}; name the function in the file too: {name}:NAME")
    if Path(f"{path}.toml").is_file():
        raise UserError(f"unknown recipe {name!r}; did you mean the file {name}.toml?")


def changed(
    reference: str, changes: Changes, methods: Sequence[str] | None = None, seeds: Sequence[int] | None = None
) -> CompareConfig:
    """The recipe with its changes, every name and setting checked. Neither data nor a model is looked for.

    `methods` and `seeds` stand in place of the recipe's where they are given; its settings of methods that take no
    part are left out.
    """
    config = recipe(reference)
    chosen = config.methods if methods is None else tuple(methods)
    taking_part = tuple(option for option in config.options if parsed(option)[0] in chosen)
    config = dataclasses.replace(config, options=taking_part)
    config = with_options(config, with_ranges(Ranges.read(changes.ranges), chosen, changes.set))
    if changes.credit is not None:
        config = dataclasses.replace(config, credit=changes.credit)
    given: dict[str, Any] = {"steps": changes.steps, "model": changes.model, "data_dir": changes.data_dir}
    train = dataclasses.replace(config.train, **{key: value for key, value in given.items() if value is not None})
    config = dataclasses.replace(
        config, train=train, methods=chosen, seeds=config.seeds if seeds is None else tuple(seeds)
    )
    allow([*config.methods, *config.options, *config.all_tasks])
    for method in config.methods:
        find_method(method)
    tasks_named(config.all_tasks)
    return config


def resolved(
    reference: str, changes: Changes, methods: Sequence[str] | None = None, seeds: Sequence[int] | None = None
) -> CompareConfig:
    """The recipe with its changes, ready to run: its data sets read, overlap refused where that is asked for.

    Where the model is on this machine, prompts and token limits fit into its context.
    """
    config = changed(reference, changes, methods, seeds)
    if config.train.lora_rank:
        require_peft()
    require_trackers(config.train.trackers)
    require_sets({"train": config.train.tasks, "eval": config.evaluation.tasks}, config.train.data_dir)
    refuse_overlap(config)
    require_room_in_comparison(config)
    return config
