"""Odd places to write to: refused in one line, and nothing left there that a later run would take for a result."""

from __future__ import annotations

import os
import random
import shutil
import socket
from collections.abc import Callable, Collection
from pathlib import Path

from faults.outcomes import DONE, REFUSED, SILENT, Counts, command

SMALL = 20_000
"""Bytes of the largest file on a disk that is nearly full: settings fit, a model or an update log does not."""


def under_a_file(folder: Path) -> str:
    (folder / "file").write_text("mine")
    return "file/out"


def a_file(folder: Path) -> str:
    (folder / "file").write_text("mine")
    return "file"


def a_loop(folder: Path) -> str:
    (folder / "loop").symlink_to("loop")
    return "loop"


def under_a_loop(folder: Path) -> str:
    return f"{a_loop(folder)}/out"


def a_dangling_link(folder: Path) -> str:
    (folder / "link").symlink_to("/no/such/place")
    return "link"


def a_link_to_a_device(folder: Path) -> str:
    (folder / "link").symlink_to("/dev/full")
    return "link"


def a_pipe(folder: Path) -> str:
    os.mkfifo(folder / "pipe")
    return "pipe"


def under_a_pipe(folder: Path) -> str:
    return f"{a_pipe(folder)}/out"


def a_socket(folder: Path) -> str:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(folder / "s")[-100:] if len(str(folder)) < 90 else f"/tmp/{os.getpid()}.s")
    return "s" if (folder / "s").exists() else "/dev/null/s"


def somebody_elses(folder: Path) -> str:
    (folder / "full").mkdir()
    (folder / "full" / "thesis.tex").write_text("mine")
    return "full"


def a_file_for_a_folder(folder: Path) -> str:
    (folder / "half").mkdir()
    for name in ("cells", "base", "samples", "rollouts", "updates"):
        (folder / "half" / name).write_text("mine")
    return "half"


def fixed(place: str) -> Callable[[Path], str]:
    return lambda folder: place


PLACES: dict[str, Callable[[Path], str]] = {
    **{make.__name__: make for make in (under_a_file, a_file, a_loop, under_a_loop, a_dangling_link)},
    **{make.__name__: make for make in (a_link_to_a_device, a_pipe, under_a_pipe, a_socket, somebody_elses)},
    "a_file_for_a_folder": a_file_for_a_folder,
    "/dev/null": fixed("/dev/null"),
    "/dev/full": fixed("/dev/full"),
    "under /dev/null": fixed("/dev/null/out"),
    "in /proc": fixed("/proc/out"),
    "in /sys": fixed("/sys/out"),
    "in a file of /proc": fixed("/proc/version/out"),
    "a name too long": fixed("x" * 300),
    "a path too long": fixed("/".join(["y" * 200] * 30)),
    "no name": fixed(""),
    "a line break": fixed("a\nb/../\n"),
    "markup": fixed("[/red][bold]"),
    "not UTF-8": fixed(os.fsdecode(b"caf\xe9")),
}
COMMANDS: dict[str, list[str]] = {
    "evaluate": ["evaluate", "--limit", "1", "--samples", "1", "--max-new-tokens", "4", "--out"],
    "compare": ["compare", "smoke", "--steps", "1", "--methods", "grpo", "--workers", "1", "--out"],
    "train": ["train", "smoke", "--method", "grpo", "--steps", "1", "--out"],
    "record": ["bank", "record", "smoke", "--steps", "1", "--seeds", "1", "--out"],
    "replay": ["bank", "replay", "{bank}", "--methods", "fspo,grpo", "--out"],
    "calibrate": ["bank", "calibrate", "{bank}", "--methods", "fspo,grpo", "--target", "0.2", "--out"],
    "changes": ["report", "--compare", "{demo}", "{demo}", "--out"],
    "export": ["export", "demo", "--out"],
    "verify": ["verify", "{demo}", "--cells", "base", "--out"],
    "new method": ["method", "new", "twist", "--out"],
}
QUICK = ("evaluate", "export", "new method")
"""Commands that end within a second or two where a place turns out to be good."""
ACCEPTED = frozenset({"no name", "a line break", "markup", "not UTF-8", "somebody_elses"})
"""Places that are odd, and fine: what a command does there is watched, and that it may be refused."""


def contents(folder: Path) -> dict[str, bytes | str]:
    """What lies in a folder: bytes of files, targets of links, kinds of the rest."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        found[name] = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else "other"
    return found


def campaign(size: int, seed: int, folder: Path, known: dict[str, str], commands: Collection[str] = COMMANDS) -> Counts:
    """So many (command, place): `known` are the folders of a bank and of a comparison to read from."""
    counts, rng = Counts("odd places"), random.Random(f"places {seed}")
    pairs = [(c, p) for c in commands for p in PLACES if c in QUICK or p not in ACCEPTED]
    pairs += [(c, "a full disk") for c in commands]
    rng.shuffle(pairs)
    for number in range(size):
        name, place = pairs[number % len(pairs)]
        here = folder / f"place-{number}"
        here.mkdir()
        out = "out" if place == "a full disk" else PLACES[place](here)
        before = contents(here)
        words = [word.format(**known) for word in COMMANDS[name]]
        limit = rng.choice([200, 1000, SMALL]) if place == "a full disk" else None
        ended = command([*words, out], here, limit)
        word, changed = ended.word, {k: v for k, v in before.items() if contents(here).get(k) != v}
        if changed and word in (REFUSED, DONE):
            word = SILENT  # what was there is not as it was
        if word == REFUSED and place == "a full disk":
            again = command([*words, out], here)
            word = word if again.word in (DONE, REFUSED) else again.word
        counts.add(word, f"{name} --out {place}: {ended.complaint[:300]} {sorted(changed)}")
        shutil.rmtree(here, ignore_errors=True)
    return counts
