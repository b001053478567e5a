"""The command that shows the recipes, and one of them in full."""

from __future__ import annotations

import inspect

import tyro
from rich.markdown import Markdown

from suite.commands.app import app, console, say

NOT_PUBLIC = "No public number is known for these models, sets and settings."


@app.command
def recipes(name: tyro.conf.Positional[str | None] = None, /) -> None:
    """List the recipes, a line each, or print one in full: every setting with where it comes from.

    Args:
        name: A recipe's name.
    """
    from suite.experiments.recipe_book import RECIPES
    from suite.experiments.recipes import lookup

    if name is None:
        for known, build in RECIPES.items():
            first = (build.__doc__ or "").strip().split("\n", 1)[0]
            say([f"{known:<16} {first}"])
    else:
        lookup(RECIPES, name, "recipe")
        console.print(Markdown(recipe_card(name)))


def recipe_card(name: str) -> str:
    """One recipe as Markdown. Settings of methods are on their own cards (`fspo methods NAME`)."""
    from suite.config import CHECKPOINT_RULE
    from suite.experiments.recipe_book import RECIPES, primary_sentence, provenance, published, recipe_settings

    config, sources = RECIPES[name](), provenance(name)
    known = published(name)
    rows = [f"| {path} | {_shown(value)} | {sources[path]} |" for path, value in recipe_settings(config).items()]
    numbers = [f"| {method} | {task} | {value:.2f} | {source} |" for (method, task), (value, source) in known.items()]
    head = ["Public numbers, in per cent:", "", "| method | set | number | whose |", "|---|---|---:|---|"]
    return "\n".join(
        [
            f"# {name}",
            "",
            inspect.getdoc(RECIPES[name]) or "",
            "",
            "| setting | value | where it comes from |",
            "|---|---|---|",
            *rows,
            "",
            "Settings of each method: `fspo methods NAME`.",
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
