"""A recipe in full: every setting with where it comes from, what is declared before the run, and public numbers."""

from __future__ import annotations

import inspect

from suite.config import CHECKPOINT_RULE
from suite.recipe_book import RECIPES, primary_sentence, provenance, published, settings_of

NOT_PUBLIC = "No public number is known for these models, sets and settings."


def recipe_card(name: str) -> str:
    """One recipe as Markdown. Settings of methods are on their own cards (`fspo methods NAME`)."""
    config, sources = RECIPES[name](), provenance(name)
    known = published(name)
    rows = [f"| {path} | {_shown(value)} | {sources[path]} |" for path, value in settings_of(config).items()]
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
