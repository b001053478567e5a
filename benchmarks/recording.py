"""What recording a run of TRL costs: rollouts with and without it, in turn, in one training.

    python -m benchmarks.recording --out results/trl-run/recording.json [--pairs 40] [--quick]

Every rollout is the same one, drawn once: old log-probs, rewards, advantages and four updates of TRL's GRPO on 32
responses of the embedded model. Nothing is sampled in between, and the model is tiny, so that recording weighs more
than in a real run. Every second rollout is recorded, from the log-probs to the bank on disk.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from transformers import TrainerCallback

from benchmarks.ratios import Ratio, line, write
from benchmarks.trl_run import PASSES, grpo_trainer
from suite.commands.console import complaints
from suite.records.bank import Bank
from suite.types import UserError

GOAL = 1.03
LEAST_PAIRS = 8
DRAWS = 10_000


class Clock(TrainerCallback):
    """Seconds of every rollout with its updates: of the clock, and of this process on a core."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.begun = (0.0, 0.0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """The first update of a rollout, before its rollout is made."""
        if state.global_step % PASSES == 0:
            self.begun = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """The last update of a rollout."""
        if state.global_step % PASSES == 0:
            self.seconds.append(time.perf_counter() - self.begun[0])
            self.cpu_seconds.append(time.process_time() - self.begun[1])


class Again:
    """A rollout function that draws with the trainer's own sampler once, and gives the same responses ever after."""

    def __init__(self) -> None:
        self.drawn: dict[str, Any] | None = None

    def __call__(self, prompts: list[Any], trainer: Any) -> dict[str, Any]:
        if self.drawn is None:
            asked = [trainer.processing_class(text=prompt)["input_ids"] for prompt in prompts]
            ids, _ = trainer._generate_single_turn(asked, None, {}, trainer.num_generations)[:2]
            self.drawn = {"prompt_ids": asked, "completion_ids": ids, "logprobs": None}
        return self.drawn


def paired_ratio(recorded: Sequence[float], plain: Sequence[float]) -> dict[str, float]:
    """Median over the pairs of recorded / plain, with a 95 % percentile interval from a bootstrap over the pairs."""
    ratios = np.asarray(recorded) / np.asarray(plain)
    draws = np.random.default_rng(0).integers(0, len(ratios), (DRAWS, len(ratios)))
    low, high = np.quantile(np.median(ratios[draws], axis=1), [0.025, 0.975])
    return {"median": float(np.median(ratios)), "low": float(low), "high": float(high)}


def measured(pairs: int) -> dict[str, Any]:
    """Both kinds of seconds of every rollout after a first pair unseen, and what the bank holds."""
    plugin, clock = import_module("fspo.plugins.trl"), Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = grpo_trainer(f"{folder}/out", max_steps=2 * PASSES * (pairs + 1), rollout_func=Again())
        trainer.add_callback(clock)
        plugin.RecordBank(trainer, f"{folder}/bank", every=2)
        trainer.train()
        bank = Bank.open(Path(folder, "bank"))
        log = bank.updates()
        size = sum((bank.folder / entry.path).stat().st_size for entry in bank.entries)
    found: dict[str, Any] = {
        "bytes_a_token": size / len(log.log_probs),
        "rows": len(log),
        "tokens": len(log.log_probs),
    }
    for kind in ("seconds", "cpu_seconds"):
        times = getattr(clock, kind)[2:]
        found[kind] = {"recorded": times[::2], "plain": times[1::2]}
        found[f"{kind}_ratio"] = paired_ratio(times[::2], times[1::2])
    return found


def run(out: Path, pairs: int = 40, quick: bool = False) -> None:
    """Time rollouts with and without recording, print the ratios and write everything as JSON.

    Args:
        out: The JSON file.
        pairs: Pairs of a recorded and a plain rollout.
        quick: Two pairs: tries the script, measures nothing.
    """
    if pairs < LEAST_PAIRS:
        raise UserError(f"--pairs {pairs}: at least {LEAST_PAIRS}; to try the script, --quick")
    found = measured(2 if quick else pairs)
    rows = []
    for kind, what in (("seconds", "seconds of a rollout"), ("cpu_seconds", "CPU seconds of a rollout")):
        ratio = found[f"{kind}_ratio"]
        rows.append(Ratio("recording", f"{what}, recorded / not", ratio["median"], GOAL, "lower"))
        print(f"{line(rows[-1])}; 95 % interval {ratio['low']:.3f} to {ratio['high']:.3f}")
    median = statistics.median(found["seconds"]["plain"])
    print(f"a rollout takes {median:.3f} s; {found['bytes_a_token']:.1f} bytes a token with all that is beside them")
    write(out, "recording", quick, rows, **found)


if __name__ == "__main__":
    try:
        tyro.cli(run, prog="python -m benchmarks.recording")
    except UserError as error:
        complaints.print(f"benchmarks.recording: error: {error}", markup=False)
        sys.exit(2)
