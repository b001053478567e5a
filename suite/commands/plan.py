"""The command that says what an experiment needs: of memory and time before it starts, of seeds after a first one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from suite.commands.arguments import RecipeChanges
from suite.commands.console import console, say
from suite.experiments.recipes import Changes
from suite.types import UserError


def plan(
    recipe: Annotated[str | None, tyro.conf.Positional] = None,
    /,
    from_: Annotated[Path | None, tyro.conf.arg(name="from", metavar="RUNS")] = None,
    detect: float = 1.0,
    pair: str | None = None,
    device: str = "cpu",
    count: int = 1,
    response_tokens: float | None = None,
    changes: RecipeChanges = Changes(),  # noqa: B008 (frozen)
) -> None:
    """What a recipe needs of memory, tokens and hours on a device; or, with --from, how many seeds a claim needs.

    Args:
        recipe: A name that fspo recipes lists, FILE.toml, or FILE.py:NAME.
        from_: Folder of a finished comparison: seeds and samples from its variances, hours from its seconds.
        detect: With --from: the true difference to find, in points.
        pair: With --from: two models, such as fspo,grpo or fspo,base; default the median over pairs of methods.
        device: cpu, h100-80gb, h200, a100-80gb or rtx-5090-32gb.
        count: Devices of one machine.
        response_tokens: Mean tokens of a response; default half of the limit.
        changes: What is changed of the recipe. Of --data-dir, prompts and problems are counted.
    """
    if (recipe is None) == (from_ is None):
        raise UserError("fspo plan takes a recipe, or --from and the folder of a finished comparison")
    if from_ is not None:
        if changes != Changes():
            raise UserError("--from plans from what a comparison measured: leave out --steps, --model, --set and so on")
        _plan_claim(from_, detect, pair)
    elif recipe is not None:
        from suite.planning.plan_text import planned

        if count < 1:
            raise UserError(f"--count {count}: at least 1")
        for title, table, lines in planned(recipe, changes, device, count, response_tokens):
            if table is not None:
                _show(table, title)
            say(lines)


def _plan_claim(runs: Path, detect: float, pair: str | None) -> None:
    """Print the designs that find the difference, the cheapest first, and what that means."""
    from suite.planning.plan_text import claimed

    title, table, lines = claimed(runs, detect, pair)
    _show(table, title)
    say(lines)


def _show(table: object, title: str) -> None:
    import pandas as pd

    from suite.report.terminal import show

    assert isinstance(table, pd.DataFrame)
    show(table, title, console)
