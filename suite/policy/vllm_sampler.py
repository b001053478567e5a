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
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from suite.config import VllmConfig
from suite.policy.hand_over import handed_over
from suite.policy.loading import tokenizer_digest
from suite.policy.ranks import ALONE, Ranks, failing_together
from suite.policy.revisions import following, weights_name
from suite.policy.sampling import SampleRequest, SamplingSettings, check_context, end_token_ids
from suite.policy.vllm_engine import (
    end_vllm,
    give_memory_back,
    parameters,
    require_vllm,
    sleeps,
    start_vllm,
    telling_death,
)
from suite.records.files import digest_of
from suite.types import FinishReason, Rollout, UserError

NO_ARCHITECTURE = ("_name_or_path", "architectures", "dtype", "transformers_version")
SMALLEST_CONTEXT = 2048
"""Tokens that an engine has room for in a request, where the model has; a longer request starts another engine."""
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class VllmSampler:
    """Draws with vLLM from today's weights of an in-process model, which stays the owner of the weights.

    All samplers of a process share one engine while they agree in architecture, tokenizer and configuration. Before
    every call the name of the model's weights (`suite.policy.revisions`) is compared with that of the weights in the
    engine; where they differ, the new ones are handed over through a folder in shared memory and the prefix cache is
    reset.

    Of several `ranks` each has an engine of its own and draws its own requests, but all call `sample` together: they
    start engines, hand weights over and wait for it together. The weights are those of the leading process's model, and
    of the models of the others only that of the first process of each further node is read.
    """

    def __init__(self, model: Any, tokenizer: Any, config: VllmConfig | None = None, ranks: Ranks = ALONE) -> None:
        self.installed = require_vllm()
        self.model, self.tokenizer, self.ranks = model, tokenizer, ranks
        self.config = config or VllmConfig()
        self._awake = 0
        self._tokenizer_digest = functools.cache(lambda: tokenizer_digest(tokenizer))  # a tenth of a second for 50,000

    @property
    def engine(self) -> str:
        """Name, version and precision of what draws."""
        return f"{self.installed} {self.config.dtype}"

    @contextmanager
    def awake(self) -> Iterator[None]:
        """The engine does not sleep between calls until the block ends, which may change no weights uncounted."""
        self._awake += 1
        try:
            with following(self.model):
                yield
        finally:
            self._awake -= 1
            if not self._awake and _running is not None:
                _running.rest()

    def sample(
        self,
        requests: Sequence[SampleRequest],
        settings: SamplingSettings,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Rollout]:
        """One rollout a request, in their order; log-probs are those of the distribution that was drawn from.

        UserError: prompts beyond the model's context, an engine that does not start.
        """
        if not requests and self.ranks.count == 1:
            return []
        with failing_together(self.ranks):
            if requests:
                check_context(requests, settings.max_new_tokens, self.model)
        longest = max((len(r.prompt_ids) for r in requests), default=0)
        with _stopped_on_error():
            engine = self._ready(self.ranks.most(longest + settings.max_new_tokens))
            outputs = engine.generate(requests, settings, end_token_ids(self.model, self.tokenizer), on_progress)
            if not self._awake:
                engine.rest()
        return [_rollout(request, output) for request, output in zip(requests, outputs, strict=True)]

    def _ready(self, context: int) -> _Engine:
        """This process's engine, awake, with today's weights and that much room; of all processes or of none."""
        global _running
        ranks, model, config = self.ranks, self.model, self.config
        with failing_together(ranks):
            name = weights_name(model) if ranks.is_leader else ""
            fits_for = (_architecture(model), self._tokenizer_digest(), config, torch.get_num_threads())
        wanted = ranks.broadcast(name.encode()).decode()
        fits = _running is not None and _running.fits_for == fits_for and _running.context >= context
        dtype = PRECISIONS[config.dtype]
        if ranks.most(not fits):
            stop_engine()
            longest = getattr(model.config, "max_position_embeddings", None) or context
            room = min(longest, max(SMALLEST_CONTEXT, 1 << (context - 1).bit_length()))
            with handed_over(model, dtype, ranks, self.tokenizer) as folder:
                device = ranks.local if ranks.count > 1 else None
                _running = _Engine(start_vllm(folder, config, room, device), config, fits_for, room, wanted)
        assert _running is not None
        if ranks.most(_running.weights != wanted):
            with handed_over(model, dtype, ranks) as folder:
                _running.take(folder, wanted)
        return _running


def stop_engine() -> None:
    """End this process's engine, if it has one; the next call of a sampler starts another."""
    global _running
    if _running is not None:
        end_vllm(_running.llm)
        _running = None


_running: _Engine | None = None
atexit.register(stop_engine)


def _architecture(model: Any) -> str:
    """All that an engine cannot change while it runs: the model's configuration, without the name of its weights."""
    told = {k: v for k, v in model.config.to_dict().items() if k not in NO_ARCHITECTURE}
    return digest_of([type(model).__name__, told])


@dataclass
class _Engine:
    """A running vLLM. `weights` is the name of what it holds, None while that is in doubt or it sleeps."""

    llm: Any
    config: VllmConfig
    fits_for: tuple[Any, ...]
    context: int
    weights: str | None
    asleep: bool = False

    def take(self, folder: Path, name: str) -> None:
        """Wake up, and take over the weights in the folder."""
        self.weights = None
        with telling_death(self.llm):
            if self.asleep:
                give_memory_back()
                self.llm.wake_up(tags=["weights"])
            self.llm.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
            if self.asleep:
                self.llm.wake_up(tags=["kv_cache"])
                self.asleep = False
            if not self.llm.reset_prefix_cache():
                raise RuntimeError("vLLM kept its prefix cache of older weights")
        self.weights = name

    def rest(self) -> None:
        """Give the memory to the trainer, if it is configured to. Nothing is kept: new weights come before it draws."""
        if sleeps(self.config) and not self.asleep:
            self.llm.sleep(level=2)
            self.asleep, self.weights = True, None

    def generate(
        self,
        requests: Sequence[SampleRequest],
        settings: SamplingSettings,
        ends: list[int],
        on_progress: Callable[[int], None] | None,
    ) -> list[Any]:
        """vLLM's output of every request, in order."""
        if not requests:
            return []
        prompts = [{"prompt_token_ids": list(r.prompt_ids)} for r in requests]
        bar = False if on_progress is None else functools.partial(_Told, on_progress, file=io.StringIO())
        with telling_death(self.llm):
            return self.llm.generate(prompts, [parameters(settings, ends, r.seed) for r in requests], use_tqdm=bar)


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
