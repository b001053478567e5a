"""P2: whole cycles (sample, grade, update) of 64 responses and 4 updates, the suite against TRL's GRPOTrainer.

    python -m benchmarks.cycles --out FILE [--model embedded|smollm2] [--engine vllm] [--mix tail] [--quick]

Each side draws its own responses to the same problems, up to the same number of tokens, at temperature 1, and grades
them by the same graders. Texts differ, so lengths do a little: the table shows them. With a mix both sides' responses
have the lengths of that mix (benchmarks/planned.py).
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import tyro

from benchmarks.duel import duel, ratio, seconds
from benchmarks.material import MIXES
from benchmarks.planned import planned_lengths
from benchmarks.ratios import Ratio
from benchmarks.training_step import HALF, LEAST_ROUNDS, SIDES, peer_versions
from suite.commands.console import complaints, console, say
from suite.policy.engines import require_engine
from suite.records.files import write_atomically
from suite.records.provenance import machine
from suite.report.terminal import show
from suite.types import UserError

SCHEMA = "fspo-bench-cycles-1"
HOUR = 3600.0


@dataclass(frozen=True)
class Setup:
    """One model and the size of its cycle; max_new_tokens is both sides' limit of a response."""

    model: str
    dtype: str
    max_new_tokens: int
    micro_tokens: int
    tasks: tuple[str, ...] = ("recurrence", "equation", "gcd")
    prompts: int = 8
    samples: int = 8
    updates: int = 4
    learning_rate: float = 1e-6
    method: str = "grpo"
    engine: str = "transformers"
    mix: str | None = None
    """Lengths of both sides' responses, of `mean_response` tokens on average; None: the model's own."""
    mean_response: int = 0


SETUPS = {
    "embedded": Setup("embedded", "float32", max_new_tokens=96, micro_tokens=4096, mean_response=40),
    "smollm2": Setup("smollm2", HALF, max_new_tokens=64, micro_tokens=1024, mean_response=24),
}


def asked(setup: Setup) -> float:
    """Cycles per hour against TRL's that are accepted: 1.5, and 2 with vLLM or on a heavy tail; the goal is 2."""
    return 2.0 if setup.engine == "vllm" or setup.mix == "tail" else 1.5


def measured(setup: Setup, rounds: int, threads: int) -> dict[str, Any]:
    """Both sides: seconds a cycle, cycles per hour, what they drew, and their peaks."""
    task = {**asdict(setup), "threads": threads}
    with tempfile.TemporaryDirectory() as folder:
        said = duel(SIDES, task, Path(folder), rounds)

    def mean(side: str, name: str) -> float:
        return statistics.mean(one[name] for one in said[side]["rounds"])

    return {
        "seconds": {name: seconds(one) for name, one in said.items()},
        "cpu_seconds": {name: seconds(one, "cpu_seconds") for name, one in said.items()},
        "cycles_per_hour": {name: HOUR / statistics.median(seconds(one)) for name, one in said.items()},
        "ratio": ratio(seconds(said["trl"]), seconds(said["ours"])),
        "cpu_ratio": ratio(seconds(said["trl"], "cpu_seconds"), seconds(said["ours"], "cpu_seconds")),
        "asked": asked(setup),
        "response_tokens": {name: mean(name, "response_tokens") for name in said},
        "reward": {name: mean(name, "reward") for name in said},
        "padding_share_of_trl": mean("trl", "padding"),
        "peak_gib": {name: one["peak_gib"] for name, one in said.items()},
        "loaded_gib": {name: one["ready"]["loaded_gib"] for name, one in said.items()},
        "phases": {
            name: statistics.median(one["phases"][name] for one in said["ours"]["rounds"])
            for name in said["ours"]["unseen"]["phases"]
        },
    }


