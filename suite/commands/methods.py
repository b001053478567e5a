"""Commands about methods: what there is, what holds, what moved, how to begin one."""

from __future__ import annotations

import sys
from pathlib import Path

import tyro

from suite.commands.arguments import Name
from suite.commands.console import complaints, console, say
from suite.commands.pages import Page, listing
from suite.records.texts import printable
from suite.types import UserError


def list_methods() -> None:
    """List the methods, the suite's and those of plug-ins, a line each: name, digest of its card, what it is."""
    from suite.experiments.names import known_methods
    from suite.methods.cards import overview

    say(listing(overview(known_methods())))


def show_card(name: Name, /) -> None:
    """Print one method's card: equation, settings, and where every number comes from.

    Args:
        name: A method's name, or package.module:NAME.
    """
    from suite.experiments.names import find_method
    from suite.methods.cards import card

    console.print(Page(card(find_method(name))))


def check(method: tyro.conf.Positional[str | None] = None, /) -> None:
    """Hold methods to what every method owes: properties, gradients, null update, extremes. Exit code 1 on a failure.

    Args:
        method: One method: a name, or package.module:NAME of your own. Default: all of them, plug-ins included.
    """
    from suite.experiments.names import find_method, known_methods
    from suite.methods.conformance import conformance

    chosen = known_methods() if method is None else {method: find_method(method)}
    failed = []
    for name, candidate in chosen.items():
        outcomes = conformance(candidate)
        broken = [outcome for outcome in outcomes if outcome.reason is not None]
        without = [outcome for outcome in outcomes if outcome.without]
        if method is not None:
            for outcome in outcomes:
                if outcome.without:
                    print(f"n/a   {outcome.check}: {outcome.without}")
                else:
                    print(f"{'pass' if outcome.reason is None else 'FAIL'}  {outcome.check}")
        passed = f"{len(outcomes) - len(broken) - len(without)} of {len(outcomes)} checks passed"
        print(f"{'FAIL' if broken else 'pass'}  {name}: {passed}, {len(without)} do not apply")
        for outcome in broken:
            print(f"      {outcome.check}: {outcome.reason}")
            for line in outcome.example.splitlines():
                print(f"        {line}")
        failed += [name] if broken else []
    if failed:
        complaints.print(f"fspo: {len(failed)} of {len(chosen)} methods fail: {', '.join(failed)}")
        sys.exit(1)


def check_reward(reward: Name, /, tasks: Path, lowest: float = 0.0, highest: float = 1.0) -> None:
    """Hold a reward of your own to what every reward owes, on problems of your own. Exit code 1 on a failure.

    Args:
        reward: MODULE:NAME of a function of a response's text and its problem that returns a number or a verdict.
        tasks: The problems: a file FILE.jsonl of your own.
        lowest: No reward may be smaller.
        highest: No reward may be larger.
    """
    from suite.experiments.own_rewards import own_reward
    from suite.experiments.reward_check import checked_reward
    from tasks.own_problems import own_task

    found = checked_reward(own_reward(reward), own_task(str(tasks)).load("eval", None), lowest, highest)
    for one in found.owed:
        print(f"{'pass' if one.reason is None else 'FAIL'}  {one.check}")
        if one.reason is not None:
            print(f"      {printable(one.reason)}")
    print(f"right by it: the gold answer of {found.full} of {found.problems} problems, in one of its usual forms")
    print(
        f"time a call: {1e3 * found.mean_seconds:.2f} ms, the slowest {1e3 * found.slowest_seconds:.2f} ms, "
        f"of {found.calls} calls"
    )
    if failed := sum(one.reason is not None for one in found.owed):
        complaints.print(f"fspo: {reward}: {failed} of {len(found.owed)} checks fail")
        sys.exit(1)


def new(name: Name, /, folder: Path = Path(".")) -> None:
    """Write the skeleton of a method, its oracle and its page; it passes `fspo method check` before you change it.

    Args:
        name: Name of the method: lower-case letters, digits and underscores.
        folder: Checkout of the suite, or any folder of your own.
    """
    from suite.methods.new_method import write_skeleton

    for line in write_skeleton(name, folder):
        console.print(line, highlight=False, markup=False)


def regress(golden: Path | None = None, pin: bool = False) -> None:
    """Compare every method with the numbers pinned on a committed rollout set. Exit code 1 when anything moved.

    Args:
        golden: Folder with rollouts and pinned numbers; default tests/golden of the checkout.
        pin: Pin today's numbers instead. Needs a CHANGELOG line marked [numbers] that names every method that moved.
    """
    from suite.experiments.names import METHODS
    from suite.replay.pinned_numbers import GOLDEN, differences, numbers_today, pin_numbers, read_pinned

    folder = golden or GOLDEN
    if not folder.is_dir():
        raise UserError(f"{folder}: no pinned numbers; they come with a checkout, not with the wheel: give --golden")
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
        print(f"nothing moved: {len(today) - len(moved.not_pinned)} methods equal what is pinned")
