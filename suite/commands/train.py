"""The command that trains one cell of a recipe, on one device or on several under torchrun."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from suite.commands.arguments import Recipe, RecipeChanges, checked_seed
from suite.commands.compare import code_of, tell_overlaps
from suite.commands.console import console, say
from suite.config import CompareConfig
from suite.experiments.recipes import Changes
from suite.records.ranges import Ranges
from suite.types import UserError

if TYPE_CHECKING:
    from suite.experiments.sampler_choice import Choice


def train(
    recipe: Recipe,
    /,
    method: str,
    seed: int = 0,
    out: Path | None = None,
    resume: bool = False,
    changes: RecipeChanges = Changes(),  # noqa: B008 (frozen)
    dry_run: bool = False,
) -> None:
    """Train and evaluate one cell of a recipe, on several devices under torchrun.

    Args:
        recipe: A name that fspo recipes lists, FILE.toml, or FILE.py:NAME.
        method: The method to train with.
        seed: Training seed.
        out: Folder for results; default results/runs/RECIPE-METHOD-seedN.
        resume: Resume from the last checkpoint in the folder.
        changes: What is changed of the recipe.
        dry_run: Check all that needs no weights, and say what would run.
    """
    from suite.experiments.finished import comparison_stages
    from suite.experiments.layouts import layout_for, processes_words
    from suite.experiments.local_jobs import run_jobs, run_together
    from suite.experiments.recipes import changed, resolved
    from suite.experiments.sampler_choice import require_choice, with_sampler_chosen
    from suite.planning.dry_run import dry_run as checked
    from suite.policy.portable import begin_again_portably
    from suite.policy.ranks import leave, ranks_here, under_torchrun

    if under_torchrun():  # a process alone starts another one for the work
        begin_again_portably(changed(recipe, changes, (method,), (checked_seed(seed),)).train.portable)
    ranks = ranks_here()
    console.quiet = not ranks.is_leader
    if dry_run and not ranks.is_leader:
        return leave(ranks)
    config = resolved(recipe, changes, (method,), (checked_seed(seed),))
    given = Ranges.read(changes.ranges)
    out = out or Path("results/runs") / f"{config.name}-{method}-seed{seed}"
    require_choice(config)
    config, choice = (config, None) if dry_run else with_sampler_chosen(config, out, console)
    jobs, responses = comparison_stages(config, out), config.train.problems_per_step * config.train.samples_per_problem
    ranks.share(range(responses // config.train.mini_batches))  # refused now, not after the base's evaluation
    layout = None if ranks.sharded else layout_for(config.train, 1)
    if dry_run:
        say(checked(config, out, code_of(config), str(layout or processes_words(ranks.count))))
        return leave(ranks)
    if ranks.is_leader:
        _claim(config, out, resume, given, choice)
    say([choice.words()] if choice else [])
    say(given.notes(config.methods))
    tell_overlaps(config)
    run_together(jobs, ranks, console) if layout is None else run_jobs(jobs, layout, console)
    console.print(f"trained model, log and result: {out / 'cells' / f'{method}-seed{seed}'}", highlight=False)
    leave(ranks)


def _claim(config: CompareConfig, out: Path, resume: bool, given: Ranges, choice: Choice | None) -> None:
    """Take a folder for a cell; UserError where something is in it, unless that is to be gone on with."""
    from suite.records.comparison_folder import claim_folder

    if out.exists() and any(out.iterdir()) and not resume:
        raise UserError(f"{out}: not empty; add --resume to go on there, or choose another --out")
    claim_folder(config, out, ["fspo", *sys.argv[1:]], code_of(config), given.facts, choice.facts() if choice else None)
