"""Commands about methods: what there is, what holds, what moved, how to add one, how wide its range must be."""

from __future__ import annotations

import sys
from pathlib import Path

import tyro
from rich.markdown import Markdown

from suite.app import Options, app, complaints, console


@app.command
def methods(name: tyro.conf.Positional[str | None] = None, /) -> None:
    """List the methods, a line each, or print one method's card.

    Args:
        name: A method's name, or package.module:NAME.
    """
    from suite.cards import card, overview
    from suite.recipes import find_method, known_methods

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
    from suite.conformance import conformance
    from suite.recipes import find_method, known_methods

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
    from suite.new_method import write_skeleton

    for line in write_skeleton(name, folder):
        console.print(line, highlight=False, markup=False)


@app.command
def match(
    folder: tyro.conf.Positional[Path], /, methods: str | None = None, rate: float | None = None, options: Options = ()
) -> None:
    """Widen or narrow ranges until all methods clip the same share of one comparison's recorded updates.

    Args:
        folder: The folder of a finished comparison.
        methods: Comma-separated methods; default those of the comparison.
        rate: Clipped share that all are matched to; default FSPO's own on these records.
        options: Settings of methods that the search starts from.
    """
    from suite.cards import setting
    from suite.folder import stored_config
    from suite.matching import common_rate, matched_ranges, recorded_updates
    from suite.recipes import method_with

    config = stored_config(folder)
    chosen = {name: method_with(name, options) for name in (methods.split(",") if methods else config.methods)}
    log = recorded_updates(sorted(path for path in (folder / "cells").glob("*") if path.is_dir()))
    target = common_rate(chosen, log) if rate is None else rate
    found, reasons = matched_ranges(chosen, log, target)
    width = max(map(len, chosen))
    print(f"clipped share {target:.4f} of the responses with a gradient, first updates left out")
    for name, one in found.items():
        print(f"{name:<{width}}  clips {one.rate:.4f} with its range times {one.factor:.4g}")
    for name, reason in reasons.items():
        print(f"{name:<{width}}  not matched: {reason}")
    changes = [setting(name, field, value) for name, one in found.items() for field, value in one.changes(chosen[name])]
    if changes:
        print(f"train with them: --set {' '.join(changes)}")


@app.command
def regress(golden: Path | None = None, pin: bool = False) -> None:
    """Compare every method with the numbers pinned on a committed rollout set. Exit code 1 when anything moved.

    Args:
        golden: Folder with rollouts and pinned numbers; default tests/golden of the checkout.
        pin: Pin today's numbers instead. Needs a CHANGELOG line marked [numbers] that names every method that moved.
    """
    from suite.golden import GOLDEN, differences, measure, pin_numbers, read_pinned
    from suite.recipes import METHODS

    folder = golden or GOLDEN
    today = measure(METHODS, folder)
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
