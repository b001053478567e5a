"""P1: one training step on the same recorded rollouts, the suite against TRL's GRPOTrainer.

    python -m benchmarks.training_step [--out results/bench/training_step.json] [--model embedded|smollm2] [--quick]

A step scores old log-probs, forms advantages and takes four updates of GRPO (AdamW, constant rate, no KL term). Both
sides get the same prompts, responses and rewards, deal them to the same updates, and start from the same weights.
On some mixes the suite then plays against itself without trees of common starts, every response with its whole prompt;
with --before FOLDER also against itself as another commit has it.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import tyro

from benchmarks.duel import duel, ratio, seconds
from benchmarks.material import FEW_SHOT, MIXES, as_json, material
from benchmarks.ratios import Ratio
from suite.commands.console import complaints, console, say
from suite.experiments.models import model_folder
from suite.policy.loading import has_fast_bfloat16
from suite.records.files import write_atomically
from suite.records.installation import commit_of
from suite.records.provenance import machine, versions
from suite.report.terminal import show
from suite.types import UserError

SCHEMA = "fspo-bench-training-step-1"
SIDES = {"ours": "benchmarks.our_side", "trl": "benchmarks.trl_side"}
TREES = {"ours": SIDES["ours"], "untreed": "benchmarks.untreed_side"}
BEFORE = "before"
SELVES = {"ours": SIDES["ours"], BEFORE: SIDES["ours"]}
LEAST_ROUNDS = 3
SHARE = 0.9
"""Of what leaving out all padding would give, 1 / (1 - padding share), this much is asked for."""
TAIL_LIMIT = 2.0
FEW_SHOT_LIMIT = 5.0
"""What is asked for behind few-shot prompts, which the suite computes once."""
TREE_LIMITS = {"spread": 0.95, "fewshot": 4.0, "fewshot-long": None}
"""What is asked of the suite with trees against the suite without, where that is measured: much behind few-shot
prompts, nothing to lose (within the noise of a step) where prompts share nothing."""
HALF = "bfloat16" if has_fast_bfloat16() else "float32"
"""Without hardware for it bfloat16 is many times slower than float32."""


@dataclass(frozen=True)
class Setup:
    """One model and the size of its step. prompt and response are tokens, the second a mean."""

    model: str
    dtype: str
    prompts: int
    samples: int
    prompt: int
    response: int
    micro_tokens: int
    updates: int = 4
    learning_rate: float = 1e-6
    method: str = "grpo"
    peer_rows: int = 10**6
    """Most rows in a pass of TRL's, which accumulates gradients over several, so that it fits into the memory."""


SETUPS = {
    "embedded": Setup("embedded", "float32", prompts=8, samples=8, prompt=12, response=40, micro_tokens=4096),
    "smollm2": Setup("smollm2", HALF, prompts=4, samples=8, prompt=48, response=64, micro_tokens=1024),
}
FEW_SHOT_CHANGES: Mapping[str, Any] = {
    "dtype": "float32",
    "updates": 2,
    "response": 40,
    "micro_tokens": 2048,
    "peer_rows": 8,
}
"""Of a step behind few-shot prompts: answers to svamp have 20 to 60 tokens, and an update sees 16 of them. In float32,
in which both sides can be held to the same losses."""
ROUNDS = {"embedded": 15, "smollm2": 3}


