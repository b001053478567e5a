"""The sampler protocol and the in-process sampler: any transformers causal LM, with noise that ignores batching."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import transformers
from torch import Tensor, nn

from suite.config import require_temperature
from suite.policy.kv_cache import CommonStart, cut_common_start, growing_cache
from suite.policy.loading import context_of
from suite.policy.lora import merged
from suite.policy.packed_attention import can_keep_a_start_apart, use_packed_attention
from suite.policy.vocabulary_tiles import of_device
from suite.seeds import gumbel_noise
from suite.types import FinishReason, Policy, Rollout, UserError, require

LOOK_EVERY = {"cpu": 1, "cuda": 16}
"""Tokens between two looks at which rows have ended, by kind of device. At each look the host waits for a GPU; what a
row draws behind its end is cut off."""
DRAWN_AT_ONCE = {"cpu": 2**18, "cuda": 2**30}
"""Logits that are drawn from in one go, by kind of device: on a CPU few enough to stay in the cache meanwhile."""
STOP_WINDOW = 8
"""Tokens, up to the newest, whose text may hold a stop text."""
WORTH_SHARING = 32
"""Tokens that all prompts of a batch must have in common, as few-shot prompts do, before they are prefilled apart, and
on a CPU kept apart: there reading the keys and values of every row takes most of the time."""


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
        require_temperature(self)
        for name in ("max_new_tokens", "batch_size"):
            require(getattr(self, name) >= 1, self, name, "at least 1")
        require(all(self.stop), self, "stop", "texts of at least one character")


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


def check_context(requests: Sequence[SampleRequest], max_new_tokens: int, model: Policy) -> None:
    """Refuse prompts that are empty, or do not fit into the model's context together with max_new_tokens."""
    if empty := [request.problem_id for request in requests if not request.prompt_ids]:
        raise UserError(f"problem {empty[0]}: its prompt is empty, so there is nothing that a model could continue")
    context = context_of(model.config)
    longest = max(requests, key=lambda r: len(r.prompt_ids))
    if context is not None and len(longest.prompt_ids) + max_new_tokens > context:
        raise UserError(
            f"problem {longest.problem_id}: its prompt of {len(longest.prompt_ids)} tokens plus max_new_tokens "
            f"{max_new_tokens} exceeds the model's context of {context}; drop it or lower --max-new-tokens "
            "(in a recipe --set train.max_new_tokens=N evaluation.max_new_tokens=N)"
        )


def end_token_ids(model: Policy, tokenizer: Any) -> list[int]:
    """Ids that end a response: the tokenizer's and the generation config's end tokens."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    ends = ends if isinstance(ends, list) else [ends]
    return sorted({i for i in (*ends, tokenizer.eos_token_id) if i is not None})


@dataclass(frozen=True)
class TransformersSampler:
    """Draws responses with a transformers causal LM on the model's own device."""

    model: Policy
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

    def __init__(self, model: Policy, tokenizer: Any) -> None:
        self.source = model
        self.inner = TransformersSampler(half_copy(model), tokenizer)

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


