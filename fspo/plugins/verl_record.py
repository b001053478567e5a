"""Policy losses of verl that record what they read into a bank; no verl is imported here.

`fspo.plugins.verl` wraps every loss that is registered when FSPO_RECORD is set, for instance to
"bank updates=4 limit=1024 every=10": folder, optimizer steps a rollout, token limit of a response (both needed, for a
loss is told neither), and every which rollout is recorded.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from suite.types import UserError, require

if TYPE_CHECKING:
    from suite.records.other_runs import OwnRun

VARIABLE = "FSPO_RECORD"
SETTINGS = (
    "strategy",
    "clip_ratio",
    "clip_ratio_low",
    "clip_ratio_high",
    "clip_ratio_c",
    "loss_agg_mode",
    "loss_scale_factor",
    "ppo_mini_batch_size",
    "ppo_epochs",
    "rollout_n",
    "use_dynamic_bsz",
    "use_kl_loss",
    "kl_loss_coef",
    "entropy_coeff",
)
UNKNOWN = (
    "rewards (a loss reads advantages)",
    "prompts (each response counts as a problem of its own, so intervals take samples of one prompt for independent)",
    "the run's seed (written as 0)",
    "the temperature that responses were drawn at",
    "the sampler's own log-probs (old log-probs are what verl gave the loss)",
    "texts and tokens",
)


@dataclass(frozen=True)
class Asked:
    """What FSPO_RECORD asks for: folder, optimizer steps a rollout, a response's token limit, every which rollout."""

    folder: Path
    updates: int
    limit: int
    every: int = 1

    def __post_init__(self) -> None:
        for field in ("updates", "limit", "every"):
            require(getattr(self, field) >= 1, self, field, "at least 1")


def asked(text: str) -> Asked:
    """The value of FSPO_RECORD taken apart; UserError for anything else.

    >>> asked("bank updates=4 limit=1024")
    Asked(folder=PosixPath('bank'), updates=4, limit=1024, every=1)
    """
    how = (
        f"{VARIABLE}={text!r}: write it as 'FOLDER updates=N limit=N', with updates = data.train_batch_size / "
        "actor.ppo_mini_batch_size * actor.ppo_epochs and limit = data.max_response_length"
    )
    folder, *words = shlex.split(text) or [""]
    numbers = {name: number for name, _, number in (word.partition("=") for word in words)}
    if not folder or not {"updates", "limit"} <= numbers.keys() <= {"updates", "limit", "every"}:
        raise UserError(how)
    if not all(number.isdecimal() for number in numbers.values()):
        raise UserError(how)
    return Asked(Path(folder), **{name: int(number) for name, number in numbers.items()})


class RecordedLosses:
    """Wraps losses: calls in training are recorded, then answered by the loss as ever.

    A row's `update` counts the optimizer steps of its rollout that this process has finished: one is over when the
    process has seen its share of `global_batch_size`, in however many micro-batches. A rollout that is not complete
    when the process ends is not written.
    """

    def __init__(self, given: Asked) -> None:
        self.asked = given
        self.run: OwnRun | None = None
        self.finished = self.rows = 0

    def wrap_all(self, registry: MutableMapping[str, Callable[..., Any]]) -> None:
        """Replace every loss of verl's registry by one that records."""
        registry.update({name: self.wrapped(name, loss) for name, loss in registry.items()})

    def wrapped(self, name: str, loss: Callable[..., Any]) -> Callable[..., Any]:
        """The loss under its name, recording; called as verl calls it."""

        @wraps(loss)
        def recording(
            old_log_prob: Tensor,
            log_prob: Tensor,
            advantages: Tensor,
            response_mask: Tensor,
            loss_agg_mode: str = "token-mean",
            config: Any = None,
            **rest: Any,
        ) -> Any:
            if log_prob.requires_grad:
                self.see(name, old_log_prob, log_prob, advantages, response_mask, config)
            return loss(
                old_log_prob=old_log_prob,
                log_prob=log_prob,
                advantages=advantages,
                response_mask=response_mask,
                loss_agg_mode=loss_agg_mode,
                config=config,
                **rest,
            )

        return recording

    def see(self, name: str, old: Tensor, new: Tensor, advantages: Tensor, mask: Tensor, config: Any) -> None:
        """Keep a micro-batch [N, T]; at the end of its rollout's last optimizer step, write the rollout."""
        from suite.records.other_runs import OwnRun, SeenRows, numbered

        share = own_share(getattr(config, "global_batch_info", {}))
        if self.run is None:
            name, seed, facts = self._about(name, config)
            self.run = OwnRun(self.asked.folder, name, seed, facts)
        step, update = divmod(self.finished, self.asked.updates)
        self.run.step = step
        if step % self.asked.every == 0:
            lengths = mask.sum(dim=1)
            rewards = torch.full((len(new),), torch.nan)
            # A response keeps its old log-probs in every epoch, so that they name it.
            seen = (new.detach(), old, mask, advantages, rewards, lengths >= self.asked.limit, numbered(old, mask))
            self.run.rows.append(SeenRows(update, *seen))
        self.rows += len(new)
        if self.rows > share:
            raise UserError(f"{VARIABLE}: {self.rows} responses in an optimizer step of {share}; record without it")
        if self.rows == share:
            self.rows, self.finished = 0, self.finished + 1
            if update == self.asked.updates - 1:
                self.run.write()

    def _about(self, loss: str, config: Any) -> tuple[str, int, dict[str, Any]]:
        """Name, seed and facts of this process's recording."""
        from suite.records.other_runs import facts_of

        rank, processes = place()
        facts = facts_of(
            ("verl", installed("verl"), "policy loss"),
            loss,
            {name: getattr(config, name) for name in SETTINGS if hasattr(config, name)},
            UNKNOWN,
            updates=self.asked.updates,
            limit=self.asked.limit,
            every=self.asked.every,
            process=rank,
            processes=processes,
            command=[],
        )
        return f"verl-{loss}" + (f"-rank{rank}" if processes > 1 else ""), 0, facts


def own_share(info: Any) -> int:
    """How many of an optimizer step's responses this process sees, of verl's counts of the whole step.

    UserError where verl gives none, and where several processes see the same responses.
    """
    whole, parts = info.get("global_batch_size"), info.get("dp_size") or 1
    if whole is None or whole % parts:
        raise UserError(f"{VARIABLE}: global_batch_size is {whole} over {parts} processes; record without it")
    if place()[1] != parts:
        raise UserError(
            f"{VARIABLE}: {place()[1]} processes share {parts} parts of the data; record a run without sequence, "
            "tensor or pipeline parallelism, where each would write the same responses"
        )
    return int(whole) // int(parts)


def place() -> tuple[int, int]:
    """(rank, number of processes) of torch.distributed; (0, 1) without it."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def installed(package: str) -> str:
    """A package's version, or `unknown`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
