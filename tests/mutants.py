"""Plants every bug of tests/mutants/*.toml into a copy of the repository; the fast tests must kill each of them.

    python tests/mutants.py [--workers N] [TEXT ...]        only the mutants whose name contains one of the texts

The bugs are those of suite/ and tasks/, whose tests need a process. Bugs in methods stand in MUTANTS of
tests/methods/NAME.py; tests/methods/test_mutants_die.py plants them in every test run, and with them those of this
table that name a `method`.

A file of the table holds mutants with `name` ("where: what"), `file`, `old` (found exactly once there) and `new`, and
the fast tests that should notice: `tests` (files) and `k` (pytest's -k), given once at the top or with the mutant.
`{method}` in a `k` stands for the mutant's `method`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from methods.facts import Mutant

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests" / "mutants"
ROOMS = ("suite", "baselines", "fspo", "tasks")
COPIED = (*ROOMS, "tests", "pyproject.toml")
TIMEOUT, PATIENCE = 180, 1800
"""Seconds for one mutant (most take five; a bug that hangs is a bug that is noticed), and for all tests without bug."""
PASSED, FAILED = 0, 1
"""Exit codes of pytest; any other one means that the tests could not be run."""


@dataclass(frozen=True, kw_only=True)
class SuiteMutant(Mutant):
    """One bug planted into suite/ or tasks/: one of `tests` that match `k` must fail.

    `method`: one whose own checks notice it too, without a process.
    """

    tests: tuple[str, ...]
    k: str = ""
    method: str = ""


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: killed, SURVIVED, or BROKEN where it does not apply or pytest could not run."""

    word: str
    how: str = ""

    def line(self, mutant: SuiteMutant) -> str:
        """One printed line."""
        return f"{self.word:<8} {mutant.name}" + (f"   ({self.how})" if self.how else "")


def load(table: Path = TABLE) -> list[SuiteMutant]:
    """The mutants of every file of the table, in the order of the files."""
    mutants = []
    for path in sorted(table.glob("*.toml")):
        with path.open("rb") as file:
            content = tomllib.load(file)
        shared = {key: content[key] for key in ("tests", "k") if key in content}
        for entry in content["mutant"]:
            row = {"k": "", "method": "", **shared, **entry}
            k = row["k"].format(method=row["method"])
            mutants.append(SuiteMutant(**{**row, "tests": tuple(row["tests"]), "k": k}))
    return mutants


# --- a copy of the repository -----------------------------------------------------------------------


