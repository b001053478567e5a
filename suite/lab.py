"""Every method on one bank: tables, figures and the sentences that they support."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from suite import tables
from suite.arena import Arena
from suite.bank import Bank
from suite.printing import show
from suite.recipes import known_methods, method_with


def replayed(
    folder: Path, names: Sequence[str] | None, out: Path, options: Sequence[str], console: Console
) -> list[str]:
    """Replay methods on a bank and write clip_by_length.csv and fairness.csv; the sentences, one a method and range."""
    bank = Bank.open(folder)
    methods = {name: method_with(name, options) for name in (names or known_methods())}
    arena = Arena(methods, bank.updates())
    tables.write_csv(out / "clip_by_length.csv", arena.by_length)
    tables.write_csv(out / "fairness.csv", arena.fairness)
    show(tables.fairness_table(arena.fairness), "clipping by length, the same responses for every method", console)
    rows = arena.fairness.to_dict("records")
    return [f"{row['method']}, {row['range']} range: {row['sentence']}" for row in rows]