def vocabulary(model: str) -> list[int]:
    """Token ids to draw from: all but the first few, which are special."""
    folder = model_folder(model)
    if folder is None:
        raise UserError(f"--model {model}: not on this machine; for smollm2, fspo model fetch smollm2")
    size = json.loads((folder / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    return list(range(5, size))


def required(padding: float, mix: str) -> float:
    """What the ratio of speeds must reach on a mix whose padding share in TRL's batch is known.

    >>> required(0.0, "equal"), required(0.6, "spread"), required(0.1, "fewshot")
    (1.0, 2.25, 5.0)
    """
    limits = {"tail": TAIL_LIMIT, **dict.fromkeys(FEW_SHOT, FEW_SHOT_LIMIT)}
    return max(1.0, SHARE / (1 - padding), limits.get(mix, 0.0))


def parity(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Largest differences over all updates of all rounds: of the loss, absolute; of the gradient norm, relative."""
    gaps: dict[str, float] = {"loss": 0.0, "grad_norm": 0.0}
    for mine, other in zip(ours, theirs, strict=True):
        for a, b in zip(mine["loss"], other["loss"], strict=True):
            gaps["loss"] = max(gaps["loss"], abs(a - b))
        for a, b in zip(mine["grad_norm"], other["grad_norm"], strict=True):
            gaps["grad_norm"] = max(gaps["grad_norm"], abs(a - b) / max(abs(b), 1e-12))
    return gaps


def measured(setup: Setup, mix: str, rounds: int, threads: int, before: Path | None = None) -> dict[str, Any]:
    """Both sides on one length mix: times, tokens per second, peaks, padding, parity; and the suite against itself."""
    rows = material(mix, vocabulary(setup.model), setup.prompts, setup.samples, setup.prompt, setup.response)
    longest = max(map(len, rows.responses))
    task = {
        **asdict(setup),
        "tasks": ["recurrence"],
        "max_new_tokens": longest,
        "threads": threads,
        "material": as_json(rows),
    }
    with tempfile.TemporaryDirectory() as folder:
        said = duel(SIDES, task, Path(folder), rounds)
        trees = duel(TREES, task, Path(folder), rounds) if mix in TREE_LIMITS else {}
        older = duel(SELVES, task, Path(folder), rounds, {BEFORE: before}) if before else {}
    ours, theirs = said["ours"], said["trl"]
    speed = {name: ratio([rows.tokens / s for s in seconds(one)], [1.0]) for name, one in said.items()}
    padding = theirs["unseen"]["padding"]
    gained = ratio(seconds(theirs), seconds(ours))
    return {
        "mix": mix,
        "setup": asdict(setup),
        "material": {"digest": rows.digest, "tokens": rows.tokens, "longest_response": longest},
        "padding_share_of_trl": padding,
        "seconds": {name: seconds(one) for name, one in said.items()},
        "cpu_seconds": {name: seconds(one, "cpu_seconds") for name, one in said.items()},
        "tokens_per_second": {name: one["of_medians"] for name, one in speed.items()},
        "speed_ratio": gained,
        **(_trees(trees) if trees else {}),
        **(_before(older, before) if before else {}),
        "cpu_ratio": ratio(seconds(theirs, "cpu_seconds"), seconds(ours, "cpu_seconds")),
        "required": required(padding, mix),
        "peak_gib": {name: one["peak_gib"] for name, one in said.items()},
        "loaded_gib": {name: one["ready"]["loaded_gib"] for name, one in said.items()},
        "parity": parity([ours["unseen"], *ours["rounds"]], [theirs["unseen"], *theirs["rounds"]]),
        "phases": [one["phases"] for one in ours["rounds"]],
        "loss": {name: one["unseen"]["loss"] for name, one in said.items()},
        "grad_norm": {name: one["unseen"]["grad_norm"] for name, one in said.items()},
    }


def _trees(said: Mapping[str, Any]) -> dict[str, Any]:
    """Times of the suite with and without trees, their ratio, and how far the two agree."""
    ours, untreed = said["ours"], said["untreed"]
    return {
        "tree_seconds": {name: seconds(one) for name, one in said.items()},
        "tree_ratio": ratio(seconds(untreed), seconds(ours)),
        "tree_parity": parity([ours["unseen"], *ours["rounds"]], [untreed["unseen"], *untreed["rounds"]]),
        "tokens_computed": {name: one["unseen"]["computed"] for name, one in said.items()},
    }


def _before(said: Mapping[str, Any], checkout: Path) -> dict[str, Any]:
    """Times of the suite and of itself at the commit of that checkout, their ratio, and how far the two agree."""
    ours, before = said["ours"], said[BEFORE]
    return {
        "before_commit": commit_of(checkout),
        "before_seconds": {"ours": seconds(ours), BEFORE: seconds(before)},
        "before_ratio": ratio(seconds(before), seconds(ours)),
        "before_parity": parity([ours["unseen"], *ours["rounds"]], [before["unseen"], *before["rounds"]]),
    }


def table(found: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """One row a mix; without a column that says nothing of any."""
    frame = pd.DataFrame(
        {
            "mix": one["mix"],
            "padding": f"{one['padding_share_of_trl']:.2f}",
            "ours tok/s": f"{one['tokens_per_second']['ours']:.0f}",
            "TRL tok/s": f"{one['tokens_per_second']['trl']:.0f}",
            "ratio": f"{one['speed_ratio']['of_medians']:.2f}",
            "to no trees": f"{one['tree_ratio']['of_medians']:.2f}" if "tree_ratio" in one else "",
            "to before": f"{one['before_ratio']['of_medians']:.2f}" if "before_ratio" in one else "",
            "of minima": f"{one['speed_ratio']['of_minima']:.2f}",
            "of CPU s": f"{one['cpu_ratio']['of_minima']:.2f}",
            "asked": f"{one['required']:.2f}",
            "peak GiB": f"{one['peak_gib']['ours']:.2f} / {one['peak_gib']['trl']:.2f}",
            "loss gap": f"{one['parity']['loss']:.1e}",
            "norm gap": f"{one['parity']['grad_norm']:.1e}",
        }
        for one in found
    )
    return frame.loc[:, (frame != "").any()]


def ratios_of(model: str, one: Mapping[str, Any]) -> tuple[Ratio, ...]:
    """What the table of all benchmarks shows of one mix."""
    name, padding = f"step, {model}, {one['mix']}", one["padding_share_of_trl"]
    memory = one["peak_gib"]["ours"] / one["peak_gib"]["trl"]
    rows = (
        Ratio(name, "tokens/s, ours / TRL", one["speed_ratio"]["of_medians"], one["required"], "higher", padding),
        Ratio(name, "peak memory, ours / TRL", memory, 1.0, "lower", padding),
    )
    goal = TREE_LIMITS.get(one["mix"])
    if "tree_ratio" in one:
        what = "tokens/s, with trees / without"
        rows += (Ratio(name, what, one["tree_ratio"]["of_medians"], goal, "higher"),)
    if "before_ratio" in one:
        what = f"tokens/s, ours / ours at {one['before_commit'][:7]}"
        rows += (Ratio(name, what, one["before_ratio"]["of_medians"], goal, "higher"),)
    return rows


def require_checkout(folder: Path | None) -> None:
    """UserError where a folder was given that is no checkout of this repository."""
    if folder is not None and not (folder / "benchmarks" / "our_side.py").is_file():
        raise UserError(f"--before {folder}: no checkout of this repository (git worktree add FOLDER COMMIT makes one)")


def peer_versions() -> dict[str, str]:
    """Versions of this process and of TRL; UserError where TRL is not installed."""
    try:
        return {**versions(), "trl": version("trl"), "accelerate": version("accelerate")}
    except PackageNotFoundError:
        raise UserError("trl is not installed; pip install -c constraints-cpu.txt -e '.[trl]'") from None


def run(
    out: Path | None = None,
    model: str = "embedded",
    mix: tuple[str, ...] = ("equal", "spread", "tail"),
    rounds: int | None = None,
    dtype: Literal["float32", "bfloat16"] | None = None,
    micro_tokens: int | None = None,
    prompts: int | None = None,
    threads: int | None = None,
    before: Path | None = None,
    quick: bool = False,
) -> None:
    """Time a training step of both sides on every length mix, print the ratios and write everything as JSON.

    Args:
        out: The JSON file; without it the times are only printed.
        model: embedded (float32) or smollm2 (bfloat16 where the machine multiplies it in hardware; fetch it first).
        mix: Length mixes: equal, spread, tail; fewshot and fewshot-long, behind prompts as of svamp and gsm8k.
        rounds: Rounds in which the two sides work in turn, after one unseen; default 15, with smollm2 3.
        dtype: Number format of weights and arithmetic instead of the model's default.
        micro_tokens: Our micro-batch instead of the model's default, in tokens.
        prompts: Groups of a step instead of the model's default.
        threads: Threads of each side; default all cores.
        before: A checkout of another commit of this repository, which then plays against ours too.
        quick: Two rounds on a few short responses of the last mix: tries the script, measures nothing.
    """
    if model not in SETUPS:
        raise UserError(f"--model {model!r}: one of {', '.join(SETUPS)}")
    if unknown := set(mix) - set(MIXES):
        raise UserError(f"--mix {sorted(unknown)[0]!r}: of {', '.join(MIXES)}")
    rounds = ROUNDS[model] if rounds is None else rounds
    if rounds < LEAST_ROUNDS:
        raise UserError(f"--rounds {rounds}: at least {LEAST_ROUNDS}; to try the script, --quick")
    require_checkout(before)
    given: dict[str, Any] = {"micro_tokens": micro_tokens, "prompts": prompts, "dtype": dtype}
    if quick:
        given |= {"prompts": 2, "samples": 4, "prompt": 8, "response": 10}
        rounds, mix = 2, mix[-1:]
    given = {name: x for name, x in given.items() if x is not None}
    setups = [replace(SETUPS[model], **{**(FEW_SHOT_CHANGES if one in FEW_SHOT else {}), **given}) for one in mix]
    threads = threads or os.cpu_count() or 1
    packages, load_before = peer_versions(), os.getloadavg()
    found = [measured(setup, one, rounds, threads, before) for setup, one in zip(setups, mix, strict=True)]
    content = {
        "schema": SCHEMA,
        "command": ["python", "-m", "benchmarks.training_step", *sys.argv[1:]],
        "quick": quick,
        "rounds": rounds,
        "threads": threads,
        "environment": {**packages, **machine()},
        "load_average": {"before": load_before, "after": os.getloadavg()},
        "ratios": [asdict(row) for one in found for row in ratios_of(model, one)],
        "measurements": found,
    }
    if out is not None:
        write_atomically(out, json.dumps(content, indent=1) + "\n")
    sizes = " or ".join(sorted({str(setup.prompts * setup.samples) for setup in setups}))
    show(table(found), f"{model}: a step of {sizes} responses, {rounds} rounds in turn", console)
    kept = f"; all times: {out}" if out else ""
    say([f"load average {load_before[0]:.2f} before, {os.getloadavg()[0]:.2f} after{kept}"])


if __name__ == "__main__":
    try:
        tyro.cli(run, prog="python -m benchmarks.training_step")
    except UserError as error:
        complaints.print(f"benchmarks.training_step: error: {error}", markup=False)
        sys.exit(2)
