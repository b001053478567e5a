"""Kills at random moments: the same command, run again until it ends, leaves the bytes of an undisturbed run."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from faults.outcomes import HARMLESS, SILENT, TRACEBACK, Counts
from suite.records.files import TEMPORARY

ROOT = Path(__file__).resolve().parents[2]
SHORT = ["--set", "evaluation.limit=4", "train.checkpoint_every=1"]
COMMANDS: dict[str, list[str]] = {
    "evaluate": ["evaluate", "--limit", "12", "--samples", "4", "--batch-size", "16", "--out", "out"],
    "train": ["train", "smoke", "--method", "fspo", "--steps", "4", *SHORT, "--resume", "--out", "out"],
    "compare": ["compare", "smoke", "--steps", "2", *SHORT, "--out", "out"],
    "record": ["bank", "record", "smoke", "--steps", "2", "--seeds", "2", "--out", "out"],
}
RARE: dict[str, list[str]] = {
    "torchrun": ["torchrun", "train", "smoke", "--method", "fspo", "--steps", "4", *SHORT, "--resume", "--out", "out"],
    "vllm": [*COMMANDS["evaluate"], "--engine", "vllm"],
}
"""Slower ones: two processes that share a training run, and an evaluation that vLLM draws, where it is installed."""
OFTEN = ("evaluate", "train", "evaluate", "record", "train", "compare")
KILLS = 3
"""A command is killed at most so often, then left alone."""
UNEQUAL = ("tensorboard", "error.txt", ".lock")
"""What holds times and may differ. `digests` leaves costs and environment out of results."""


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of every file that two runs of one command have in common, by name."""
    found = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not set(p.parts) & set(UNEQUAL)):
        text = path.read_bytes()
        if path.suffix in (".json", ".jsonl", ".md", ".html", ".csv"):
            text = _without_times(path, text)
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(text).hexdigest()
    return found


def _without_times(path: Path, text: bytes) -> bytes:
    """Of a result its digest, of other texts that hold seconds or commands nothing but that they are there."""
    if path.name == "result.json":
        return next(line for line in text.splitlines() if line.strip().startswith(b'"digest":'))
    timed = ("metrics.jsonl", "costs.csv", "report.md", "report.html", "made.json", "comparison.json", "manifest.json")
    return b"" if path.name in timed or path.name.startswith("sampler") else text


def started(words: Sequence[str], folder: Path) -> subprocess.Popen[str]:
    """`fspo WORDS`, or `torchrun WORDS` with two processes, in a session of its own, its output in a file."""
    start = ["-m", "suite.commands.main"]
    if words[0] == "torchrun":
        start, words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *start], words[1:]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with (folder / "said").open("a") as said:
        return subprocess.Popen(
            [sys.executable, *start, *words],
            cwd=folder,
            env=environment,
            stdout=said,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


def campaign(size: int, seed: int, folder: Path, names: Sequence[str] = OFTEN) -> Counts:
    """So many commands, each killed with -9 at up to three moments of its run, and then run to its end."""
    commands = COMMANDS | RARE
    counts, rng = Counts("kills"), random.Random(f"kills {seed}")
    whole: dict[str, tuple[dict[str, str], float]] = {}
    while counts.tried < size:
        name = names[counts.tried % len(names)]
        if name not in whole:
            whole[name] = _undisturbed(name, commands[name], folder / f"whole-{name}")
        wanted, seconds = whole[name]
        here = folder / f"kill-{counts.tried}"
        here.mkdir()
        for _ in range(rng.randint(1, KILLS)):
            process = started(commands[name], here)
            time.sleep(rng.uniform(0.2, 1.0) * seconds)
            if (code := process.poll()) is not None:
                break  # it was faster: a finished command is not run again
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        else:
            code = started(commands[name], here).wait()
        said = (here / "said").read_text(errors="replace")
        found = digests(here / "out") if (here / "out").exists() else {}
        differ = sorted(k for k in {*wanted, *found} if wanted.get(k) != found.get(k))
        left = [p.name for p in here.rglob(f"*{TEMPORARY}")]
        sound = code == 0 and not differ and not left
        word = HARMLESS if sound else TRACEBACK if "Traceback" in said else SILENT
        counts.add(word, f"{name}, exit {code}: {differ[:5]} {left[:5]} {said[-300:] if code else ''}")
        shutil.rmtree(here)
    return counts


def _undisturbed(name: str, words: Sequence[str], folder: Path) -> tuple[dict[str, str], float]:
    """What the command leaves when nobody disturbs it, and how long it takes."""
    folder.mkdir()
    start = time.monotonic()
    code = started(words, folder).wait()
    if code:
        raise RuntimeError(f"{name} ends with {code}: {(folder / 'said').read_text()[-500:]}")
    return digests(folder / "out"), time.monotonic() - start
