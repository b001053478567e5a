"""The sampler protocol and the in-process sampler: any transformers causal LM, with noise that ignores batching."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import transformers
from torch import Tensor

from suite.kv_cache import growing_cache
from suite.lora import merged
from suite.seeds import gumbel_noise
from suite.types import FinishReason, Rollout, UserError

WORTH_SHARING = 32
"""Tokens that all prompts of a batch must have in common, as few-shot prompts do, before they are prefilled apart."""


@dataclass(frozen=True)
class SampleRequest:
    """One response to draw. `seed` is the 64-bit key of its noise, from `suite.seeds.derive`."""

    problem_id: str
    sample_index: int
    seed: int
    prompt_ids: tuple[int, ...]


@dataclass(frozen=True)
class SamplingSettings:
    """How responses are drawn. Training uses temperature 1 and no top-k or top-p: anything else biases log-probs."""

    max_new_tokens: int
    """Responses are cut here, with finish reason `length`."""
    temperature: float = 1.0
    """Logits are divided by it; 0 takes the most likely token."""
    batch_size: int = 256
    """Responses drawn side by side; it changes speed and memory, and in float32 on a CPU never a text."""
    stop: tuple[str, ...] = ()
    """Texts after which a response ends (the text is kept), beside the end token."""

    def __post_init__(self) -> None:
        for name, lowest in (("max_new_tokens", 1), ("temperature", 0), ("batch_size", 1)):
            if getattr(self, name) < lowest:
                raise UserError(f"SamplingSettings.{name} = {getattr(self, name)}: must be at least {lowest}")


def before_stop(text: str, stop: Sequence[str]) -> str:
    """The response without its stop text and what its last token may hold behind it: that part answers nothing.

    >>> before_stop("#### 7Question: How", ("\\n\\n", "Question:"))
    '#### 7'
    """
    return text[: min((place for mark in stop if (place := text.find(mark)) >= 0), default=len(text))]


class Sampler(Protocol):
    """Anything that turns requests into rollouts, in the order of the requests."""

    @property
    def engine(self) -> str:
        """Name, version and precision of what draws, for headers and results."""
        ...

    def sample(
        self,
        requests: Sequence[SampleRequest],
        settings: SamplingSettings,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Rollout]: ...


def awake(sampler: Any) -> AbstractContextManager[None]:
    """A block in which a sampler draws several times from the same weights: an engine does not sleep between.

    It still notices that weights have changed, where they count their changes or a glance at them shows it.
    """
    return sampler.awake() if hasattr(sampler, "awake") else nullcontext()


def check_context(requests: Sequence[SampleRequest], max_new_tokens: int, model: Any) -> None:
    """Refuse prompts that do not fit into the model's context together with max_new_tokens."""
    context = getattr(model.config, "max_position_embeddings", None)
    longest = max(requests, key=lambda r: len(r.prompt_ids))
    if context is not None and len(longest.prompt_ids) + max_new_tokens > context:
        raise UserError(
            f"problem {longest.problem_id}: its prompt of {len(longest.prompt_ids)} tokens plus max_new_tokens "
            f"{max_new_tokens} exceeds the model's context of {context}; lower --max-new-tokens or drop the problem"
        )


def end_token_ids(model: Any, tokenizer: Any) -> list[int]:
    """Ids that end a response: the tokenizer's and the generation config's end tokens."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [ends]
    return sorted({i for i in (*ends, tokenizer.eos_token_id) if i is not None})


@dataclass(frozen=True)
class TransformersSampler:
    """Draws responses with a transformers causal LM on the model's own device."""

    model: Any
    tokenizer: Any

    @property
    def engine(self) -> str:
        """Name, version and precision of what draws."""
        return f"transformers {transformers.__version__} {str(self.model.dtype).removeprefix('torch.')}"

    def sample(
        self,
        requests: Sequence[SampleRequest],
        settings: SamplingSettings,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Rollout]:
        """One rollout a request. Requests are drawn in batches of like prompt length; the order is restored."""
        if not requests:
            return []
        check_context(requests, settings.max_new_tokens, self.model)
        order = sorted(range(len(requests)), key=lambda i: (len(requests[i].prompt_ids), requests[i].prompt_ids))
        rollouts: dict[int, Rollout] = {}
        for start in range(0, len(order), settings.batch_size):
            rows = order[start : start + settings.batch_size]
            batch = _Batch(self.model, self.tokenizer, [requests[i] for i in rows], settings)
            rollouts.update(zip(rows, batch.run(), strict=True))
            if on_progress is not None:
                on_progress(len(rows))
        return [rollouts[i] for i in range(len(requests))]


class HalfPrecisionSampler:
    """Draws with a bfloat16 copy of a float32 model, refreshed from it before every call."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.source = model
        self.inner = TransformersSampler(copy.deepcopy(model).to(torch.bfloat16), tokenizer)

    @property
    def engine(self) -> str:
        """Name, version and precision of what draws."""
        return self.inner.engine

    def sample(
        self,
        requests: Sequence[SampleRequest],
        settings: SamplingSettings,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Rollout]:
        """As TransformersSampler, with today's weights."""
        with torch.no_grad():
            for mine, theirs in zip(self.inner.model.parameters(), merged(self.source).parameters(), strict=True):
                mine.copy_(theirs)
        return self.inner.sample(requests, settings, on_progress)


