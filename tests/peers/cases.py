"""Every comparison with a peer that the modules of tests/methods state, by its id.

Standard library only: this file is read in our environment and in the peers' own.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import methods
from methods.facts import NO_ORACLE
from peers.pairings import Pairing

PEERS = ("trl", "verl")
FOLDER = Path(methods.__file__).parent


def stated_pairings() -> list[Pairing]:
    """The pairings of every module, module by module in alphabetical order."""
    names = sorted(path.stem for path in FOLDER.glob("*.py") if not path.name.startswith(("_", *NO_ORACLE)))
    return [pairing for name in names for pairing in getattr(import_module(f"methods.{name}"), "PAIRINGS", [])]


PAIRINGS: dict[str, Pairing] = {pairing.id: pairing for pairing in stated_pairings()}


def of_peer(peer: str) -> list[Pairing]:
    """The comparisons with one peer."""
    return [p for p in PAIRINGS.values() if p.peer == peer]
