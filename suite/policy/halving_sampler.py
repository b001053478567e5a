"""A sampler that asks for less side by side when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch

from suite.policy.sampling import Sampler, SampleRequest, SamplingSettings, awake
from suite.types import Rollout, UserError

NO_CPU_MEMORY = "DefaultCPUAllocator: can't allocate memory"


def out_of_memory(error: Exception) -> bool:
    """Whether a device, or torch's allocator on a CPU, had no memory left. A kill by the system is no exception."""
    return isinstance(error, torch.OutOfMemoryError) or NO_CPU_MEMORY in str(error)


@dataclass
class FrugalSampler:
    """Halves the batch each time memory runs out, says so in a line, and keeps the smaller batch from then on.

    `batch_size` is the batch that it came down to, None while memory has sufficed. In float32 on a CPU the texts of the
    in-process sampler stay what they would have been: there they do not depend on the batch.
    """

    inner: Sampler
    say: Callable[[str], None]
    batch_size: int | None = None

    @property
    def engine(self) -> str:
        """Name, version and precision of what draws."""
        return self.inner.engine

    def awake(self) -> AbstractContextManager[None]:
        """As the inner sampler's."""
        return awake(self.inner)

    def sample(
        self,
        requests: Sequence[SampleRequest],
        settings: SamplingSettings,
        on_progress: Callable[[int], None] | None = None,
    ) -> list[Rollout]:
        """As the inner sampler, told of when all is done. UserError where not even one response fits into memory."""
        while True:
            most = min(settings.batch_size, self.batch_size or settings.batch_size, max(1, len(requests)))
            drawn = self._try(requests, replace(settings, batch_size=most))
            if drawn is not None:
                if on_progress is not None:
                    on_progress(len(drawn))
                return drawn
            # Only now is the failed attempt's memory free: an exception holds on to the frames it came through.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.batch_size = most // 2
            self.say(f"out of memory with {most} responses side by side; going on with {self.batch_size}")

    def _try(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> list[Rollout] | None:
        try:
            return self.inner.sample(requests, settings)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if settings.batch_size == 1:
                raise UserError(
                    "out of memory with a single response; lower --max-new-tokens, or take a smaller model or precision"
                ) from error
            return None
