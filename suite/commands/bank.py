"""Commands about banks, recorded and simulated: record once, replay every method on the same bytes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from suite.commands.app import Name, Options, app, console, say
from suite.types import UserError

if TYPE_CHECKING:
    from rich.console import Console


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
    from suite.experiments.recipes import resolved
    from suite.experiments.record_bank import NO_METHOD
    from suite.experiments.record_bank import record_rollouts as record_bank
    from suite.records.ranges import Ranges

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
    from suite.experiments.recipes import known_methods, with_ranges
    from suite.records.ranges import Ranges

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
    from suite.experiments.recipes import METHODS
    from suite.findings.bank_model import LabModel
    from suite.findings.bank_questions import DRAWN, Lab
    from suite.records.bank import Bank
    from suite.replay.null_update import PRECISIONS
    from suite.report.bank_text import claim_sentence
    from suite.report.write import write_lab

    opened = Bank.open(bank)
    drawn = {name: METHODS[name] for name in DRAWN}
    chosen = tuple(precisions.split(",")) if precisions else PRECISIONS
    if unknown := [name for name in chosen if name not in PRECISIONS]:
        raise UserError(f"--precisions {unknown[0]!r}: there are {', '.join(map(repr, PRECISIONS))}")
    made = Lab(opened, None if no_model else LabModel(opened, drawn, gradients, lambda line: say([line]), chosen))
    with console.status("replaying every method"):
        page = write_lab(made, out or bank / "lab", ["fspo", *sys.argv[1:]])
    console.print(claim_sentence(made), highlight=False)
    console.print(f"page, tables and figures: {page}", highlight=False)


@app.command
def theory(out: Path = Path("results/runs/theory"), seed: int = 0) -> None:
    """The theory figure: who leaves the band by length where S is Gaussian, the methods replayed on simulated banks.

    Args:
        out: Folder for theory.csv, theory.svg and theory.png.
        seed: Seed of the simulated banks.
    """
    from suite.experiments.recipes import METHODS
    from suite.findings.theory import theory_sentence
    from suite.methods.cards import card_digest
    from suite.records.provenance import write_provenance
    from suite.report.terminal import show
    from suite.report.theory_page import table, write_theory

    with console.status("replaying methods on simulated banks"):
        points = write_theory(out, seed)
    cards = {name: card_digest(METHODS[name]) for name in ("rloo", "gspo", "fspo")}
    write_provenance(out, ["fspo", *sys.argv[1:]], seed=seed, cards=cards)
    show(table(points), "outside the band in per cent, 3 standard errors (normal tail)", console)
    say([theory_sentence(points), f"table and figure: {out}"])


def replayed(
    folder: Path, names: Sequence[str] | None, out: Path, options: Sequence[str], console: Console
) -> list[str]:
    """Replay methods on a bank and write the arena's tables; the sentences, one a method and range."""
    from suite.experiments.recipes import REFERENCE, known_methods, method_with
    from suite.records.bank import Bank
    from suite.replay.replays import Arena
    from suite.report import tables
    from suite.report.markdown import write_csv
    from suite.report.terminal import show

    bank = Bank.open(folder)
    methods = {name: method_with(name, options) for name in (names or known_methods())}
    arena = Arena(methods, bank.updates(), reference=REFERENCE)
    for name, frame in arena.tables().items():
        write_csv(out / f"{name}.csv", frame)
    show(tables.fairness_table(arena.fairness), "clipping by length, the same responses for every method", console)
    rows = arena.fairness.to_dict("records")
    return [f"{row['method']}, {row['range']} range: {row['sentence']}" for row in rows]
