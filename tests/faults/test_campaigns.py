"""The fault campaigns at the size of a test run: nothing is read as something else, ends in a traceback, or hangs."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import REPORTED
from faults import broken_methods, campaigns, command_lines, flips, kills, pairs, places, strange_settings
from faults.outcomes import BAD, HANG, SILENT, TRACEBACK, Counts, Ended, forked

SMALL: dict[str, tuple[int, Callable[[int, int, Path], Counts]]] = {
    "command lines": (100, command_lines.campaign),
    "flips and cuts": (250, flips.campaign),
    "two at once": (35, pairs.campaign),
    "odd places": (45, lambda size, seed, folder: places.campaign(size, seed, folder, {}, places.QUICK)),
    "kills": (1, kills.campaign),
    "kills of torchrun and vLLM": (1, lambda size, seed, folder: kills.campaign(size, seed, folder, ["torchrun"])),
    "broken methods": (4, broken_methods.campaign),
    "strange settings": (4, strange_settings.campaign),
}

LONG = ("kills", "kills of torchrun and vLLM")
"""Commands that are killed and started again have tests of their own among those of the commands."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long) if name in LONG else name for name in SMALL]
)
def test_nothing_bad_happens(name: str, tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    for module in campaigns.LOADED:
        importlib.import_module(module)
    size, campaign = SMALL[name]
    counts = campaign(size, 1, tmp_path)
    record_property(REPORTED, counts.line())
    assert counts.tried == size
    assert counts.bad == []


def test_every_campaign_is_part_of_the_test_run() -> None:
    assert SMALL.keys() == campaigns.SIZES.keys()


# --- the campaigns notice what they look for ------------------------------------------------------


def test_a_hang_a_traceback_and_a_refusal_are_told_apart(tmp_path: Path) -> None:
    import time

    assert forked(lambda: time.sleep(30), tmp_path, patience=0.5).word == HANG
    assert forked(lambda: 1 / 0, tmp_path).word == TRACEBACK
    assert Ended(2, "fspo: error: x").word == "refused"
    assert Ended(-11, "").word == TRACEBACK
    assert forked(lambda: print("done"), tmp_path) == Ended(0, "done\n")


def test_a_reader_that_checks_nothing_is_found(tmp_path: Path) -> None:
    import random

    path, counts = tmp_path / "numbers", Counts("x")
    path.write_bytes(bytes(range(100)))
    made = ([path], lambda path: path.read_bytes())
    for _ in range(20):
        flips.tried(made, "numbers", repr(path.read_bytes()), random.Random(1), counts)
    assert counts.ended[SILENT] == 20


def test_a_claim_that_does_not_lock_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from contextlib import nullcontext

    from suite.records import bank

    monkeypatch.setattr(bank, "locked", lambda folder: nullcontext())
    monkeypatch.setattr(pairs, "KINDS", (pairs.two_recordings,))
    counts = pairs.campaign(20, 0, tmp_path)
    assert counts.ended[SILENT] > 0
    assert set(BAD) > counts.ended.keys() - {"done", "refused"}
