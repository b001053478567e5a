"""Responses of planned lengths from samplers that draw their tokens: both sides of a cycle then write as many.

A sampler's own end is taken from it: end tokens have no probability before a response's planned length, and there it
ends. Everything else, noise and log-probs included, is the sampler's own work.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from benchmarks.material import MIXES
from suite import sampling, vllm_sampler
from suite.sampling import Sampler, SampleRequest, SamplingSettings
from suite.types import Rollout


def planned_lengths(task: Mapping[str, Any]) -> list[int] | None:
    """A length for each response of a cycle, the same in every cycle; None for a task without a mix."""
    if task.get("mix") is None:
        return None
    lengths = MIXES[task["mix"]](task["prompts"] * task["samples"], task["mean_response"])
    random.Random(0).shuffle(lengths)
    return lengths


class PlannedSampler:
    """The suite's sampler of either engine, with response i of a call ending at lengths[i].

    Once one is made, all sampling in this process follows the plan of its last call.
    """

    def __init__(self, inner: Sampler, lengths: Sequence[int]) -> None:
        self.inner, self.lengths = inner, lengths
        self.of_seed: dict[int, int] = {}
        if isinstance(inner, sampling.TransformersSampler):
            sampling._Batch = _planned_batch(self.of_seed)
        else:
            _plan_vllm(self.of_seed)

    @property
    def engine(self) -> str:
        """The inner sampler's."""
        return self.inner.engine

    def sample(
        self,
        requests: Sequence[SampleRequest],
        settings: SamplingSettings,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Rollout]:
        """As the inner sampler, with the planned lengths."""
        self.of_seed.clear()
        self.of_seed.update((r.seed, length) for r, length in zip(requests, self.lengths, strict=True))
        return self.inner.sample(requests, settings, on_progress)


def _planned_batch(of_seed: Mapping[int, int]) -> Any:
    class PlannedBatch(sampling._Batch):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.planned = torch.tensor([of_seed[r.seed] for r in self.requests]).to(self.device)

        def _draw(self, logits: Tensor, rows: Tensor, step: int) -> Tensor:
            return super()._draw(logits.index_fill(1, self.ends, -torch.inf), rows, step)

        def _note_ends(self, rows: Tensor, chosen: Tensor, step: int) -> None:
            self.lengths[rows] = self.planned[rows]
            self.stopped[rows] = self.planned[rows] <= step + 1

    return PlannedBatch


def _plan_vllm(of_seed: Mapping[int, int]) -> None:
    plain = vllm_sampler.parameters

    def planned(settings: SamplingSettings, ends: list[int], seed: int) -> Any:
        found = plain(replace(settings, max_new_tokens=of_seed[seed]), ends, seed)
        found.min_tokens = of_seed[seed]
        return found

    vllm_sampler.parameters = planned


def end_as_planned(model: Any, lengths: Sequence[int], ends: Sequence[int]) -> None:
    """Make `model.generate` end row i with the first end token at lengths[i], and never earlier."""
    from transformers import LogitsProcessor

    generate, planned, never = model.generate, torch.tensor(lengths), torch.tensor(ends)

    class Planned(LogitsProcessor):
        def __init__(self, prompt: int) -> None:
            self.prompt = prompt

        def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # type: ignore[override]
            last = planned == input_ids.shape[1] - self.prompt + 1
            scores = scores.index_fill(1, never, -torch.inf)
            scores[last] = -torch.inf
            scores[last, ends[0]] = 0.0
            return scores

    def generate_planned(*args: Any, **options: Any) -> Any:
        return generate(*args, **options, logits_processor=[Planned(options["input_ids"].shape[1])])

    model.generate = generate_planned
