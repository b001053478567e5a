"""Cells over a cluster with Ray: the only module that imports it. The results folder is one that all machines share."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

from rich.console import Console

from suite.experiments.local_jobs import Job, run_job, run_stages, said
from suite.policy.portable import VARIABLES
from suite.records.installation import pip_install
from suite.types import UserError

ATTEMPTS = 5
"""Workers that one cell may lose before it counts as failed: it is more likely to be what kills them."""


def require_ray() -> None:
    """UserError where Ray is not installed."""
    if find_spec("ray") is None:
        raise UserError(f"--on ray: Ray is not installed; run `make install-ray`, or `{pip_install('ray')}`")


def run_jobs_on_ray(
    stages: Sequence[Sequence[Job]],
    console: Console,
    address: str | None = None,
    gpus_per_cell: float | None = None,
    engine_devices: int = 0,
    portable: bool = False,
) -> None:
    """Run the jobs that are not done, stage after stage, wherever the cluster has room, and show progress.

    A job takes one core and `gpus_per_cell` of a GPU (None: one where the cluster has any), or the GPUs that its engine
    of vLLM has to itself; Ray lets each worker see its own only. The suite and the results
    folder must be found under the same paths on every machine. A job whose worker or machine is lost starts again from
    its last checkpoint, elsewhere. `address` is that of a running cluster; without one, RAY_ADDRESS, a cluster on this
    machine or else a fresh one is taken. `portable`: workers are started to compute portably.

    Raises UserError where Ray is missing, the cluster cannot be reached or has no such GPUs, or a job failed.
    """
    require_ray()
    import ray  # pyright: ignore[reportMissingImports]

    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"--ray-address {address}: no Ray cluster there ({error})") from error
    stopped = threading.Event()
    try:
        gpus = _gpus(ray, gpus_per_cell, engine_devices)
        room = ray.cluster_resources()
        console.print(f"Ray: {room.get('CPU', 0):.0f} cores, {room.get('GPU', 0):.0f} GPUs, {gpus:g} a cell")
        environment = {"env_vars": dict(VARIABLES)} if portable else {}  # read before a worker loads torch
        work = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=0, runtime_env=environment)(_work)
        with ThreadPoolExecutor(max(1, *map(len, stages))) as waiting:
            try:
                run_stages(stages, console, waiting, _patient(ray, work, console, stopped))
            finally:
                stopped.set()
                if ours:
                    ray.shutdown()  # ends what still runs, and with it the threads that wait for it
    finally:
        if ours:
            ray.shutdown()


def _gpus(ray: Any, asked: float | None, engine: int = 0) -> float:
    """GPUs of one cell; `engine` of them are an engine's of vLLM, which shares none with another."""
    most = max((node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if engine > max(most, 1):
        raise UserError(f"train.vllm.tensor_parallel_size = {engine}: no machine of the cluster has so many GPUs")
    if asked is None:
        return max(engine, 1) if most else 0
    if not 0 <= asked <= 1:
        raise UserError(f"--gpus-per-cell {asked:g}: 0 to 1 (a cell uses one GPU; several: fspo train under torchrun)")
    if asked > most:
        raise UserError(f"--gpus-per-cell {asked:g}: no machine of the cluster has a GPU")
    if engine and most and asked != engine:
        raise UserError(f"--gpus-per-cell {asked:g}: a cell with vLLM takes {engine}, all of it; leave the option out")
    return asked


def _patient(ray: Any, work: Any, console: Console, stopped: threading.Event) -> Callable[[Job], tuple[str, float]]:
    """What runs a job on the cluster, again where its worker is lost, and waits for it."""

    def run(job: Job) -> tuple[str, float]:
        lost = ""
        for _ in range(ATTEMPTS):
            try:
                return ray.get(work.remote(job, os.getcwd()))
            except ray.exceptions.RayTaskError as error:
                raise (error.cause or error) from None
            except ray.exceptions.RayError as error:
                lost = type(error).__name__
                if stopped.is_set():
                    break
                if job.done():  # the worker was lost after its last line
                    return "finished by a worker that was lost then", 0.0
                console.print(said("lost", "yellow", f"{job.name}: {lost}; again from its last checkpoint"))
        raise UserError(f"its workers were lost {ATTEMPTS} times ({lost}); the same command goes on from here")

    return run


def _work(job: Job, folder: str) -> tuple[str, float]:
    """A job in a worker: in the folder that the command was given in, on one thread as local cells side by side."""
    import torch

    os.chdir(folder)
    torch.set_num_threads(1)
    return run_job(job)
