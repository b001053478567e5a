"""The main command: train and evaluate every method with every seed, then print the comparison."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from suite.commands.arguments import Place, Recipe, RecipeChanges, Where, first_seeds, listed
from suite.commands.console import console, say
from suite.config import CompareConfig, plain_data
from suite.experiments.recipes import Changes
from suite.types import UserError

if TYPE_CHECKING:
    from suite.experiments.layouts import Layout
    from suite.records.ranges import Ranges


def compare(
    recipe: Recipe,
    /,
    out: Path | None = None,
    methods: str | None = None,
    seeds: int | None = None,
    first_seed: int = 0,
    changes: RecipeChanges = Changes(),  # noqa: B008 (frozen)
    where: Place = Where(),  # noqa: B008
    rates: str | None = None,
    dry_run: bool = False,
) -> None:
    """Train and evaluate every method with every seed, then print the comparison. Run again to resume where it stopped.

    With more methods or seeds behind those that the folder has, they are added to it; what is there stays.

    Args:
        recipe: A name that fspo recipes lists, FILE.toml, FILE.py:NAME, or with --rates a finished comparison's folder.
        out: Folder for results; default results/runs/RECIPE.
        methods: Comma-separated methods instead of the recipe's.
        seeds: Count of seeds instead of the recipe's; with --rates the comparison's first so many.
        first_seed: The first of them.
        changes: What is changed of the recipe.
        where: Where cells are computed.
        rates: Train a finished comparison again at these learning rates, for its report's section on stability:
            3e-5,3e-4 for instance, a factor of 3 apart, until a method collapses. Runs go to FOLDER/sweep/lr-RATE.
        dry_run: Only check what can be checked without the weights, and say what would run.
    """
    from suite.experiments.cells import group_of
    from suite.experiments.recipes import resolved
    from suite.experiments.sampler_choice import require_choice
    from suite.findings.comparison import Comparison
    from suite.planning.dry_run import dry_run as checked
    from suite.records.ranges import Ranges
    from suite.records.trackers import Tracked, keep_page
    from suite.report.terminal import print_report
    from suite.report.write import write_report

    if first_seed and seeds is None:
        raise UserError(f"--first-seed {first_seed}: say how many, too, with --seeds")
    if rates is not None:
        if out is not None or methods is not None or first_seed or changes != Changes() or dry_run:
            raise UserError("--rates trains a finished comparison as it is: beside it only --seeds and where cells run")
        return _at_rates(Path(recipe), rates, seeds, where)
    config = resolved(recipe, changes, listed(methods, "--methods"), first_seeds(seeds, first_seed))
    given = Ranges.read(changes.ranges)
    out = out or Path("results/runs") / config.name
    if dry_run:
        require_choice(config, on_ray=where.on == "ray")
        workers = "those of a Ray cluster" if where.on == "ray" else str(layout_here(config, out, where))
        say(checked(config, out, code_of(config), workers))
        return
    config = run_comparison(config, out, where, given)
    with console.status("computing tables, figures and intervals"):
        report = Comparison.of(config, out)
        path = write_report(report)
    about = Tracked(group_of(config, out), "report", plain_data(config))
    keep_page(config.train.trackers, out, about, path.with_suffix(".html"))
    print_report(report, path, console)


def _at_rates(folder: Path, rates: str, seeds: int | None, where: Where) -> None:
    """Train a finished comparison again at other learning rates, and make its report with them."""
    from suite.experiments.remake import require_files_here
    from suite.experiments.settings import learning_rates
    from suite.findings.comparison import Comparison
    from suite.findings.stability import SWEEP
    from suite.records.comparison_folder import stored_config
    from suite.report.terminal import print_report
    from suite.report.write import write_report

    first_seeds(seeds)
    config = stored_config(folder)
    require_files_here(config, folder)
    for text, rate in learning_rates(rates, config.train.learning_rate).items():
        train = replace(config.train, learning_rate=rate)
        run_comparison(replace(config, train=train, seeds=config.seeds[:seeds]), folder / SWEEP / f"lr-{text}", where)
    report = Comparison.at(folder)
    print_report(report, write_report(report), console)


def run_comparison(config: CompareConfig, out: Path, where: Where, given: Ranges | None = None) -> CompareConfig:
    """Train and evaluate all cells of a comparison that are not there yet, side by side.

    Returns its config, with the engine that draws where `train.sampler` was auto.
    """
    from suite.experiments.finished import comparison_stages
    from suite.experiments.layouts import engine_devices
    from suite.experiments.local_jobs import run_jobs
    from suite.experiments.ray_jobs import require_ray, run_jobs_on_ray
    from suite.experiments.sampler_choice import require_choice, with_sampler_chosen
    from suite.experiments.settings import credit_line
    from suite.records.comparison_folder import claim_folder, grown_by

    require_choice(config, on_ray=where.on == "ray")
    config, choice = with_sampler_chosen(config, out, console, where.workers)
    layout = None if where.on == "ray" else layout_here(config, out, where)
    if layout is None:
        require_ray()
    facts = (given.facts if given else None, choice.facts() if choice else None)
    more = claim_folder(config, out, ["fspo", *sys.argv[1:]], code_of(config), *facts)
    say([f"added to the comparison in {out}: {grown_by(more)}"] if more else [])
    say([choice.words()] if choice else [])
    say(given.notes(config.methods) if given else [])
    say(credit_line(config))
    jobs = comparison_stages(config, out)
    cells = f"{len(config.methods)} methods x {len(config.seeds)} seeds"
    work = f"{config.train.steps} steps of {config.train.updates_per_rollout} updates at {config.train.learning_rate:g}"
    console.print(f"{config.name}: {cells}, {work}; {layout or 'a Ray cluster'}", highlight=False)
    tell_overlaps(config)
    if layout is None:
        devices, portable = engine_devices(config.train), config.train.portable
        run_jobs_on_ray(jobs, console, where.ray_address, where.gpus_per_cell, devices, portable)
    else:
        run_jobs(jobs, layout, console)
    return config


def layout_here(config: CompareConfig, out: Path, where: Where) -> Layout:
    """How the cells of a comparison are spread over this machine; UserError where they cannot be as it was asked."""
    from suite.experiments.finished import comparison_stages
    from suite.experiments.layouts import layout_for

    if where.gpus_per_cell is not None or where.ray_address is not None:
        raise UserError("--gpus-per-cell and --ray-address are for --on ray")
    return layout_for(config.train, max(map(len, comparison_stages(config, out))), where.workers)


def tell_overlaps(config: CompareConfig) -> None:
    """Print what is left out of training because an evaluation set holds it."""
    from suite.experiments.evaluation_overlap import overlap_lines

    for line in overlap_lines(config):
        console.print(f"left out: {line}", highlight=False)


def code_of(config: CompareConfig) -> dict[str, str]:
    """Digest of the source of every method and own reward, so that a folder never mixes two versions of one."""
    from suite.experiments.own_rewards import reward_digests
    from suite.experiments.settings import method_in
    from suite.methods.cards import code_digest

    methods = {name: code_digest(method_in(config, name)) for name in config.methods}
    return methods | reward_digests(config.all_tasks)
