"""The command that shows the recipes."""

from __future__ import annotations

import tyro
from rich.markdown import Markdown

from suite.app import app, console, say


@app.command
def recipes(name: tyro.conf.Positional[str | None] = None, /) -> None:
    """List the recipes, a line each, or print one in full: every setting with where it comes from.

    Args:
        name: A recipe's name.
    """
    from suite.recipe_book import RECIPES
    from suite.recipe_card import recipe_card
    from suite.recipes import lookup

    if name is None:
        for known, build in RECIPES.items():
            first = (build.__doc__ or "").strip().split("\n", 1)[0]
            say([f"{known:<16} {first}"])
    else:
        lookup(RECIPES, name, "recipe")
        console.print(Markdown(recipe_card(name)))
