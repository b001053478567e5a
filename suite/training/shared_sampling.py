"""Sampling by all processes of a run: the leading one asks, each draws its share with its own copy of the weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from suite.policy.halving_sampler import out_of_memory
from suite.policy.ranks import Ranks, failing_together
from suite.policy.sampling import Sampler, SampleRequest, SamplingSettings, awake
from suite.types import FinishReason, Rollout

DONE = b""


class SharedSampler:
    """A sampler for the leading process; the others `serve` it.

    A request's noise is its own, whoever draws it; its text is the same, too, where the model's numbers do not depend
    on the batch: in float32 on a CPU. Neighbours stay together, so that a prompt is prefilled by one process alone.
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
        """As the inner sampler, told of when all is done. Only for the leading process, inside `leader_only`.

        What any process raises is raised in all of them, as `failing_together` says: then none has a result.
        """
        if not requests:
            return []
        self._ask(
            requests=[[r.problem_id, r.sample_index, r.seed, r.prompt_ids] for r in requests], settings=asdict(settings)
        )
        rollouts = self._drawn(requests, settings)
        if on_progress is not None:
            on_progress(len(rollouts))
        return rollouts

    @contextmanager
    def awake(self) -> Iterator[None]:
        """The engines of all processes stay ready between calls until the block ends."""
        self._ask(awake=True)
        with awake(self.inner):
            try:
                yield
            finally:
                self._ask(awake=False)

    def serve(self) -> None:
        """Draw what the leading process asks for, until it is done. Raises at the end what drawing raised.

        Only a lack of memory is not the end: the leading process may ask for less then.
        """
        failed: Exception | None = None
        with ExitStack() as stack:
            while (message := self.ranks.broadcast(None)) != DONE:
                asked = json.loads(message)
                if "awake" in asked:
                    stack.enter_context(awake(self.inner)) if asked["awake"] else stack.close()
                    continue
                requests = [SampleRequest(p, s, seed, tuple(ids)) for p, s, seed, ids in asked["requests"]]
                settings = SamplingSettings(**{**asked["settings"], "stop": tuple(asked["settings"]["stop"])})
                try:
                    self._drawn(requests, settings)
                except Exception as error:
                    print(f"process {self.ranks.rank}: {error}", flush=True)  # the leading one decides what follows
                    failed = None if out_of_memory(error) else error
        if failed is not None:
            raise failed

    def dismiss(self) -> None:
        """Let the others go on."""
        self.ranks.broadcast(DONE)

    def _ask(self, **what: Any) -> None:
        self.ranks.broadcast(json.dumps(what).encode())

    def _drawn(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> list[Rollout]:
        """All rollouts, in every process."""
        rank, count = self.ranks.rank, self.ranks.count
        ends = [len(requests) * i // count for i in range(count + 1)]
        own: list[Rollout] = []
        with failing_together(self.ranks):
            own = self.inner.sample(requests[ends[rank] : ends[rank + 1]], settings)
        columns = [[] for _ in range(4)]
        for r in own:
            for column, values in zip(
                columns,
                ([len(r.response_ids)], [r.finish_reason == FinishReason.STOP], r.response_ids, r.sampler_log_probs),
                strict=True,
            ):
                column.extend(values)
        dtypes = torch.int64, torch.bool, torch.int64, torch.float64
        gathered = (self.ranks.gather(torch.tensor(c, dtype=d)) for c, d in zip(columns, dtypes, strict=True))
        return _rollouts(requests, *(x.tolist() for x in gathered))


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


def sampler_of_ranks(sampler: Sampler, ranks: Ranks) -> Sampler:
    """The sampler itself for a process alone, a shared one for several."""
    return SharedSampler(sampler, ranks) if ranks.count > 1 else sampler


@contextmanager
def leader_only(sampler: Sampler) -> Iterator[bool]:
    """Work that the leading process does (True); the others draw their share of its samples meanwhile (then False)."""
    if not isinstance(sampler, SharedSampler):
        yield True
    elif sampler.ranks.is_leader:
        try:
            yield True
        finally:
            sampler.dismiss()
    else:
        sampler.serve()
        yield False
