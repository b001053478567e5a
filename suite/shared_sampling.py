"""Sampling by all processes of a run: the leading one asks, each draws its share with its own copy of the weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from suite.ranks import Ranks
from suite.sampling import Sampler, SampleRequest, SamplingSettings
from suite.types import FinishReason, Rollout

DONE = b""
FINE, NO_MEMORY, FAILED = range(3)


class SharedSampler:
    """A sampler for the leading process; the others `serve` it. A text does not depend on who draws it.

    Neighbours stay together, so that a prompt is prefilled by one process alone.
    """

    def __init__(self, inner: Sampler, ranks: Ranks) -> None:
        self.inner, self.ranks = inner, ranks

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
        """As the inner sampler, told of when all is done. Only for the leading process, inside `led`.

        Raises torch.OutOfMemoryError, or RuntimeError, where any of the processes did: then none has a result.
        """
        if not requests:
            return []
        asked = [[r.problem_id, r.sample_index, r.seed, r.prompt_ids] for r in requests]
        self.ranks.tell(json.dumps({"requests": asked, "settings": asdict(settings)}).encode())
        rollouts = self._drawn(requests, settings)
        if on_progress is not None:
            on_progress(len(rollouts))
        return rollouts

    def serve(self) -> None:
        """Draw what the leading process asks for, until it is done."""
        while (message := self.ranks.tell(None)) != DONE:
            asked = json.loads(message)
            requests = [SampleRequest(p, s, seed, tuple(ids)) for p, s, seed, ids in asked["requests"]]
            settings = SamplingSettings(**{**asked["settings"], "stop": tuple(asked["settings"]["stop"])})
            try:
                self._drawn(requests, settings)
            except RuntimeError as error:
                print(f"process {self.ranks.rank}: {error}", flush=True)  # the leading one decides what follows

    def dismiss(self) -> None:
        """Let the others go on."""
        self.ranks.tell(DONE)

    def _drawn(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> list[Rollout]:
        """All rollouts, in every process."""
        rank, count = self.ranks.rank, self.ranks.count
        ends = [len(requests) * i // count for i in range(count + 1)]
        own: list[Rollout] = []
        problem = None
        try:
            own = self.inner.sample(requests[ends[rank] : ends[rank + 1]], settings)
        except RuntimeError as error:
            problem = error
        self._tell_problem(problem)
        columns = [[] for _ in range(4)]
        for r in own:
            for column, values in zip(
                columns,
                ([len(r.response_ids)], [r.finish_reason == FinishReason.STOP], r.response_ids, r.sampler_log_probs),
                strict=True,
            ):
                column.extend(values)
        dtypes = torch.int64, torch.bool, torch.int64, torch.float64
        gathered = (self.ranks.in_turn(torch.tensor(c, dtype=d)) for c, d in zip(columns, dtypes, strict=True))
        return _rollouts(requests, *(x.tolist() for x in gathered))

    def _tell_problem(self, problem: RuntimeError | None) -> None:
        """Raise in every process where one of them failed."""
        kind = FINE if problem is None else NO_MEMORY if isinstance(problem, torch.OutOfMemoryError) else FAILED
        worst = int(self.ranks.in_turn(torch.tensor([kind])).max())
        if problem is not None:
            raise problem
        if worst == NO_MEMORY:
            raise torch.OutOfMemoryError("another process of this run was out of memory")
        if worst == FAILED:
            raise RuntimeError("another process of this run failed; its own words stand above")


def _rollouts(
    requests: Sequence[SampleRequest], lengths: Any, stopped: Any, tokens: Any, log_probs: Any
) -> list[Rollout]:
    ends = np.cumsum([0, *lengths]).tolist()
    return [
        Rollout(
            problem_id=request.problem_id,
            sample_index=request.sample_index,
            seed=request.seed,
            prompt_ids=request.prompt_ids,
            response_ids=tuple(tokens[ends[i] : ends[i + 1]]),
            sampler_log_probs=tuple(log_probs[ends[i] : ends[i + 1]]),
            finish_reason=FinishReason.STOP if stopped[i] else FinishReason.LENGTH,
        )
        for i, request in enumerate(requests)
    ]


def shared(sampler: Sampler, ranks: Ranks) -> Sampler:
    """The sampler itself for a process alone, a shared one for several."""
    return SharedSampler(sampler, ranks) if ranks.count > 1 else sampler


@contextmanager
def led(sampler: Sampler) -> Iterator[bool]:
    """Work that the leading process does (True); the others draw their share of its samples meanwhile (then False)."""
    if not isinstance(sampler, SharedSampler):
        yield True
    elif sampler.ranks.leads:
        try:
            yield True
        finally:
            sampler.dismiss()
    else:
        sampler.serve()
        yield False