class _Batch:
    """Rows drawn side by side. Finished rows leave; each distinct prompt is prefilled once."""

    def __init__(
        self, model: Any, tokenizer: Any, requests: Sequence[SampleRequest], settings: SamplingSettings
    ) -> None:
        self.model, self.tokenizer, self.requests, self.settings = model, tokenizer, requests, settings
        self.device = model.device
        self.keys = torch.tensor([r.seed for r in requests], dtype=torch.int64, device=self.device)
        self.ends = torch.tensor(end_token_ids(model, tokenizer), device=self.device)
        self.tokens = torch.zeros(len(requests), settings.max_new_tokens, dtype=torch.int64, device=self.device)
        self.log_probs = torch.zeros(len(requests), settings.max_new_tokens, device=self.device)
        self.lengths = torch.full((len(requests),), settings.max_new_tokens, device=self.device)
        self.stopped = torch.zeros(len(requests), dtype=torch.bool, device=self.device)

    @torch.inference_mode()
    def run(self) -> list[Rollout]:
        logits, cache, attention_mask = self._prefill()
        rows = torch.arange(len(self.requests), device=self.device)
        live = torch.ones_like(rows, dtype=torch.bool)
        for step in range(self.settings.max_new_tokens):
            chosen = self._draw(logits, rows, step)
            live &= ~self._finish(rows, chosen, step, live)
            alive = int(live.sum())
            if alive == 0 or step + 1 == self.settings.max_new_tokens:
                break
            if alive <= 0.8 * len(rows):
                keep = live.nonzero()[:, 0]
                cache.batch_select_indices(keep)
                rows, attention_mask, chosen, live = rows[keep], attention_mask[keep], chosen[keep], live[keep]
            attention_mask = torch.cat([attention_mask, torch.ones_like(attention_mask[:, :1])], dim=1)
            positions = attention_mask.sum(dim=1, keepdim=True) - 1
            logits = self.model(
                input_ids=chosen[:, None],
                attention_mask=attention_mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
            ).logits[:, -1]
        return self._rollouts()

    def _prefill(self) -> tuple[Tensor, Any, Tensor]:
        """Logits, cache and mask after the prompts: one row per distinct prompt, their common start only once."""
        prompts = {prompt: i for i, prompt in enumerate(dict.fromkeys(r.prompt_ids for r in self.requests))}
        columns = enumerate(zip(*prompts, strict=False))
        shortest = min(map(len, prompts))
        shared = min(next((i for i, column in columns if len(set(column)) > 1), shortest), shortest - 1)
        cache = growing_cache()
        if len(prompts) > 1 and shared >= WORTH_SHARING:
            start = torch.tensor([next(iter(prompts))[:shared]], device=self.device)
            self.model(input_ids=start, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache.batch_select_indices(torch.zeros(len(prompts), dtype=torch.int64, device=self.device))
        else:
            shared = 0
        width = max(map(len, prompts)) - shared
        ids = torch.zeros(len(prompts), width, dtype=torch.int64, device=self.device)
        mask = torch.zeros(len(prompts), shared + width, dtype=torch.int64, device=self.device)
        mask[:, :shared] = 1
        for prompt, i in prompts.items():
            rest = prompt[shared:]
            ids[i, width - len(rest) :] = torch.tensor(rest, device=self.device)
            mask[i, shared + width - len(rest) :] = 1
        logits = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0)[:, shared:],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        of_row = torch.tensor([prompts[r.prompt_ids] for r in self.requests], device=self.device)
        cache.batch_select_indices(of_row)
        return logits[of_row], cache, mask[of_row]

    def _draw(self, logits: Tensor, rows: Tensor, step: int) -> Tensor:
        """The next token of each row: argmax(log p + Gumbel noise), an exact draw from p."""
        scores = logits.float()
        if self.settings.temperature > 0:
            scores = scores / self.settings.temperature
        log_probs = scores - torch.logsumexp(scores, dim=-1, keepdim=True)
        if self.settings.temperature > 0:
            position = torch.full_like(self.keys[rows], step)
            chosen = (log_probs + gumbel_noise(self.keys[rows], position, log_probs.shape[-1])).argmax(dim=-1)
        else:
            chosen = log_probs.argmax(dim=-1)
        self.tokens[rows, step] = chosen
        self.log_probs[rows, step] = log_probs.gather(1, chosen[:, None])[:, 0]
        return chosen

    def _finish(self, rows: Tensor, chosen: Tensor, step: int, live: Tensor) -> Tensor:
        """Which live rows ended at this step, by end token or stop text; notes their lengths."""
        ended = live & torch.isin(chosen, self.ends)
        if self.settings.stop:
            tail = self.tokens[rows, max(0, step - 7) : step + 1].tolist()
            texts = self.tokenizer.batch_decode(tail, skip_special_tokens=True)
            hits = [any(stop in text for stop in self.settings.stop) for text in texts]
            ended |= live & torch.tensor(hits, device=self.device)
        done = rows[ended]
        self.lengths[done], self.stopped[done] = step + 1, True
        return ended

    def _rollouts(self) -> list[Rollout]:
        tokens, log_probs = self.tokens.tolist(), self.log_probs.tolist()
        return [
            Rollout(
                problem_id=request.problem_id,
                sample_index=request.sample_index,
                seed=request.seed,
                prompt_ids=request.prompt_ids,
                response_ids=tuple(tokens[i][:length]),
                sampler_log_probs=tuple(log_probs[i][:length]),
                finish_reason=FinishReason.STOP if stopped else FinishReason.LENGTH,
            )
            for i, (request, length, stopped) in enumerate(
                zip(self.requests, self.lengths.tolist(), self.stopped.tolist(), strict=True)
            )
        ]
