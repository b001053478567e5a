"""What the benchmark on a GPU says: operations of a pass by the formula, the device's peak, tables as markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from suite.planning.devices import DEVICES, Device
from suite.planning.model_shapes import ModelShape
from suite.types import Rollout, UserError

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


def read(folder: Path, phases: Sequence[str]) -> list[dict[str, Any]]:
    """What the files of a folder say, in the order of `phases`, then as written; UserError where there is none."""
    found = []
    for path in sorted(folder.glob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.get("benchmark") == "gpu" and "status" in content:
            found.append((path.stat().st_mtime_ns, content))
    if not found:
        raise UserError(f"{folder}: holds no file of a phase; run python -m benchmarks.gpu --out {folder}")
    place = {name: i for i, name in enumerate(phases)}
    ordered = sorted(found, key=lambda one: (place.get(one[1]["phase"], len(place)), one[0]))
    return [content for _, content in ordered]


def text(found: Sequence[dict[str, Any]]) -> str:
    """The phases as markdown: a table of each, then what did not run or failed, and how the numbers were made."""
    devices = dict.fromkeys(one["device"] for one in found)
    lines = [f"# One run of the pipeline on {', '.join(devices)}"]
    for name in dict.fromkeys(one["phase"] for one in found):
        parts = [one for one in found if one["phase"] == name and one["status"] == "ran"]
        if parts:
            lines += [f"## {name}: {parts[0]['what']}", *_tables(parts)]
    absent = [_absent(one) for one in found if one["status"] != "ran"]
    lines += ["## Not run", "\n".join(absent) or "- nothing left out", "## How", *_made(found)]
    return "\n\n".join(lines) + "\n"


def _tables(parts: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The rows of a phase, one table for all that have the same columns."""
    tables: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for part in parts:
        model = {} if part["model"] is None else {"model": part["model"]}
        for row in part["rows"]:
            whole = {**model, **row}
            tables.setdefault(tuple(whole), []).append(whole)
    return (markdown(pd.DataFrame(rows)) for rows in tables.values())


def _absent(one: dict[str, Any]) -> str:
    """A line on a phase without rows."""
    title = one["phase"] + (f" of {one['model']}" if one["model"] else "")
    if one["status"] == "not run":
        return f"- {title}: {one['reason']}"
    if one["status"] == "started":
        return f"- {title}: had started when the run was ended"
    error = one["error"]
    place = error["where"][-1] if error["where"] else "no place known"
    memory = "out of memory; " if error["out_of_memory"] else ""
    return f"- {title}: FAILED, {memory}{error['type']}: {error['message'].splitlines()[0][:300]} ({place})"


def _made(found: Sequence[dict[str, Any]]) -> list[str]:
    """Commands, commit, versions and formulas, each once."""
    runs = dict.fromkeys((one["command"], one["commit"], one["device"]) for one in found)
    versions = dict.fromkeys(
        ", ".join(f"{k} {v}" for k, v in one["versions"].items() if k != "commit") for one in found
    )
    peaks = dict.fromkeys(
        f"{one['peak']['name']}: {one['peak']['flops']:.4g} FLOP/s, {one['peak']['source']}"
        for one in found
        if one["peak"]
    )
    took = [f"- {one['phase']}{' of ' + one['model'] if one['model'] else ''}: {one['seconds']:.1f} s" for one in found]
    return [
        "\n".join(f"- `{command}` at commit {commit} on {device}" for command, commit, device in runs),
        *versions,
        f"FLOPs: {FLOPS}",
        f"Peak: {'; '.join(peaks) or 'not known, so no MFU'}",
        "\n".join(took),
    ]


def markdown(frame: pd.DataFrame) -> str:
    """A frame as a markdown table; nothing where a number is missing."""

    def shown(value: Any) -> str:
        if value is None or value != value:
            return ""
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    head = [list(map(str, frame.columns)), ["---"] * len(frame.columns)]
    rows = [list(map(shown, row)) for row in frame.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (*head, *rows))
