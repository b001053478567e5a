"""Rewards of the user's own: a function `module:NAME` that judges the responses to problems of the user's own.

    reward(text, problem) -> number or Verdict

text: the response up to where it ends; problem: `suite.types.Problem` with `prompt`, `gold` and perhaps `solution`.
A number may be partial credit: training learns from it, and a response is right, for accuracies, from FULL on. A
Verdict is 1 for CORRECT and 0 for the others.

Source: ours.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

from suite.methods.from_outside import find_modules_here, imported, said_in
from suite.records.files import digest_of
from suite.types import Problem, Task, UserError, Verdict, kind_of, reward_of

FULL = 1.0
"""The reward from which on a response counts as right."""
LARGEST = 1e6
"""No reward is further from 0: rewards are kept and summed in float32."""


@dataclass(frozen=True)
class OwnReward:
    """A reward by its name. `digest`: the first 12 hex digits of the sha256 of its module's source."""

    reference: str
    function: Callable[[str, Problem], Any]
    digest: str

    def of(self, text: str, problem: Problem) -> tuple[Verdict, float]:
        """Verdict and reward of a response. UserError, which names reward and problem, where there is none."""
        try:
            return _judged(self.function(text, problem))
        except (Exception, SystemExit) as error:  # a function of somebody's own may raise anything
            raise UserError(
                f"reward {self.reference}, problem {problem.id!r} of {problem.task}: "
                f"{said_in(error, self.reference.partition(':')[0])}; fspo method check-reward finds out more"
            ) from error

    def score(self, pairs: Sequence[tuple[str, Problem]]) -> list[tuple[Verdict, float]]:
        """Verdict and reward of each (response text, problem), as `Task.score` wants them."""
        return [self.of(text, problem) for text, problem in pairs]


def _judged(value: Any) -> tuple[Verdict, float]:
    if isinstance(value, Verdict):
        return value, float(value == Verdict.CORRECT)
    if not isinstance(value, Real):
        raise TypeError(f"returned {type(value).__name__}, neither a number nor a suite.types.Verdict")
    number = float(value)  # pyright: ignore[reportArgumentType]
    if not math.isfinite(number) or abs(number) > LARGEST:
        raise ValueError(f"returned {number}, no finite number from {-LARGEST:g} to {LARGEST:g}")
    return Verdict.CORRECT if number >= FULL else Verdict.WRONG, number


def own_reward(reference: str) -> OwnReward:
    """The reward that `package.module:NAME` names; modules of the current folder are found.

    UserError where it does not load, is no function, or has no source that its digest could be taken of.
    """
    find_modules_here()
    what = f"reward {reference}"
    function = imported(reference, what)
    if not callable(function):
        raise UserError(f"{what} is {kind_of(function)}, not a function of a text and a problem")
    try:
        source = inspect.getsource(sys.modules[reference.partition(":")[0]])
    except (OSError, TypeError) as error:
        raise UserError(f"{what}: its module has no source file, of which results keep the digest ({error})") from error
    return OwnReward(reference, function, digest_of([reference, source])[:12])


def judged_by(task: Task, reward: OwnReward) -> Task:
    """The task with that reward in the place of its grader, which stays as a second opinion of evaluations."""
    return replace(
        task,
        score=reward.score,
        grade=lambda pairs: [verdict for verdict, _ in reward.score(pairs)],
        panel={"suite": task.grade, **task.panel},
        grader=f"own reward {reward.reference}, {reward.digest}",
    )


def reward_digests(names: Iterable[str]) -> dict[str, str]:
    """The digest of every reward of the user's own that tasks' names ask for, by MODULE:NAME."""
    rewards = dict.fromkeys(reward for name in names if (reward := reward_of(name)))
    return {reward: own_reward(reward).digest for reward in rewards}
