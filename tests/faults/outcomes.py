"""What becomes of a try: words, counts, and a command run in a forked process, watched from outside."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REFUSED, DONE, HARMLESS, SILENT, TRACEBACK, HANG = "refused", "done", "harmless", "silent", "traceback", "hang"
BAD = (SILENT, TRACEBACK, HANG)
PATIENCE = 120.0
"""Seconds after which a command hangs: the longest of those that are tried takes fifteen on a quiet machine."""
SAID = 4000


@dataclass
class Counts:
    """How many tries of a campaign ended how, and what the bad ones were."""

    name: str
    ended: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)

    def add(self, word: str, what: str = "") -> None:
        self.ended[word] += 1
        if word in BAD:
            self.bad.append(f"{word}: {what}")
            print(f"\n{self.bad[-1]}", flush=True)
        elif sys.stdout.isatty():
            print(f"\r{self.name}: {self.tried} tried", end="", flush=True)

    @property
    def tried(self) -> int:
        return sum(self.ended.values())

    def line(self) -> str:
        """For instance `flips: 60 tried, 55 refused, 5 harmless; 0 silent, 0 traceback, 0 hang`."""
        good = ", ".join(f"{n} {word}" for word, n in sorted(self.ended.items()) if word not in BAD)
        return f"{self.name}: {self.tried} tried, {good}; " + ", ".join(f"{self.ended[word]} {word}" for word in BAD)


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (None where it hung), and the end of what it printed."""

    code: int | None
    said: str

    @property
    def word(self) -> str:
        if self.code is None:
            return HANG
        if "Traceback (most recent call last)" in self.said or self.code not in (0, 1, 2, 130):
            return TRACEBACK
        return REFUSED if self.code == 2 else DONE

    @property
    def complaint(self) -> str:
        """The last line that was printed."""
        return (self.said.strip().splitlines() or [""])[-1]


def command(words: Sequence[str], folder: Path, largest_file: int | None = None, patience: float = PATIENCE) -> Ended:
    """`fspo WORDS` in a folder. `largest_file`: bytes after which a write fails, as on a full disk."""
    from suite.commands import main

    def run() -> None:
        if largest_file is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
        sys.argv = ["fspo", *words]
        main.main()

    return forked(run, folder, patience)


def forked(run: Callable[[], object], folder: Path, patience: float = PATIENCE) -> Ended:
    """Call a function in a forked process of a group of its own, in a folder; it is killed where it takes too long.

    A fork has imported everything already: a refusal takes milliseconds.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _child(run, folder, write)
    os.close(write)
    said, code = _watched(read, child, patience)
    return Ended(code, said.decode(errors="replace"))


def _child(run: Callable[[], object], folder: Path, write: int) -> None:
    """The forked process: it never returns."""
    code = 0
    try:
        os.setsid()
        os.chdir(folder)
        _forget_strangers()
        nothing = os.open(os.devnull, os.O_RDONLY)
        for source, target in ((nothing, 0), (write, 1), (write, 2)):
            os.dup2(source, target)
        sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115 (until the exit)
        run()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException as error:
        traceback.print_exception(error)
        code = 99
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None:
                    stream.flush()
            except OSError:
                code = code or 98
        os._exit(code)


def _forget_strangers() -> None:
    """Leave behind what earlier tests of this process imported from temporary folders: a command starts without it."""
    here = tempfile.gettempdir()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(here):
            del sys.modules[name]
    sys.path[:] = [place for place in sys.path if not place.startswith(here)]


def _watched(read: int, child: int, patience: float) -> tuple[bytes, int | None]:
    """(the end of what the process printed, its exit code or None where it was killed for taking too long)."""
    import select

    end, said = time.monotonic() + patience, b""
    with os.fdopen(read, "rb", buffering=0) as pipe:
        while time.monotonic() < end:
            if select.select([pipe], [], [], 0.02)[0]:
                got = pipe.read(1 << 16)
                said = (said + got)[-(1 << 20) :]
                if got:
                    continue
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                os.set_blocking(pipe.fileno(), False)
                said += pipe.read(1 << 16) or b""
                return said, os.waitstatus_to_exitcode(status)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return said, None
