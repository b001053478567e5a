"""Where the seconds of a training step go: model forward, backward, optimizer and decoding by name, the rest beside."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from suite.policy import scoring
from suite.policy.sampling import Sampler, SampleRequest, SamplingSettings
from suite.types import Rollout

FORWARD, BACKWARD, OPTIMIZER, CLIPPING, DECODING = "forward", "backward", "optimizer", "gradient norm", "decoding"
INSIDE_DECODING = f"{DECODING}: {FORWARD}"
WORK = (FORWARD, BACKWARD, OPTIMIZER, CLIPPING, DECODING)
"""What a step cannot do without. The cut of the gradient's norm belongs to the optimizer, and has its own line."""


@dataclass
class Stopwatch:
    """Seconds by name. A section inside another one adds nothing to the sum: it is kept as `OUTER: INNER`."""

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _open: list[tuple[str, float]] = field(default_factory=list)

    def start(self, name: str) -> None:
        """Open a section; work that a GPU still does belongs to what came before."""
        _wait()
        outer = [opened for opened, _ in self._open]
        self._open.append((": ".join([*outer, name]), time.perf_counter()))

    def stop(self) -> None:
        """Close the section opened last."""
        _wait()
        name, began = self._open.pop()
        self.seconds[name] += time.perf_counter() - began

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """A section as long as the block."""
        self.start(name)
        try:
            yield
        finally:
            self.stop()

    def around(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, every call of it a section."""

        def called(*given: Any, **named: Any) -> Any:
            with self.section(name):
                return function(*given, **named)

        return called


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class WatchedSampler:
    """A sampler whose calls are the section `decoding`."""

    inner: Sampler
    watch: Stopwatch

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
        """As the inner sampler."""
        with self.watch.section(DECODING):
            return self.inner.sample(requests, settings, on_progress)


@contextmanager
def watched(watch: Stopwatch, model: Any) -> Iterator[None]:
    """Time the work of a model in the block: its body and the log-prob op, backward passes, optimizers, the norm's cut.

    Decoding is timed where a WatchedSampler draws. Methods with a critic are not for this: their copy would copy it.
    """
    norm = torch.nn.utils.clip_grad_norm_
    with ExitStack() as stack:
        for owner, attribute, name, function in (
            (model.base_model, "forward", FORWARD, model.base_model.forward),
            (scoring, "log_probs_of", FORWARD, scoring.log_probs_of),
            (Tensor, "backward", BACKWARD, Tensor.backward),
            (torch.nn.utils, "clip_grad_norm_", CLIPPING, norm),
        ):
            stack.enter_context(patch.object(owner, attribute, watch.around(name, function)))
        before = register_optimizer_step_pre_hook(lambda *given: watch.start(OPTIMIZER))
        stack.callback(before.remove)
        after = register_optimizer_step_post_hook(lambda *given: watch.stop())
        stack.callback(after.remove)
        yield


def overhead(watch: Stopwatch, total: float) -> float:
    """The share of `total` seconds that is none of WORK, in [0, 1]."""
    return 1 - sum(watch.seconds[name] for name in WORK) / total
