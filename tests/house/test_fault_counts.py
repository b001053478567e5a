"""What README says was tried is what the committed counts of `make faults` say."""

from __future__ import annotations

import json
import re

from faults.campaigns import SIZES
from faults.outcomes import BAD
from pages import ROOT, text_of

COUNTS = json.loads((ROOT / "results/faults/faults.json").read_text(encoding="utf-8"))["campaigns"]
ROWS = {
    "kills": ("kills", "kills of torchrun and vLLM"),
    "flipped bits": ("flips and cuts",),
    "odd places": ("odd places",),
    "two at once": ("two at once",),
    "broken methods, settings": ("broken methods", "strange settings"),
    "command lines": ("command lines",),
}


def test_readmes_counts_are_those_of_the_committed_campaigns() -> None:
    table = dict(re.findall(r"^\| ([^|]+?) \| (\d+) \|", text_of("README.md"), re.MULTILINE))
    counted = {row: sum(COUNTS[n]["tried"] for n in names if n in COUNTS) for row, names in ROWS.items()}
    assert {row: int(table.get(row, 0)) for row in ROWS} == counted


def test_every_campaign_was_run_and_found_nothing() -> None:
    assert {name for names in ROWS.values() for name in names} == SIZES.keys() == COUNTS.keys()
    assert not [name for name, counts in COUNTS.items() if counts.keys() & set(BAD)]
    assert not [name for name, counts in COUNTS.items() if counts["tried"] < SIZES[name]]
