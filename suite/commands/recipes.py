"""The command that shows the recipes, and one of them in full."""

from __future__ import annotations

import inspect

import tyro

from suite.commands.console import console, say
from suite.commands.pages import Page, listing
from suite.types import UserError

NOT_PUBLIC = "No public number is known for these models, sets and settings."


def recipes(name: tyro.conf.Positional[str | None] = None, /, toml: bool = False) -> None:
    """List the recipes, a line each, or print one in full: every setting with where it comes from.

    Args:
        name: A recipe's name, FILE.toml, or FILE.py:NAME.
        toml: Print it as TOML: a file that every command takes in the place of a recipe's name, to be changed.
    """
    from suite.experiments.recipe_book import RECIPES, provenance, title_of
    from suite.experiments.recipe_files import as_toml
    from suite.experiments.recipes import recipe

    if name is None:
        if toml:
            raise UserError("--toml: name a recipe")
        say(listing([(known, title_of(known)) for known in RECIPES]))
    elif toml:
        config = recipe(name)
        print(as_toml(config, provenance(config), title_of(config.name)), end="")
    else:
        console.print(Page(recipe_card(name)))


def recipe_card(name: str) -> str:
    """One recipe as Markdown. Settings of methods are on their own cards (`fspo method card NAME`)."""
    from suite.config import CHECKPOINT_RULE
    from suite.experiments.recipe_book import RECIPES, primary_sentence, provenance, published, recipe_settings
    from suite.experiments.recipes import recipe

    config = recipe(name)
    sources, known = provenance(config), published(config.name)
    about = RECIPES.get(config.name)
    rows = [f"| {path} | {_shown(value)} | {sources[path]} |" for path, value in recipe_settings(config).items()]
    numbers = [f"| {method} | {task} | {value:.2f} | {source} |" for (method, task), (value, source) in known.items()]
    head = ["Public numbers, in per cent:", "", "| method | set | number | whose |", "|---|---|---:|---|"]
    return "\n".join(
        [
            f"# {config.name}",
            "",
            "A recipe of one's own." if about is None else inspect.getdoc(about) or "",
            "",
            "| setting | value | where it comes from |",
            "|---|---|---|",
            *rows,
            "",
            "Settings of each method: `fspo method card NAME`.",
            "",
            f"{primary_sentence(config)} Declared before the run.",
            "",
            CHECKPOINT_RULE,
            "",
            *([*head, *numbers] if numbers else [NOT_PUBLIC]),
        ]
    )


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else f"{value:,}" if type(value) is int else str(value)
