"""Two processes at once: one waits for the other or is refused, and neither loses what the other wrote."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from faults.outcomes import DONE, HANG, REFUSED, SILENT, TRACEBACK, Counts
from suite.experiments.recipes import recipe
from suite.records.bank import Bank, PendingFile
from suite.records.comparison_folder import claim_folder, stored_config
from suite.records.files import write_atomically
from suite.records.result import FILE, read_file, write_result
from suite.records.update_log import UpdateLog
from suite.types import EvalResult, RunResult, UserError, Verdict

SECONDS = 60


def log_of(step: int = 0) -> UpdateLog:
    """Six responses of one optimizer step."""
    n, rng = 6, np.random.default_rng(step)
    lengths = rng.integers(1, 9, n)
    tokens = rng.normal(size=(2, int(lengths.sum())))
    problems, zeros = np.array([f"p/{i}" for i in range(n)]), np.zeros(n)
    return UpdateLog(problems, zeros, zeros + step, zeros, zeros, zeros, zeros, lengths, *tokens, cells="fspo-seed0")


def both(one: Callable[[], object], other: Callable[[], object]) -> list[str]:
    """How the two ended that start at the same moment: done, refused, traceback or hang."""
    gate_read, gate_write = os.pipe()
    children = [_started(run, gate_read, gate_write) for run in (one, other)]
    os.close(gate_read)
    os.close(gate_write)  # both have waited for this
    return [_ended(child) for child in children]


def _started(run: Callable[[], object], gate_read: int, gate_write: int) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.close(gate_write)
        signal.alarm(SECONDS)  # a process that hangs is killed
        os.read(gate_read, 1)
        run()
        code = 0
    except UserError:
        code = 2
    finally:
        os._exit(code)


def _ended(child: int) -> str:
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {0: DONE, 2: REFUSED, -signal.SIGALRM: HANG}.get(code, TRACEBACK)


def result_of(accuracy: int) -> RunResult:
    """A result whose verdicts say which process wrote it."""
    verdict = Verdict.CORRECT if accuracy else Verdict.WRONG
    one = EvalResult("gcd", "1", "x", ("a", "b"), ((verdict,), (verdict,)), ((3,), (accuracy,)), 0.0)
    return RunResult(1, "fspo", 0, {}, (one,), {}, {}, {"seconds": float(accuracy)}, {})


def claims_of_two_settings(folder: Path) -> str:
    """One of them owns the folder, the other is refused, and what is stored is the owner's."""
    base = recipe("smoke")
    configs = [replace(base, train=replace(base.train, learning_rate=rate)) for rate in (1e-5, 2e-5)]
    ends = both(*[lambda c=c: claim_folder(c, folder / "out", ["x"], {}) for c in configs])
    owner = configs[ends.index(DONE)] if DONE in ends else None
    return _word(ends, [DONE, REFUSED], owner is not None and stored_config(folder / "out") == owner)


def claims_of_one_setting(folder: Path) -> str:
    config = recipe("smoke")
    ends = both(*[lambda: claim_folder(config, folder / "out", ["x"], {})] * 2)
    return _word(ends, [DONE, DONE], stored_config(folder / "out") == config)


def two_recordings(folder: Path) -> str:
    """A bank has both recordings afterwards, and their files."""
    (folder / "log").write_bytes(b"")
    log_of().save(folder / "log")
    data = (folder / "log").read_bytes()

    def add(name: str, step: int) -> None:
        file = PendingFile("updates", data + b"", step, 0, 6, name)
        Bank.open_or_new(folder / "bank").append(name, {"seed": step}, [file])

    ends = both(lambda: add("none-seed0", 0), lambda: add("fspo-seed0", 1))
    found = Bank.open(folder / "bank")
    return _word(ends, [DONE, DONE], len(found.recordings) == 2 and len(found.entries) == 2)


def one_recording_twice(folder: Path) -> str:
    log_of().save(folder / "log")
    data = (folder / "log").read_bytes()

    def add() -> None:
        Bank.open_or_new(folder / "bank").append("a", {"seed": 0}, [PendingFile("updates", data, 0, 0, 6, "a")])

    ends = both(add, add)
    found = Bank.open(folder / "bank")
    return _word(ends, [DONE, REFUSED], len(found.recordings) == 1, [DONE, DONE])


def two_results(folder: Path) -> str:
    """The file is one of the two results, whole."""
    ends = both(*[lambda r=r: write_result(result_of(r), folder) for r in (0, 1)])
    return _word(ends, [DONE, DONE], read_file(folder / FILE) in [result_of(0), result_of(1)])


def two_files(folder: Path) -> str:
    texts = ["a" * 300_000, "b" * 200_000]
    ends = both(*[lambda t=t: write_atomically(folder / "file", t) for t in texts])
    left = [path.name for path in folder.iterdir()]
    return _word(ends, [DONE, DONE], (folder / "file").read_text() in texts and left == ["file"])


def a_reader_beside_a_writer(folder: Path) -> str:
    """Whoever reads while somebody writes sees the old file or the new one."""
    log_of(0).save(folder / "log")

    def read() -> None:
        for _ in range(50):
            if UpdateLog.load(folder / "log").step[0] not in (0, 1):
                raise ValueError("neither")

    ends = both(read, lambda: [log_of(i % 2).save(folder / "log") for i in range(20)])
    return _word(ends, [DONE, DONE], UpdateLog.load(folder / "log").step[0] == 1)


def _word(ends: list[str], wanted: list[str], sound: bool, also: list[str] | None = None) -> str:
    bad = next((end for end in ends if end in (HANG, TRACEBACK)), None)
    if bad:
        return bad
    expected = [sorted(wanted), sorted(also or wanted)]
    return (REFUSED if REFUSED in ends else DONE) if sound and sorted(ends) in expected else SILENT


KINDS = (
    claims_of_two_settings,
    claims_of_one_setting,
    two_recordings,
    one_recording_twice,
    two_results,
    two_files,
    a_reader_beside_a_writer,
)


def campaign(size: int, seed: int, folder: Path) -> Counts:
    """So many pairs of processes, every kind in turn."""
    counts, rng = Counts("two at once"), random.Random(f"pairs {seed}")
    for number in range(size):
        kind, here = KINDS[number % len(KINDS)], folder / f"pair-{number}-{rng.randrange(99)}"
        here.mkdir()
        try:
            word = kind(here)
        except (UserError, OSError, json.JSONDecodeError) as error:
            word = f"{SILENT}"
            counts.bad.append(repr(error))
        counts.add(word, kind.__name__)
        shutil.rmtree(here)
    return counts
