"""Where the seconds of one update go: launches of kernels, waits of the host, the device's busy share, the heaviest."""

from __future__ import annotations

import time
from typing import Any

from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_context import Context, invented
from benchmarks.gpu_phases import Row
from benchmarks.gpu_speed import first_scoring, learning, updates

HEAVIEST = 12
LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
"""Beginnings of the names under which the CUDA runtime and driver start kernels."""
WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize")
ITEMS = "aten::_local_scalar_dense"
"""What reads one number of a tensor: a wait of the host on any accelerator."""


def update_profile(context: Context) -> list[Row]:
    """One optimizer step under the profiler; the first row has the totals, the others what is heaviest.

    seconds are measured without the profiler; busy_share = seconds of kernels / seconds. Without a GPU operations of
    torch stand for launches, and seconds of the CPU for those of kernels.
    """
    on_gpu, work = context.device == "cuda", context.work
    samples = min(work.samples, work.profiled)
    rollouts = invented(
        context.loaded().shape.vocabulary, work.profiled // samples, samples, work.prompt, work.response
    )
    learner, minis = learning(context, rollouts, mini_batches=1)
    parts = first_scoring(learner, minis, rollouts)

    def once() -> None:
        updates(learner, parts, work.response)
        context.wait()

    once()
    start = time.perf_counter()
    once()
    seconds = time.perf_counter() - start
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as recorded:
        once()
    events: list[Any] = list(recorded.key_averages())
    context.drop()
    return summary(events, on_gpu, seconds, sum(micro.input_ids.shape[1] for mini in minis for micro in mini))


def summary(events: list[Any], on_gpu: bool, seconds: float, tokens: int) -> list[Row]:
    """Totals of a profile's averages, then the heaviest kernels (on a GPU) and operations of torch.

    A kernel's seconds stand at the kernel and once more at the operation that launched it; the busy seconds count
    kernels alone.
    """

    def calls(*beginnings: str) -> int:
        return sum(event.count for event in events if event.key.startswith(beginnings))

    def own(event: Any) -> float:
        return (event.self_device_time_total if on_gpu else event.self_cpu_time_total) / 1e6

    kernels = [e for e in events if e.device_type.name != "CPU" and not getattr(e, "is_user_annotation", False)]
    operations = [e for e in events if e.device_type.name == "CPU" and e.key.startswith("aten::")]
    busy = sum(map(own, kernels if on_gpu else operations))
    totals: Row = {
        "phase": "profile of one update",
        "tokens": tokens,
        "seconds": seconds,
        "launches": calls(*LAUNCHES) if on_gpu else calls("aten::"),
        "host_waits": calls(*WAITS) if on_gpu else 0,
        "numbers_read": calls(ITEMS),
        "busy_seconds": busy,
        "busy_share": busy / seconds,
    }
    rows = [totals]
    for kind, found in (("kernel", kernels), ("operation", operations)):
        heaviest = sorted(found, key=own, reverse=True)[:HEAVIEST]
        rows += [{kind: e.key[:80], "calls": e.count, "seconds": own(e)} for e in heaviest]
    return rows
