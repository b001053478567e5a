"""What the benchmark on a GPU says: operations of a pass by the formula, the device's peak, tables as markdown."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import pandas as pd

from suite.devices import DEVICES, Device
from suite.model_shapes import ModelShape
from suite.types import Rollout

FLOPS = (
    "update: 6 N tokens + 6 layers w sum(T^2); first scoring: a third of it. N = all parameters; w = heads x head "
    "size; T = prompt and response of a sequence, causal attention counted by half; MFU = FLOPs / (seconds x peak). "
    "mfu_done leaves out the head at prompts, where it is never multiplied."
)
PEAK_NAMES = {"H100": "h100-80gb", "H200": "h200", "A100": "a100-80gb", "RTX 5090": "rtx-5090-32gb"}


def peak_of(name: str) -> Device | None:
    """The data sheet of a device that torch names so; None where the suite knows none.

    >>> peak_of("NVIDIA H100 80GB HBM3").name
    'h100-80gb'
    >>> peak_of("NVIDIA T4")
    """
    return next((DEVICES[known] for part, known in PEAK_NAMES.items() if part in name), None)


def operations(shape: ModelShape, rollouts: Sequence[Rollout], whole_head: bool) -> float:
    """FLOPs of a forward pass over rollouts: see FLOPS. Without `whole_head`, the head at response tokens alone."""
    sizes = [len(r.prompt_ids) + len(r.response_ids) for r in rollouts]
    attention = 2 * shape.layers * shape.queries * sum(size**2 for size in sizes)
    if whole_head:
        return 2 * shape.parameters * sum(sizes) + attention
    head = shape.vocabulary * shape.hidden
    responses = sum(len(r.response_ids) for r in rollouts)
    return 2 * (shape.linear - head) * sum(sizes) + 2 * head * responses + attention


def text(models: Sequence[dict[str, Any]], device: str, kernel: dict[str, Any]) -> str:
    """The tables as markdown."""
    phases = pd.DataFrame([{"model": m["model"], **row} for m in models for row in m["phases"]])
    columns = ["model", "phase", "tokens", "seconds", "tokens_per_second", "mfu", "mfu_done", "peak_gib"]
    noise = pd.DataFrame([{"model": m["model"], **row} for m in models for row in m["null_update"]])
    if kernel["ran"]:
        said = f"{'equal' if kernel['equal'] else 'NOT EQUAL'} (relative errors {kernel['errors']})"
    else:
        said = f"not run: {kernel['reason']}"
    absent = [f"- {m['model']}, {phase}: {reason}" for m in models for phase, reason in m["did_not_run"].items()]
    return "\n\n".join([
        f"# One run of the pipeline on {device}", f"`{' '.join(sys.argv)}`", markdown(phases.reindex(columns=columns)),
        f"FLOPs: {FLOPS}", f"Packed attention, kernel against one call a sequence: {said}",
        "Null update, nats:", markdown(noise), "Not run:", "\n".join(absent) or "- nothing left out",
    ]) + "\n"  # fmt: skip


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a markdown table; nothing where a number is missing."""

    def shown(value: Any) -> str:
        if value is None or value != value:
            return ""
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    head = [list(map(str, frame.columns)), ["---"] * len(frame.columns)]
    rows = [list(map(shown, row)) for row in frame.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (*head, *rows))
