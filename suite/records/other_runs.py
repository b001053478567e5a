"""Recordings of other trainers' runs: what their losses read of every response, as update logs in a bank.

A trainer's plug-in hands over each micro-batch as its loss saw it; a bank gets one file a rollout. Nothing is computed
again and no gradient is kept. On disk a row takes BYTES_A_TOKEN for every response token and BYTES_A_ROW beside them;
a file has about a kilobyte more, and each of its prompts' names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from suite.records.bank import Bank, PendingFile
from suite.records.provenance import machine, versions
from suite.records.update_log import DTYPES, TEXT_COLUMNS, TOKEN_COLUMNS, UpdateLog
from suite.types import UserError

BYTES_A_TOKEN = 4 * len(TOKEN_COLUMNS)
BYTES_A_ROW = sum(np.dtype(dtype).itemsize for dtype in DTYPES.values()) + 8 * len(TEXT_COLUMNS)
ADVANTAGES = "the trainer's own, one a response"
UNKNOWN_POLICY = "not recorded"
"""In the place of the digest of the policy that drew the responses."""


@dataclass(frozen=True)
class SeenRows:
    """What a loss read of one micro-batch of N responses, padded to T tokens.

    log_probs and old_log_probs [N, T] in nats, without gradient; mask [N, T], True (or 1) = counts; advantages [N], or
    [N, T] if they are equal within a response; rewards and truncated [N]; prompts [N], numbers that `numbered` made.
    `update` counts the optimizer steps of the rollout before this one.
    """

    update: int
    log_probs: Tensor
    old_log_probs: Tensor
    mask: Tensor
    advantages: Tensor
    rewards: Tensor
    truncated: Tensor
    prompts: Tensor


def log_of(rows: Sequence[SeenRows], seed: int, step: int) -> UpdateLog:
    """The micro-batches of one rollout as an update log, in the order in which the loss saw them.

    A response without a counted token teaches nothing and has no row. UserError for advantages that differ within a
    response, and where no response has a token.
    """
    columns: dict[str, list[np.ndarray]] = {}
    for seen in rows:
        mask = seen.mask.bool().cpu()
        lengths = mask.sum(dim=1)
        kept = lengths > 0
        found = {
            "problem_ids": np.array([f"{number:016x}" for number in seen.prompts.cpu()[kept].tolist()], dtype=np.str_),
            "update": np.full(int(kept.sum()), seen.update),
            "reward": seen.rewards.cpu()[kept].numpy(),
            "advantage": _one_each(seen.advantages.detach().float().cpu(), mask)[kept].numpy(),
            "truncated": seen.truncated.cpu()[kept].numpy(),
            "lengths": lengths[kept].numpy(),
            "log_probs": seen.log_probs.detach().float().cpu()[mask].numpy(),
            "old_log_probs": seen.old_log_probs.detach().float().cpu()[mask].numpy(),
        }
        for name, column in found.items():
            columns.setdefault(name, []).append(column)
    if not sum(map(len, columns.get("lengths", []))):
        raise UserError(f"recording step {step}: no response has a token that counts; look at the trainer's masks")
    joined: dict[str, Any] = {name: np.concatenate(parts) for name, parts in columns.items()}
    return UpdateLog(seed=np.array(seed), step=np.array(step), **joined)


def _one_each(advantages: Tensor, mask: Tensor) -> Tensor:
    """The advantage of every response, [N]."""
    if advantages.dim() == 1:
        return advantages
    first = advantages.expand(mask.shape).gather(1, mask.int().argmax(dim=1, keepdim=True))
    if not bool(((advantages == first) | ~mask).all()):
        raise UserError(
            "recording: advantages differ within a response, and a bank holds one a response; record a run whose "
            "advantages are a response's, such as those of GRPO or RLOO"
        )
    return first[:, 0]


def numbered(tokens: Tensor, mask: Tensor) -> Tensor:
    """A number for every row of a padded tensor, [N] int64: 63 bits of the sha256 of what its mask counts."""
    rows = zip(tokens.detach().cpu(), mask.bool().cpu(), strict=True)
    found = [hashlib.sha256(row[kept].numpy().tobytes()).digest() for row, kept in rows]
    return torch.tensor([int.from_bytes(digest[:8], "big") >> 1 for digest in found], dtype=torch.int64)


def facts_of(
    trainer: tuple[str, str, str], loss: str, settings: Mapping[str, Any], unknown: Iterable[str], **more: Any
) -> dict[str, Any]:
    """What a bank says of another trainer's recording.

    trainer: library, version and name; unknown: phrases on what the records cannot tell.
    """
    return {
        "trainer": dict(zip(("library", "version", "name"), trainer, strict=True)),
        "loss": loss,
        "settings": dict(settings),
        "advantages": ADVANTAGES,
        "unknown": list(unknown),
        **more,
        "environment": {**versions(), **machine()},
    }


def refuse_recorded(folder: Path, name: str) -> None:
    """UserError where the folder holds something that is no bank, or a recording of this name."""
    if name in Bank.open_or_new(folder).recordings:
        raise UserError(f"{folder}: holds the recording {name} already; choose another folder or name")


@dataclass
class OwnRun:
    """One process's recording on its way into a bank: rows are kept until their rollout is complete, then written.

    UserError where the folder holds something else, or a recording of this name.
    """

    folder: Path
    name: str
    seed: int
    facts: Mapping[str, Any]
    step: int = 0
    rows: list[SeenRows] = field(default_factory=list)

    def __post_init__(self) -> None:
        refuse_recorded(self.folder, self.name)

    def write(self) -> None:
        """Add the rollout that is kept to the bank; nothing where no row is."""
        if not self.rows:
            return
        log = log_of(self.rows, self.seed, self.step)
        data = b"".join(log.parts())
        file = PendingFile("updates", data, self.seed, self.step, len(log), UNKNOWN_POLICY)
        Bank(self.folder, {}, ()).extend(self.name, self.facts, [file])
        self.rows.clear()


def trainer_of(facts: Mapping[str, Any]) -> str | None:
    """The other trainer that a recording comes from, such as `trl 1.16.0 GRPOTrainer`; None for the suite's own.

    >>> trainer_of({"trainer": {"name": "GRPOTrainer", "library": "trl", "version": "1.16.0"}})
    'trl 1.16.0 GRPOTrainer'
    """
    found = facts.get("trainer")
    return None if found is None else f"{found['library']} {found['version']} {found['name']}"
