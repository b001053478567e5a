"""vLLM as a sampler: one engine a process, its weights swapped in place.

vLLM draws with noise of its own, not with `suite.seeds.gumbel_noise`: the same request gives another text than the
in-process sampler, so rollouts of the two engines are never compared as if they shared their noise. Within vLLM a
request's noise is a function of its seed, the position and the token, whatever else is in the batch, so that two
policies which agree draw the same text here too, up to rounding. Rounding depends on the batch where sums are cut by
its size: in float32 on a CPU a text is the same in every batch that was tried, in bfloat16 and on a GPU it need not be.
A request that the engine had to preempt (too small a key-value cache) starts its noise again.
"""

from __future__ import annotations

import atexit
import functools
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from tqdm import tqdm

from suite.config import VllmConfig
from suite.files import digest_of, folder_in_memory
from suite.lora import merged
from suite.models import model_digest, tokenizer_digest
from suite.sampling import SampleRequest, SamplingSettings, check_context, end_token_ids
from suite.types import FinishReason, Rollout, UserError
from suite.vllm_engine import give_memory_back, on_gpu, parameters, require_vllm, start_vllm, write_model

NO_ARCHITECTURE = ("_name_or_path", "architectures", "dtype", "transformers_version")
SMALLEST_CONTEXT = 2048
"""Tokens that an engine has room for in a request, where the model has; a longer request starts another engine."""
COLDEST = 0.01
"""vLLM raises temperatures between 0 and this one to it, without saying so in its output."""


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
        _running = _Engine(start_vllm(model, tokenizer, config, room), config, fits_for, room, model_digest(model))
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

    @property
    def sleeps(self) -> bool:
        """Whether it gives its memory to the trainer between two calls."""
        return on_gpu() if self.config.sleep is None else self.config.sleep

    def hold(self, model: Any) -> None:
        """Wake up, and take over the model's weights unless they are here already."""
        if self.asleep:
            give_memory_back()
            self.llm.wake_up()
            self.asleep = False
        wanted = model_digest(model)
        if wanted == self.weights:
            return
        self.weights = None
        with folder_in_memory() as folder:
            write_model(model, folder)
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
        outputs = self.llm.generate(prompts, [parameters(settings, ends, r.seed) for r in requests], use_tqdm=bar)
        if self.sleeps:
            self.llm.sleep(level=2)  # nothing is kept: by the next call the trainer has other weights
            self.asleep, self.weights = True, None
        return outputs


class _Told(tqdm):
    """vLLM's progress bar, which prints nowhere and tells us of finished responses instead."""

    def __init__(self, on_progress: Callable[[int], None], iterable: Any = None, **options: Any) -> None:
        self.on_progress = on_progress
        super().__init__(iterable, **options)

    def update(self, n: float | None = 1) -> bool | None:
        if self.iterable is None:  # else it counts the prompts that are handed over
            self.on_progress(int(n or 0))
        return super().update(n)


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
