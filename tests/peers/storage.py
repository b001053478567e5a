"""Reading and writing what the peers said: one JSON file a peer, one line a result."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import json
from pathlib import Path
from types import ModuleType
from typing import Any

from peers.batches import BATCHES
from peers.cases import of_peer

FOLDER = Path(__file__).resolve().parent / "fixtures"


def runner(peer: str) -> ModuleType:
    """The module that runs a peer's own code: `PACKAGE` and `run(pairing, batch)`."""
    return importlib.import_module(f"peers.{peer}_peer")


def path(peer: str) -> Path:
    """Where a peer's results are stored."""
    return FOLDER / f"{peer}.json"


def load(peer: str) -> dict[str, Any]:
    """What the peer said when it was recorded: versions, inputs and results."""
    return json.loads(path(peer).read_text())


def compute(peer: str) -> dict[str, Any]:
    """What the installed peer says now, in the shape of a fixture."""
    module, pairings = runner(peer), of_peer(peer)
    used = dict.fromkeys(name for p in pairings for name in p.batches)
    return {
        "versions": {name: importlib.metadata.version(name) for name in (module.PACKAGE, "torch", "transformers")},
        "batches": {name: dataclasses.asdict(BATCHES[name]) for name in used},
        "settings": {p.id: {"entry": p.entry, **p.settings} for p in pairings},
        "results": {p.id: {name: module.run(p, BATCHES[name]) for name in p.batches} for p in pairings},
    }


def dump(content: dict[str, Any]) -> str:
    """The fixture as text: JSON with one line for each batch, each setting and each result."""
    sections = []
    for section, entries in content.items():
        lines = []
        for name, entry in entries.items():
            if section == "results":
                inner = ",\n".join(f"  {json.dumps(batch)}: {json.dumps(said)}" for batch, said in entry.items())
                lines.append(f" {json.dumps(name)}: {{\n{inner}\n }}")
            else:
                lines.append(f" {json.dumps(name)}: {json.dumps(entry)}")
        sections.append(f"{json.dumps(section)}: {{\n" + ",\n".join(lines) + "\n}")
    return "{\n" + ",\n".join(sections) + "\n}\n"