def table(found: Mapping[str, Any], in_process: bool = True) -> pd.DataFrame:
    """One row a side; seconds on a core only where all of them are the side's own process's."""
    return pd.DataFrame(
        {
            "side": {"ours": "ours", "trl": "TRL"}[name],
            "s a cycle": f"{statistics.median(found['seconds'][name]):.2f}",
            "cycles an hour": f"{found['cycles_per_hour'][name]:.0f}",
            "response tokens": f"{found['response_tokens'][name]:.0f}",
            "reward": f"{found['reward'][name]:.2f}",
            "peak GiB": f"{found['peak_gib'][name]:.2f}",
            "of CPU s": f"{found['cpu_ratio']['of_minima']:.2f}" if name == "ours" and in_process else "",
            "ratio": f"{found['ratio']['of_medians']:.2f} (asked {found['asked']:.1f})" if name == "ours" else "",
        }
        for name in ("ours", "trl")
    )


def ratio_of(setup: Setup, found: Mapping[str, Any]) -> Ratio:
    """What the table of all benchmarks shows of it."""
    name = f"cycle, {setup.model}, {setup.engine}" + (f", {setup.mix}" if setup.mix else "")
    ratio, padding = found["ratio"]["of_medians"], found["padding_share_of_trl"]
    return Ratio(name, "cycles an hour, ours / TRL", ratio, found["asked"], "higher", padding)


def run(
    out: Path,
    model: str = "embedded",
    engine: str = "transformers",
    mix: str | None = None,
    rounds: int = 15,
    max_new_tokens: int | None = None,
    micro_tokens: int | None = None,
    threads: int | None = None,
    quick: bool = False,
) -> None:
    """Time whole cycles of both sides in turn, print cycles per hour and write everything as JSON.

    Args:
        out: The JSON file.
        model: embedded (float32) or smollm2 (bfloat16 where the machine multiplies it in hardware; fetch it first).
        engine: What draws our responses: transformers or vllm. TRL draws with transformers.
        mix: equal, spread or tail: responses of both sides have that mix's lengths instead of their own.
        rounds: Cycles of each side, in turn, after one unseen.
        max_new_tokens: Both sides' limit of a response instead of the model's default; a mix brings its own.
        micro_tokens: Our micro-batch instead of the model's default, in tokens.
        threads: Threads of each side; default all cores.
        quick: Two cycles of a few short responses: tries the script, measures nothing.
    """
    if mix is not None and mix not in MIXES:
        raise UserError(f"--mix {mix!r}: one of {', '.join(MIXES)}")
    if model not in SETUPS:
        raise UserError(f"--model {model!r}: one of {', '.join(SETUPS)}")
    if rounds < LEAST_ROUNDS:
        raise UserError(f"--rounds {rounds}: at least {LEAST_ROUNDS}; to try the script, --quick")
    require_engine(engine)
    changes = {"max_new_tokens": max_new_tokens, "micro_tokens": micro_tokens, "mix": mix}
    setup = replace(SETUPS[model], engine=engine, **{name: x for name, x in changes.items() if x is not None})
    if quick:
        setup, rounds = replace(setup, prompts=2, samples=4, max_new_tokens=16, mean_response=6), 2
    lengths = planned_lengths(asdict(setup))
    if lengths is not None:
        setup = replace(setup, max_new_tokens=max(lengths))
    threads = threads or os.cpu_count() or 1
    packages, load_before = peer_versions(), os.getloadavg()
    found = measured(setup, rounds, threads)
    content = {
        "schema": SCHEMA,
        "command": ["python", "-m", "benchmarks.cycles", *sys.argv[1:]],
        "quick": quick,
        "rounds": rounds,
        "threads": threads,
        "setup": asdict(setup),
        "environment": {**packages, **machine()},
        "load_average": {"before": load_before, "after": os.getloadavg()},
        "ratios": [asdict(ratio_of(setup, found))],
        "measurement": found,
    }
    write_atomically(out, json.dumps(content, indent=1) + "\n")
    what = f"cycles of {setup.prompts * setup.samples} responses and {setup.updates} updates, {rounds} rounds"
    show(table(found, engine == "transformers"), f"{model}: {what}", console)
    phases = ", ".join(f"{name} {x:.2f} s" for name, x in found["phases"].items())
    say([f"ours: {phases}; load average {load_before[0]:.2f} before, {os.getloadavg()[0]:.2f} after; all times: {out}"])


if __name__ == "__main__":
    try:
        tyro.cli(run, prog="python -m benchmarks.cycles")
    except UserError as error:
        complaints.print(f"benchmarks.cycles: error: {error}", markup=False)
        sys.exit(2)