@dataclass(frozen=True)
class Copy:
    """A copy of rooms and tests in a folder of its own, and processes that import from nowhere else."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> Copy:
        """Copy what the tests need: no .git, no .venv, no results, no bytecode."""
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy2(source, root / name)
        return cls(root)

    def python(self, *arguments: str, timeout: int = TIMEOUT) -> subprocess.CompletedProcess[str]:
        """This interpreter in the copy, with the copy first on its path: before the editable installation's finder."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(DROPPED)}
        environment |= {"PYTHONPATH": str(self.root), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "400"}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def pytest(
        self, tests: Iterable[str], k: str, *options: str, timeout: int = TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        """The fast tests of these files that match `k`."""
        chosen = ["-k", k] if k else []
        return self.python("-m", "pytest", "-q", *QUIET, *options, *tests, *chosen, timeout=timeout)

    def imports_itself(self) -> str | None:
        """Where another copy would be imported from, or None if every room comes from here."""
        names = (*ROOMS, "suite.arithmetic", "baselines.grpo", "fspo.band")
        code = "import importlib\nfor n in NAMES: print(importlib.import_module(n).__file__)".replace(
            "NAMES", repr(names)
        )
        done = self.python("-c", code)
        places = [Path(line).resolve() for line in done.stdout.splitlines()] if done.returncode == 0 else []
        if len(places) == len(names) and all(place.is_relative_to(self.root.resolve()) for place in places):
            return None
        return done.stdout.strip() or "nowhere"

    def judge(self, mutant: SuiteMutant) -> Verdict:
        """Plant the bug, run its tests, take it out again."""
        path = self.root / mutant.file
        healthy = path.read_text(encoding="utf-8")
        try:
            write(path, mutant.planted(healthy))
            done = self.pytest(mutant.tests, mutant.k, "-x", "--tb=no")
        except subprocess.TimeoutExpired:
            return Verdict("killed", f"by timeout, {TIMEOUT} s")
        except ValueError as error:
            return Verdict("BROKEN", str(error))
        finally:
            write(path, healthy)
        if done.returncode == PASSED:
            return Verdict("SURVIVED", f"{' '.join(mutant.tests)} -k '{mutant.k}'")
        if done.returncode != FAILED:
            last = done.stdout.strip().splitlines()[-1:]
            return Verdict("BROKEN", f"pytest ends with {done.returncode}: {' '.join(last)}")
        failed = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
        return Verdict("killed", f"by {failed[1]}" if failed else "")


DROPPED = ("PYTEST", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONSAFEPATH")
QUIET = ("-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow and not external and not gpu")


def write(path: Path, source: str) -> None:
    """Write a module and drop its bytecode, which Python would take for fresh within the same second."""
    path.write_text(source, encoding="utf-8")
    Path(importlib.util.cache_from_source(str(path))).unlink(missing_ok=True)


# --- the run ----------------------------------------------------------------------------------------


def selections(mutants: Sequence[SuiteMutant]) -> list[tuple[tuple[str, ...], str]]:
    """The tests of all mutants, each once: (files, -k) by set of files."""
    wanted: dict[tuple[str, ...], dict[str, None]] = {}
    for mutant in mutants:
        wanted.setdefault(mutant.tests, {})[mutant.k] = None
    return [(files, "" if "" in ks else " or ".join(f"({k})" for k in ks)) for files, ks in wanted.items()]


def run(mutants: Sequence[SuiteMutant], workers: int) -> int:
    """Judge the mutants, printing a line as each ends; 0 if all were killed, 1 if not, 2 if healthy tests fail."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for i in range(workers):
            copy = Copy.make(Path(folder) / str(i))
            if elsewhere := copy.imports_itself():
                print(f"the copy at {copy.root} is not what gets imported:\n{elsewhere}")
                return 2
            print(f"copy {i}: {copy.root}, and that is where its processes import from", flush=True)
            copies.put(copy)
        with ThreadPoolExecutor(workers) as pool:
            if not healthy(pool, copies, mutants):
                return 2
            print(f"the unchanged copy passes its tests ({time.monotonic() - started:.0f} s)", flush=True)
            words = list(judged(pool, copies, mutants))
    killed, survived, broken = (words.count(word) for word in ("killed", "SURVIVED", "BROKEN"))
    failed = f", {broken} broken" if broken else ""
    seconds = time.monotonic() - started
    print(f"{len(words)} mutants: {killed} killed, {survived} survived{failed} ({seconds:.0f} s)")
    return 0 if killed == len(words) else 1


def healthy(pool: ThreadPoolExecutor, copies: queue.SimpleQueue[Copy], mutants: Sequence[SuiteMutant]) -> bool:
    """Whether the tests that are to kill pass without any bug."""

    def check(files: tuple[str, ...], k: str) -> subprocess.CompletedProcess[str]:
        copy = copies.get()
        try:
            return copy.pytest(files, k, "--tb=short", timeout=PATIENCE)
        finally:
            copies.put(copy)

    runs = [pool.submit(check, files, k) for files, k in selections(mutants)]
    bad = [done.stdout for run_ in runs if (done := run_.result()).returncode != PASSED]
    for output in bad:
        print(f"the unchanged copy fails its tests:\n{output}")
    return not bad


def judged(pool: ThreadPoolExecutor, copies: queue.SimpleQueue[Copy], mutants: Sequence[SuiteMutant]) -> Iterable[str]:
    """The verdict's word for every mutant, in the order in which they end."""

    def judge(mutant: SuiteMutant) -> tuple[SuiteMutant, Verdict]:
        copy = copies.get()
        try:
            return mutant, copy.judge(mutant)
        finally:
            copies.put(copy)

    for done in as_completed([pool.submit(judge, mutant) for mutant in mutants]):
        mutant, verdict = done.result()
        print(verdict.line(mutant), flush=True)
        yield verdict.word


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Plant bugs into a copy; the fast tests must kill them all.")
    parser.add_argument("--workers", type=int, default=1, help="copies that are tested side by side")
    parser.add_argument("text", nargs="*", help="only the mutants whose name contains one of these")
    options = parser.parse_args(arguments)
    mutants = [m for m in load() if not options.text or any(text in m.name for text in options.text)]
    if not mutants or options.workers < 1:
        parser.error("no mutant has such a name" if not mutants else "at least one worker is needed")
    return run(mutants, options.workers)


if __name__ == "__main__":
    sys.exit(main())
