"""Peak memory of a cell phase by phase: on each device, and on the host that its processes or its cells share.

Letters as in `suite.memory_model`. A host holds what every process holds there once a process, and what is there once
for the whole machine once. Source: ours, counted from `suite.cells`, `suite.trainer` and `suite.checkpoint`.
"""

from __future__ import annotations

from suite.devices import GIB
from suite.memory_model import (
    LIBRARIES,
    Load,
    Term,
    critic_body,
    drawing,
    engine,
    sampling,
    standing,
    total_gib,
    trained_numbers,
    updating,
)
from suite.model_shapes import ModelShape

HOST_LIBRARIES = 2.0
"""GiB of host memory of a process that uses a GPU, before any weight: assumed (ours)."""


def phases(shape: ModelShape, load: Load) -> dict[str, list[Term]]:
    """What each phase of a cell needs of a device at its peak, by the phase's name."""
    found = {"start": starting(shape, load)} if load.shared else {}
    found |= {"sample": sampling(shape, load), "update": updating(shape, load)}
    return found if load.gpu else found | {"checkpoint": saving(shape, load)}


def starting(shape: ModelShape, load: Load) -> list[Term]:
    """Before a model is cut among processes each has all of it, draws the first rollouts and scores them."""
    n = shape.parameters
    terms = [Term("libraries", "measured constant", LIBRARIES[load.gpu] * GIB), Term("whole model", "4 N", 4 * n)]
    if load.precision == "bfloat16" and not load.vllm_gib:
        terms.append(Term("sampler's copy", "2 N", 2 * n))
    work = [drawing(shape, load)]
    if load.precision == "bfloat16":
        half = Term("weights of products in bfloat16", "2 bytes each", 2 * shape.linear)
        work.append([half, *engine(load, load.vllm_kept_gib)])
    if load.whole_on_device:
        cut = Term("copy that is cut", "4 N", 4 * n)
        copies = [cut, Term("critic, before it is cut", "4 N (its body)", 4 * critic_body(shape))]
        work.append([*(copies if load.critic else [cut]), *engine(load, load.vllm_kept_gib)])
    return terms + max(work, key=total_gib)


def saving(shape: ModelShape, load: Load) -> list[Term]:
    """Writing a checkpoint on a CPU, beside all that stands."""
    return [*standing(shape, load, trained=True), checkpoint(shape, load), *engine(load, load.vllm_kept_gib)]


def checkpoint(shape: ModelShape, load: Load) -> Term:
    """Host memory of the process that writes a checkpoint: weights and both moments, each three times (measured)."""
    moving, letter = trained_numbers(shape, load)
    extra = 36 * critic_body(shape) if load.critic else 0
    words = f"36 {letter}{' + 36 N (body)' if load.critic else ''}: tensors, their bytes and the file's"
    return Term("checkpoint", words, 36 * moving + extra)


def hosting(shape: ModelShape, load: Load, cells: int) -> list[Term]:
    """Peak host memory of one machine with `cells` of a comparison at a time, beside GPUs.

    Once a process: its libraries, and the whole float32 model while it is loaded, which processes that share a run then
    copy to cut the copy. Once a cell, whatever its processes: the whole model that hands weights over to vLLM, the
    folder in shared memory for that, and what the leading process writes as a checkpoint. Where processes draw with
    copies of their own in bfloat16, each keeps the whole model.
    """
    n, processes, vllm = shape.parameters, cells * load.processes, load.vllm_gib > 0
    engines = " and an engine of vLLM each" if vllm else ""
    words = f"{HOST_LIBRARIES:g} GiB assumed, {processes} processes{engines}"
    libraries = Term("libraries", words, HOST_LIBRARIES * GIB * processes * (1 + vllm))
    loaded = Term("weights while they are loaded", f"4 N x {processes} processes", 4 * n * processes)
    written = checkpoint(shape, load)
    later = [Term(written.name, f"({written.formula}) x {cells} cells", written.bytes * cells)]
    if vllm:
        size = 2 if load.precision == "bfloat16" else 4
        folder = Term("weights for vLLM in shared memory", f"{size} N x {cells} cells", size * n * cells)
        later = [max(later[0], folder, key=lambda term: term.bytes)]
    if not load.shared or load.whole_on_device:
        return [libraries, max(loaded, later[0], key=lambda term: term.bytes)]
    bodies = 4 * critic_body(shape) if load.critic else 0
    copies = f"(4 N{' + 4 N (body)' if bodies else ''}) x {processes} processes"
    keepers, who = (cells, "cells") if vllm else (processes, "processes")
    kept = Term("whole model, which hands weights over", f"4 N x {keepers} {who}", 4 * n * keepers)
    first = [loaded, Term("copies that are cut", copies, (4 * n + bodies) * processes)]
    return [libraries, *max(first, [kept, *later], key=total_gib)]
