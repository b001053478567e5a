"""Commands about banks, recorded and simulated: record once, replay every method on the same bytes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from suite.commands.arguments import Options, Recipe, RecipeChanges, checked_seed, first_seeds, listed
from suite.commands.console import console, say
from suite.experiments.recipes import Changes
from suite.types import UserError

if TYPE_CHECKING:
    from rich.console import Console


def record(
    recipe: Recipe,
    /,
    out: Path,
    method: str = "none",
    seeds: int = 2,
    first_seed: int = 0,
    changes: RecipeChanges = Changes(),  # noqa: B008 (frozen)
) -> None:
    """Record a bank: rollouts of a policy, and what every later policy says of them. A bank that exists is added to.

    Args:
        recipe: demo, smoke, smollm2-svamp, or a recipe of your own.
        out: Folder of the bank.
        method: Method that drives the policy on; none clips nothing.
        seeds: Count of training seeds, recorded side by side.
        first_seed: The first of them.
        changes: What is changed of the recipe.
    """
    from suite.experiments.recipes import resolved
    from suite.experiments.record_bank import NO_METHOD
    from suite.experiments.record_bank import record_rollouts as record_bank
    from suite.records.ranges import Ranges

    driver = "no_clip" if method == NO_METHOD else method
    config = resolved(recipe, changes, (driver,), first_seeds(seeds, first_seed))
    given = Ranges.read(changes.ranges)
    say(given.notes(config.methods))
    bank = record_bank(config, out, method, ["fspo", *sys.argv[1:]], console, given.facts)
    rows = sum(entry.rows for entry in bank.entries if entry.kind == "updates")
    console.print(f"{out}: {len(bank.recordings)} recordings, {rows} judged responses", highlight=False)


def replay(
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
        ranges: Range file of fspo bank calibrate; settings of --set win over it.
        options: Settings of methods.
    """
    from suite.experiments.names import known_methods
    from suite.experiments.settings import with_ranges
    from suite.records.ranges import Ranges

    names, given = list(listed(methods, "--methods") or known_methods()), Ranges.read(ranges)
    settings = with_ranges(given, names, options)
    say(given.notes(names))
    say(replayed(bank, names, out or bank / "replay", settings, console))


def lab(
    bank: tyro.conf.Positional[Path],
    /,
    out: Path | None = None,
    no_model: bool = False,
    target: float | None = None,
    gradients: int = 100,
    precisions: str | None = None,
) -> None:
    """FSPO's open questions on one bank: one page with every table, figure and the sentence it supports.

    Args:
        bank: Folder of the bank.
        out: Folder for the page; default BANK/lab.
        no_model: Leave out what needs the start model: the null update and directions in parameter space.
        target: Clipped share of the responses with a gradient that ranges are matched to; default FSPO's own here.
        gradients: Updates of the first rollouts that get gradients of every method, the last ones; all that there are.
        precisions: Comma-separated precisions of the null update; default all four. bfloat16 is slow on most CPUs.
    """
    from suite.experiments.names import METHODS
    from suite.findings.bank_model import LabModel
    from suite.findings.bank_questions import DRAWN, Lab
    from suite.records.bank import Bank
    from suite.replay.null_update import PRECISIONS
    from suite.report.bank_text import claim_sentence, warnings_of
    from suite.report.write import write_lab

    if target is not None and not 0 < target < 1:
        raise UserError(f"--target {target:g}: must be between 0 and 1; choose another --target")
    opened = Bank.open(bank)
    drawn = {name: METHODS[name] for name in DRAWN}
    chosen = listed(precisions, "--precisions") or PRECISIONS
    if unknown := [name for name in chosen if name not in PRECISIONS]:
        raise UserError(f"--precisions {unknown[0]!r}: there are {', '.join(map(repr, PRECISIONS))}")
    model = None if no_model else LabModel(opened, drawn, gradients, lambda line: say([line]), chosen)
    made = Lab(opened, model, target)
    with console.status("replaying every method"):
        page = write_lab(made, out or bank / "lab", ["fspo", *sys.argv[1:]])
    for sentence in (*warnings_of(made), claim_sentence(made)):
        console.print(sentence, highlight=False)
    console.print(f"page, tables and figures: {page}", highlight=False)


def calibrate(
    folder: tyro.conf.Positional[Path],
    /,
    target: float | None = None,
    methods: str | None = None,
    out: Path | None = None,
    ranges: Path | None = None,
    options: Options = (),
) -> None:
    """Find the ranges at which all methods clip one share of the same recorded responses; --ranges trains with them.

    Args:
        folder: A bank, or the folder of a finished comparison.
        target: Clipped share of the responses with a gradient; default FSPO's own on these records.
        methods: Comma-separated methods; default all on a bank, its own on a comparison.
        out: The range file; default FOLDER/ranges.json.
        ranges: Range file that the search starts from; settings of --set win over it.
        options: Settings of methods that the search starts from.
    """
    from suite.experiments.calibrate import calibrate as calibrated
    from suite.experiments.calibrate import out_path
    from suite.records.ranges import Ranges

    path, names = out_path(folder, out), listed(methods, "--methods")
    made = calibrated(folder, names, target, Ranges.read(ranges), options, ["fspo", *sys.argv[1:]])
    say(made.lines())
    made.write(path)
    say([f"train with them: --ranges {path}"])


def theory(out: Path = Path("results/runs/theory"), seed: int = 0) -> None:
    """The theory figure: who leaves the band by length where S is Gaussian, the methods replayed on simulated banks.

    Args:
        out: Folder for theory.csv, theory.svg and theory.png.
        seed: Seed of the simulated banks.
    """
    from suite.experiments.names import METHODS
    from suite.findings.theory import theory_sentence
    from suite.methods.cards import card_digest
    from suite.records.provenance import write_provenance
    from suite.report.terminal import show
    from suite.report.theory_page import table, write_theory

    with console.status("replaying methods on simulated banks"):
        points = write_theory(out, checked_seed(seed))
    cards = {name: card_digest(METHODS[name]) for name in ("rloo", "gspo", "fspo_zero_drift")}
    write_provenance(out, ["fspo", *sys.argv[1:]], seed=seed, cards=cards)
    show(table(points), "outside the band in per cent, 3 standard errors (normal tail)", console)
    say([theory_sentence(points), f"table and figure: {out}"])


def replayed(
    folder: Path, names: Sequence[str] | None, out: Path, options: Sequence[str], console: Console
) -> list[str]:
    """Replay methods on a bank and write the arena's tables; the sentences, one a method and range."""
    from suite.experiments.names import REFERENCE, known_methods
    from suite.experiments.settings import method_with
    from suite.findings.rules import with_words
    from suite.records.bank import Bank
    from suite.replay.fairness import too_few_problems
    from suite.replay.replays import Arena
    from suite.report import tables
    from suite.report.markdown import write_csv
    from suite.report.terminal import show

    bank = Bank.open(folder)
    methods = {name: method_with(name, options) for name in (names or known_methods())}
    arena = Arena(methods, bank.updates(), reference=REFERENCE)
    for name, frame in arena.tables().items():
        write_csv(out / f"{name}.csv", frame)
    found = with_words(arena.fairness)
    show(tables.fairness_table(found), "clipping by length, the same responses for every method", console)
    lines = [f"{row['method']}, {row['range']} range: {row['sentence']}" for row in found.to_dict("records")]
    lines = [*filter(None, [too_few_problems(arena.pooled)]), *lines]
    return [*lines, f"tables, also of whose gradient is left and who clips the same responses: {out}"]
