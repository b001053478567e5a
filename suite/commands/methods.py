"""Commands about methods: what there is, what holds, what moved, how to add one, how wide its range must be."""

from __future__ import annotations

import sys
from pathlib import Path

import tyro
from rich.markdown import Markdown

from suite.commands.app import Options, app, complaints, console, say


@app.command
def methods(name: tyro.conf.Positional[str | None] = None, /) -> None:
    """List the methods, a line each, or print one method's card.

    Args:
        name: A method's name, or package.module:NAME.
    """
    from suite.experiments.recipes import find_method, known_methods
    from suite.methods.cards import card, overview

    if name is None:
        for line in overview(known_methods()):
            print(line)
    else:
        console.print(Markdown(card(find_method(name))))


@app.command
def check(method: str | None = None) -> None:
    """Hold methods to what every method owes: properties, gradients, null update, extremes. Exit code 1 on a failure.

    Args:
        method: One method: a name, or package.module:NAME of your own. Default: all of them, plug-ins included.
    """
    from suite.experiments.recipes import find_method, known_methods
    from suite.methods.conformance import conformance

    chosen = known_methods() if method is None else {method: find_method(method)}
    failed = []
    for name, candidate in chosen.items():
        outcomes = conformance(candidate)
        broken = [outcome for outcome in outcomes if outcome.reason is not None]
        if method is not None:
            for outcome in outcomes:
                print(f"{'pass' if outcome.reason is None else 'FAIL'}  {outcome.check}")
        print(f"{'FAIL' if broken else 'pass'}  {name}: {len(outcomes) - len(broken)} of {len(outcomes)} checks")
        for outcome in broken:
            print(f"      {outcome.check}: {outcome.reason}")
            for line in outcome.example.splitlines():
                print(f"        {line}")
        failed += [name] if broken else []
    if failed:
        complaints.print(f"fspo: {len(failed)} of {len(chosen)} methods fail: {', '.join(failed)}")
        sys.exit(1)


@app.command
def new_method(name: tyro.conf.Positional[str], /, folder: Path = Path(".")) -> None:
    """Write the skeleton of a method, its oracle and its README section; it passes `fspo check` before you change it.

    Args:
        name: Name of the method: lower-case letters, digits and underscores.
        folder: Checkout of the suite, or any folder of your own.
    """
    from suite.methods.new_method import write_skeleton

    for line in write_skeleton(name, folder):
        console.print(line, highlight=False, markup=False)


@app.command
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

    path, names = out_path(folder, out), methods.split(",") if methods else None
    made = calibrated(folder, names, target, Ranges.read(ranges), options, ["fspo", *sys.argv[1:]])
    say(made.lines())
    made.write(path)
    say([f"train with them: --ranges {path}"])


@app.command
def regress(golden: Path | None = None, pin: bool = False) -> None:
    """Compare every method with the numbers pinned on a committed rollout set. Exit code 1 when anything moved.

    Args:
        golden: Folder with rollouts and pinned numbers; default tests/golden of the checkout.
        pin: Pin today's numbers instead. Needs a CHANGELOG line marked [numbers] that names every method that moved.
    """
    from suite.experiments.recipes import METHODS
    from suite.replay.pinned_numbers import GOLDEN, differences, numbers_today, pin_numbers, read_pinned

    folder = golden or GOLDEN
    today = numbers_today(METHODS, folder)
    moved = differences(read_pinned(folder), today)
    for line in moved.table():
        print(line)
    if pin:
        pin_numbers(folder, today, moved)
        print(f"pinned {len(today)} methods in {folder}")
    elif moved:
        complaints.print(f"fspo: {len(moved.methods)} of {len(today)} methods moved: {', '.join(moved.methods)}")
        sys.exit(1)
    else:
        print(f"nothing moved: {len(today)} methods equal what is pinned")