def half_copy(model: Policy) -> Any:
    """A bfloat16 copy, made weight by weight: at no moment is there a second float32 model.

    Buffers stay as they are: the frequencies of rotary positions lose too much in bfloat16.
    """
    halves = {id(p): nn.Parameter(p.detach().to(torch.bfloat16), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, dict[int, Any](halves))


class _Batch:
    """Rows drawn side by side. Finished rows leave; each prompt is prefilled once, and a common start is kept once."""

    def __init__(
        self, model: Policy, tokenizer: Any, requests: Sequence[SampleRequest], settings: SamplingSettings
    ) -> None:
        self.model, self.tokenizer, self.requests, self.settings = model, tokenizer, requests, settings
        self.device = model.device
        self.keys = torch.tensor([r.seed for r in requests], dtype=torch.int64).to(self.device)
        self.ends = torch.tensor(end_token_ids(model, tokenizer)).to(self.device)
        self.tokens = torch.zeros(len(requests), settings.max_new_tokens, dtype=torch.int64, device=self.device)
        self.log_probs = torch.zeros(len(requests), settings.max_new_tokens, device=self.device)
        self.lengths = torch.full((len(requests),), settings.max_new_tokens, device=self.device)
        self.stopped = torch.zeros(len(requests), dtype=torch.bool, device=self.device)

    @torch.inference_mode()
    def run(self) -> list[Rollout]:
        logits, cache, mask, positions, common = self._prefill()
        rows, width = torch.arange(len(self.requests), device=self.device), mask.shape[1]
        mask = nn.functional.pad(mask, (0, self.settings.max_new_tokens), value=True)
        apart = 0 if common is None else len(common)
        starts = torch.tensor([len(r.prompt_ids) - apart for r in self.requests])  # on the host, for the rows left
        every, looked, last = of_device(LOOK_EVERY, self.device.type), 0, self.settings.max_new_tokens
        for step in range(last):
            chosen = self._draw(logits, rows, step)
            self._note_ends(rows, chosen, step)
            if step + 1 == last or (step + 1) % every == 0:
                live = self._look(rows, looked, step)
                looked = step + 1
                if not live.any() or looked == last:
                    break
                if int(live.sum()) <= 0.8 * len(rows):
                    keep = live.nonzero()[:, 0]
                    starts, keep = starts[keep], keep.to(self.device)
                    cache.batch_select_indices(keep)
                    rows, mask, positions, chosen = rows[keep], mask[keep], positions[keep], chosen[keep]
            is_padded = int(starts.min()) < width
            logits = self.model(
                input_ids=chosen[:, None],
                attention_mask=mask[:, None, None, : width + step + 1] if is_padded else None,
                position_ids=positions[:, None] + step,
                past_key_values=cache,
                use_cache=True,
                **({} if common is None else {"common": common}),
            ).logits[:, -1]
        return self._rollouts()

    def _prefill(self) -> tuple[Tensor, Any, Tensor, Tensor, CommonStart | None]:
        """Logits, cache, mask [B, P] bool and next position [B] after the prompts, and their start where it is apart.

        One row per distinct prompt, their common start only once. Where that is kept apart, cache and mask are of what
        follows it.
        """
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
        ids = torch.tensor([(0,) * (shared + width - len(p)) + p[shared:] for p in prompts]).to(self.device)
        sizes = torch.tensor([len(p) for p in prompts])[:, None]
        place = torch.arange(shared + width)
        mask = ((place < shared) | (place >= shared + shared + width - sizes)).to(self.device)
        logits = self.model(
            input_ids=ids,
            attention_mask=mask.long(),
            position_ids=(mask.cumsum(dim=1) - 1).clamp(min=0)[:, shared:],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        of_row = torch.tensor([prompts[r.prompt_ids] for r in self.requests]).to(self.device)
        common = None
        if shared and self.device.type == "cpu" and can_keep_a_start_apart(self.model.config):
            use_packed_attention(self.model.base_model)
            common, mask = cut_common_start(cache, shared), mask[:, shared:]
        cache.batch_select_indices(of_row)
        return logits[of_row], cache, mask[of_row], sizes[:, 0].to(self.device)[of_row], common

    def _draw(self, logits: Tensor, rows: Tensor, step: int) -> Tensor:
        """The next token of each row: argmax(log p + Gumbel noise), an exact draw from p."""
        at_once = max(1, of_device(DRAWN_AT_ONCE, self.device.type) // logits.shape[-1])
        parts = zip(logits.split(at_once), self.keys[rows].split(at_once), strict=True)
        drawn = [self._drawn(part, keys, step) for part, keys in parts]
        chosen, log_probs = (torch.cat(column) for column in zip(*drawn, strict=True))
        self.tokens[rows, step] = chosen
        self.log_probs[rows, step] = log_probs
        return chosen

    def _drawn(self, logits: Tensor, keys: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The next token of some rows and its log-prob."""
        scores = logits.float()
        if self.settings.temperature not in (0, 1):
            scores = scores / self.settings.temperature
        log_probs = scores - torch.logsumexp(scores, dim=-1, keepdim=True)
        if self.settings.temperature > 0:
            noise = gumbel_noise(keys, torch.full_like(keys, step), log_probs.shape[-1])
            chosen = noise.add_(log_probs).argmax(dim=-1)
        else:
            chosen = log_probs.argmax(dim=-1)
        return chosen, log_probs.gather(1, chosen[:, None])[:, 0]

    def _note_ends(self, rows: Tensor, chosen: Tensor, step: int) -> None:
        """Which rows drew an end token at this step, kept on the device."""
        stopped = self.stopped[rows]
        ended = torch.isin(chosen, self.ends) & ~stopped
        self.lengths[rows] = torch.where(ended, step + 1, self.lengths[rows])
        self.stopped[rows] = stopped | ended

    def _look(self, rows: Tensor, first: int, last: int) -> Tensor:
        """Which rows go on after the steps `first` to `last`, on the host; looks for stop texts among their tokens."""
        if self.settings.stop:
            self._note_stop_texts(rows, first, last)
        return ~self.stopped[rows].cpu()

    def _note_stop_texts(self, rows: Tensor, first: int, last: int) -> None:
        """End the rows at whose steps `first` to `last` a stop text appeared, each at the first such step."""
        begin = max(0, first + 1 - STOP_WINDOW)
        tail, lengths = self.tokens[rows, begin : last + 1].tolist(), self.lengths[rows].tolist()
        hits = self._has_stop([ids[: max(0, n - begin)] for ids, n in zip(tail, lengths, strict=True)])
        for i, ids in enumerate(tail):
            steps = range(first, min(last + 1, lengths[i])) if hits[i] else ()
            windows = [ids[max(0, step + 1 - STOP_WINDOW - begin) : step + 1 - begin] for step in steps]
            found = [step for step, hit in zip(steps, self._has_stop(windows), strict=True) if hit]
            hits[i] = bool(found)
            lengths[i] = found[0] + 1 if found else lengths[i]
        self.lengths[rows] = torch.tensor(lengths).to(self.device)
        self.stopped[rows] = self.stopped[rows] | torch.tensor(hits).to(self.device)

    def _has_stop(self, windows: Sequence[Sequence[int]]) -> list[bool]:
        """Which of these tokens' texts hold a stop text."""
        texts = self.tokenizer.batch_decode(windows, skip_special_tokens=True) if windows else []
        return [any(stop in text for stop in self.settings.stop) for text in texts]

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
