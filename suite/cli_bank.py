"""Commands about banks, recorded and simulated: record once, replay every method on the same bytes."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import tyro

from suite.app import Name, Options, app, console, say
from suite.types import UserError


@app.command
def record(
    recipe: Name,
    /,
    out: Path,
    method: str = "none",
    seeds: int = 2,
    first_seed: int = 0,
    steps: int | None = None,
    model: str | None = None,
    data_dir: Path | None = None,
    ranges: Path | None = None,
    options: Options = (),
) -> None:
    """Record a bank: rollouts of a policy, and what every later policy says of them. A bank that exists is added to.

    Args:
        recipe: demo, smoke, smollm2-svamp.
        out: Folder of the bank.
        method: Method that drives the policy on; none clips nothing.
        seeds: Count of training seeds, recorded side by side.
        first_seed: The first of them.
        steps: Rollout steps instead of the recipe's.
        model: Start model instead of the recipe's.
        data_dir: Folder of JSONL data sets; without it, real data sets come from the hub.
        ranges: Range file of fspo calibrate; settings of --set win over it.
        options: Settings apart from the recipe's, for instance --set train.learning_rate=3e-5.
    """
    from suite.ranges import Ranges
    from suite.recipes import resolved
    from suite.record import NO_METHOD
    from suite.record import record as record_bank

    driver = "no_clip" if method == NO_METHOD else method
    given = Ranges.read(ranges)
    config = resolved(recipe, driver, seeds, steps, model, data_dir, options, given)
    config = replace(config, seeds=tuple(range(first_seed, first_seed + seeds)))
    say(given.notes(config.methods))
    bank = record_bank(config, out, method, ["fspo", *sys.argv[1:]], console, given.facts)
    rows = sum(entry.rows for entry in bank.entries if entry.kind == "updates")
    console.print(f"{out}: {len(bank.recordings)} recordings, {rows} judged responses", highlight=False)


@app.command(name="replay")
def replay_bank(
    bank: tyro.conf.Positional[Path],
    /,
    methods: str | None = None,
    out: Path | None = None,
    ranges: Path | None = None,
    options: Options = (),
) -> None:
    """Every method on the same recorded bytes: who is clipped, by length, with intervals, who carries the gradient,
    who clips the same responses. No model is run.

    Args:
        bank: Folder of the bank.
        methods: Comma-separated methods; default all.
        out: Folder for the tables; default BANK/replay.
        ranges: Range file of fspo calibrate; settings of --set win over it.
        options: Settings of methods.
    """
    from suite.lab import replayed
    from suite.ranges import Ranges
    from suite.recipes import known_methods, with_ranges

    names, given = methods.split(",") if methods else list(known_methods()), Ranges.read(ranges)
    settings = with_ranges(given, names, options)
    say(given.notes(names))
    say(replayed(bank, names, out or bank / "replay", settings, console))


@app.command
def lab(
    bank: tyro.conf.Positional[Path],
    /,
    out: Path | None = None,
    no_model: bool = False,
    gradients: int = 100,
    precisions: str | None = None,
) -> None:
    """FSPO's open questions on one bank: one page with every table, figure and the sentence it supports.

    Args:
        bank: Folder of the bank.
        out: Folder for the page; default BANK/lab.
        no_model: Leave out what needs the start model: the null update and directions in parameter space.
        gradients: Updates of the first rollouts that get gradients of every method, the last ones; all that there are.
        precisions: Comma-separated precisions of the null update; default all four. bfloat16 is slow on most CPUs.
    """
    from suite.bank import Bank
    from suite.lab import DRAWN, Lab
    from suite.lab_model import LabModel
    from suite.lab_page import write_lab
    from suite.lab_text import verdict
    from suite.null_update import PRECISIONS
    from suite.recipes import METHODS

    opened = Bank.open(bank)
    drawn = {name: METHODS[name] for name in DRAWN}
    chosen = tuple(precisions.split(",")) if precisions else PRECISIONS
    if unknown := [name for name in chosen if name not in PRECISIONS]:
        raise UserError(f"--precisions {unknown[0]!r}: there are {', '.join(map(repr, PRECISIONS))}")
    made = Lab(opened, None if no_model else LabModel(opened, drawn, gradients, console, chosen))
    with console.status("replaying every method"):
        page = write_lab(made, out or bank / "lab", ["fspo", *sys.argv[1:]])
    console.print(verdict(made), highlight=False)
    console.print(f"page, tables and figures: {page}", highlight=False)


@app.command
def theory(out: Path = Path("results/runs/theory"), seed: int = 0) -> None:
    """The theory figure: who leaves the band by length where S is Gaussian, the methods replayed on simulated banks.

    Args:
        out: Folder for theory.csv, theory.svg and theory.png.
        seed: Seed of the simulated banks.
    """
    from suite.cards import card_digest
    from suite.environment import write_provenance
    from suite.printing import show
    from suite.recipes import METHODS
    from suite.theory import sentence, table, write_theory

    with console.status("replaying methods on simulated banks"):
        points = write_theory(out, seed)
    cards = {name: card_digest(METHODS[name]) for name in ("rloo", "gspo", "fspo")}
    write_provenance(out, ["fspo", *sys.argv[1:]], seed=seed, cards=cards)
    show(table(points), "outside the band in per cent, 3 standard errors (normal tail)", console)
    say([sentence(points), f"table and figure: {out}"])
