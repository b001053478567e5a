"""How many processes compute cells side by side on this machine, with how many threads, and which devices each sees."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from suite.config import TrainConfig
from suite.policy.portable import variables
from suite.types import UserError

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""What CUDA reads, once, when a process first asks it for devices: the only ones that this process will find."""


@dataclass(frozen=True)
class Layout:
    """How many processes work side by side, and with how many threads each.

    devices: what each of them finds in CUDA_VISIBLE_DEVICES, process by process; empty on a machine without GPUs.
    portable: whether they compute portably, as far as that has an effect here.
    """

    workers: int
    threads: int
    devices: tuple[str, ...] = ()
    portable: bool = False

    @classmethod
    def of(
        cls,
        jobs: int,
        workers: int | None = None,
        devices: Sequence[str] = (),
        each: int = 1,
        alone: bool = False,
    ) -> Layout:
        """As many processes as there are devices, or cores on a machine without any, or `workers` where that is given.

        Each has the threads of OMP_NUM_THREADS where that is set. Devices are dealt `each` to a process, round robin
        where there are more processes than they serve. Without any there is otherwise one thread a process where jobs
        outnumber cores (faster than fewer, wider processes), else cores are shared. UserError: fewer devices than one
        process takes, or more processes than devices for one to be `alone` on its own, as an engine of vLLM has to be.
        """
        cores = os.cpu_count() or 1
        if workers is not None and workers < 1:
            raise UserError(f"--workers {workers}: at least 1")
        if not devices:
            workers = min(workers or cores, max(jobs, 1))
            return cls(workers, threads_asked() or max(1, cores // workers))
        groups = [",".join(devices[i : i + each]) for i in range(0, len(devices) - each + 1, each)]
        if not groups:
            raise UserError(
                f"train.vllm.tensor_parallel_size = {each}: a cell takes {each} devices, and {len(devices)} can be seen"
            )
        workers = min(workers or len(groups), max(jobs, 1))
        if alone and workers > len(groups):
            raise UserError(
                f"--workers {workers}: every worker starts an engine of vLLM, which takes its share of {each} of the "
                f"{len(devices)} devices; at most {len(groups)}, or --set train.sampler=transformers"
            )
        seen = tuple(groups[i % len(groups)] for i in range(workers))
        return cls(workers, threads_asked() or max(1, cores // workers), seen)

    def __str__(self) -> str:
        said = f"{self.workers} processes x {self.threads} threads"
        if not self.devices:
            return said
        each = "; ".join(f"{i + 1}: {seen}" for i, seen in enumerate(self.devices))
        if len(set(self.devices)) < self.workers:
            return f"{said}, devices dealt round robin ({each})"
        return f"{said}, {'devices' if ',' in each else 'a device'} of its own for each ({each})"


def threads_asked() -> int | None:
    """Threads a process by the user's own OMP_NUM_THREADS, of a list (for nested teams) the first; None without one."""
    count = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(count) or None if count.isdecimal() else None


def visible_devices() -> tuple[str, ...]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: numbers, or UUIDs where it has those."""
    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return tuple(named[:count] or map(str, range(count)))


def engine_devices(train: TrainConfig) -> int:
    """Devices that a cell's engine of vLLM has to itself; 0 where the cell draws by itself and may share one."""
    return train.vllm.tensor_parallel_size if train.sampler == "vllm" else 0


def layout_for(train: TrainConfig, jobs: int, workers: int | None = None) -> Layout:
    """The layout of so many jobs of a training run on this machine."""
    alone = engine_devices(train)
    layout = Layout.of(jobs, workers, visible_devices(), max(1, alone), alone=alone > 0)
    portable = not layout.devices and bool(variables(train.portable))
    return replace(layout, threads=1, portable=True) if portable else layout


def processes_words(count: int) -> str:
    """Which devices the processes have that torchrun started to share a cell, in words."""
    seen = visible_devices()
    devices = f"a device each ({', '.join(seen)})" if seen else "on the CPU"
    return f"{count} processes share a cell, {devices}"
