"""Methods and rewards of modules of the user's own: which this process may import when a folder names them.

A results folder is data, and may come from anybody. `MODULE:NAME` in it imports nothing unless the user gave that very
name: on the command line, in a recipe, or to `allow`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from suite.types import UserError, reward_of

_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_allowed: set[str] = set()


def references_in(texts: Iterable[str]) -> set[str]:
    """Every MODULE:NAME among words, lists with commas between, settings, and tasks with a reward behind an @.

    >>> sorted(references_in(["--methods", "fspo,mine:LOSS", "other:LOSS.width=2", "results/runs"]))
    ['mine:LOSS', 'other:LOSS']
    >>> references_in(["train.tasks=gcd,mine.jsonl@plain@close:CLOSE"])
    {'close:CLOSE'}
    """
    words = [word.strip() for text in texts for word in text.split(",")]
    owners = [word.partition("=")[0].rpartition(".")[0] for word in words if "=" in word]
    rewards = [reward for word in words if (reward := reward_of(word))]
    return {word for word in [*words, *owners, *rewards] if _REFERENCE.fullmatch(word)}


def allow(texts: Iterable[str]) -> None:
    """Let this process import the methods and rewards that these words, lists or settings name."""
    _allowed.update(references_in(texts))


def require_allowed(names: Iterable[str], where: Path) -> None:
    """UserError where a file names a method or reward of somebody's own, with a colon, that the user has not."""
    if unknown := sorted({name for name in names if ":" in name} - _allowed):
        raise UserError(
            f"{where}: names {unknown[0]}, a module that is only imported if you say so: add --allow {unknown[0]}"
        )
