"""The whole pipeline on one GPU within ten minutes: training, sampling, noise, decoding, evaluation, and its kernels.

    python -m benchmarks.gpu [--out FOLDER] [--seconds 540] [--models Qwen/Qwen3-0.6B,Qwen/Qwen3-1.7B,smollm2]
    python -m benchmarks.gpu --only training,sampling
    python -m benchmarks.gpu --device cpu --seconds 60      # a rehearsal: the embedded model and small work
    python -m benchmarks.gpu --render FOLDER                # gpu.md from what a run left, however it ended

Needs a checkout, torch and transformers; nothing is installed or downloaded. Each phase writes its own JSON file into
the folder as soon as it is done (benchmarks/gpu_phases.py says how), the most valuable first; what does not fit into
the seconds, fails or cannot run here is named with the reason. smollm2 has its real weights, where
`fspo model fetch smollm2` brought them; the shapes of Qwen3 get random weights. Each program runs once before the
clock.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from benchmarks.gpu_context import CPU_MODELS, GPU_MODELS, SMALL, Context, Work
from benchmarks.gpu_phases import Phase, Runner, jobs_of
from benchmarks.gpu_text import FLOPS, PEAK_NAMES, peak_of, read, text
from suite.records.files import write_atomically
from suite.types import UserError

SECONDS = 540.0
GRACE = 30.0
"""Seconds after the budget at which a process that hangs inside a call of the device is ended."""
CUDA, VLLM = ("cuda",), ("cuda", "vllm")
PHASES = (
    Phase("device", "what is there", "benchmarks.gpu_checks:device", 0, 5, 1, "none"),
    Phase(
        "kernel",
        "packed attention: kernel against one call a sequence, errors relative to float32",
        "benchmarks.gpu_checks:kernel",
        0,
        15,
        1,
        "none",
        CUDA,
    ),
    Phase("training", "first scoring and updates", "benchmarks.gpu_speed:training", 0, 40, 5),
    Phase("head", "the output head by tile", "benchmarks.gpu_checks:head", 1, 20, 2, "none"),
    Phase("profile", "one update under the profiler", "benchmarks.gpu_profile:update_profile", 1, 20, 4, "first"),
    Phase("sampling", "the in-process sampler", "benchmarks.gpu_speed:sampling", 1, 25, 3),
    Phase("noise", "the null update, nats", "benchmarks.gpu_speed:noise", 1, 25, 4),
    Phase("texts", "equal responses of the embedded model", "benchmarks.gpu_checks:texts", 2, 25, 4, "none"),
    Phase("numbers", "the same numbers on the device", "benchmarks.gpu_checks:numbers", 2, 3, 1, "none"),
    Phase(
        "attention_memory",
        "float32 attention over a long sequence",
        "benchmarks.gpu_checks:attention_memory",
        2,
        5,
        1,
        "none",
        CUDA,
    ),
    Phase(
        "checkpointed",
        "updates with activations computed twice",
        "benchmarks.gpu_speed:checkpointed",
        3,
        30,
        5,
        "first",
    ),
    Phase("evaluation", "drawn and graded", "benchmarks.gpu_speed:evaluation", 3, 40, 4, "first"),
    Phase("decoding", "a decoding step alone", "benchmarks.gpu_speed:decode", 3, 90, 4, "first"),
    Phase("sampling_vllm", "vLLM", "benchmarks.gpu_speed:sampling_vllm", 3, 100, 100, "first", VLLM),
)
"""All phases. Seconds are estimates: on one H100, and in the rehearsal on two cores of a CPU."""


def run(
    out: Path, models: Sequence[str], device: str, seconds: float, only: Sequence[str] = (), first: int = 0
) -> int | None:
    """Measure, and write every phase's file into the folder.

    None when all is done; the number of the job to go on with in a new process where the device refuses further work.
    UserError without the device asked for, for an unknown phase, or without any seconds.
    """
    jobs = jobs_of(PHASES, models, only)
    if not seconds > 0:
        raise UserError(f"--seconds {seconds}: must be positive")
    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("no CUDA device here; --device cpu is a rehearsal of the script")
    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    peak = peak_of(name)
    work = Work() if device == "cuda" else SMALL
    context = Context(device, work, peak)
    settings = {**asdict(work), "precision": context.precision, "models": list(models), "seconds": seconds}
    known = peak and {"name": peak.name, "source": peak.source, "flops": peak.peak(context.precision)}
    runner = Runner(out, context, seconds, settings, name, FLOPS, known)
    print(f"device {name}; {f'peak of {peak.name}: {peak.source}' if peak else 'no peak known, so no MFU'}; into {out}")
    go_on = runner.run(jobs, first)
    return None if go_on is None or go_on >= len(jobs) else go_on


def render(folder: Path) -> int:
    """Write gpu.md from the phases' files in a folder and print it; the number of phases that failed."""
    found = read(folder, [phase.name for phase in PHASES])
    write_atomically(folder / "gpu.md", text(found))
    print(f"\n{text(found)}")
    return sum(one["status"] == "failed" for one in found)


def folder_of(device: str) -> Path:
    """Where a run writes that is not told: results/NAME of the card; in a rehearsal a folder that git ignores."""
    if device == "cpu":
        return Path("results/runs/gpu-rehearsal")
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    known = next((part for part in PEAK_NAMES if part in name), "gpu")
    return Path("results") / known.lower().replace(" ", "-")


def main() -> None:
    """Parses the command line. Exit code 1 where a phase failed."""
    parser = argparse.ArgumentParser(description="The whole pipeline on one GPU.")
    parser.add_argument("--out", type=Path, help="folder of the phases' files (default: results/h100 and the like)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="the budget of the whole run")
    parser.add_argument("--models", help=f"names with commas (default: {','.join(GPU_MODELS)}; on a CPU: embedded)")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--only", default="", help=f"phases with commas: {', '.join(p.name for p in PHASES)}")
    parser.add_argument("--first", type=int, default=0, help="go on with this job (a restarted run does)")
    parser.add_argument("--render", type=Path, metavar="FOLDER", help="measure nothing: write gpu.md from a folder")
    chosen = parser.parse_args()
    models = chosen.models.split(",") if chosen.models else GPU_MODELS if chosen.device == "cuda" else CPU_MODELS
    out = chosen.out or folder_of(chosen.device)
    only = chosen.only.split(",") if chosen.only else []
    began = time.monotonic()
    faulthandler.dump_traceback_later(chosen.seconds + GRACE, exit=True, file=2)
    try:
        if chosen.render:
            sys.exit(min(1, render(chosen.render)))
        go_on = run(out, models, chosen.device, chosen.seconds, only, chosen.first)
        failed = render(out)
    except UserError as error:
        sys.exit(f"benchmarks.gpu: error: {error}")
    finally:
        faulthandler.cancel_dump_traceback_later()
    if go_on is not None:
        left = max(1.0, chosen.seconds - (time.monotonic() - began))
        more = ["--first", str(go_on), "--seconds", f"{left:.0f}"]  # of an option given twice the last one counts
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.gpu", *sys.argv[1:], *more])
    sys.exit(min(1, failed))


if __name__ == "__main__":
    main()
