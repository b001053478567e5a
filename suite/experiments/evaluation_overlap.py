"""Training problems that also stand in an evaluation set of the comparison: found, counted, left out or refused."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from suite.config import CompareConfig
from suite.experiments.names import GENERATED_TASKS, tasks_named
from suite.types import Problem, UserError

if TYPE_CHECKING:
    from tasks.overlap import Overlap


def refuse_overlap(config: CompareConfig) -> None:
    """Raise UserError where `train.overlap` is "refuse" and a training problem stands in an evaluation set."""
    found = overlaps_of(config)
    if found and config.train.overlap == "refuse":
        first = f"{found[0].train.id} and {found[0].evaluation.id} are alike"
        raise UserError(
            f"train.overlap = 'refuse': {'; '.join(overlap_lines(config))} (for instance {first}); "
            "take a set out, or leave those problems out with --set train.overlap=exclude"
        )


@functools.cache
def overlaps_of(config: CompareConfig) -> tuple[Overlap, ...]:
    """Training problems that also stand in an evaluation set, whole sets compared, whatever `evaluation.limit` is.

    The generated tasks are left out of the search: their splits are disjoint, and short terms all look alike.
    """
    from tasks.overlap import overlaps

    def problems(names: Sequence[str], split: str) -> list[Problem]:
        written = [task for task in tasks_named(names) if task.name not in GENERATED_TASKS]
        return [problem for task in written for problem in task.load(split, config.train.data_dir)]

    training = problems(config.train.tasks, "train")
    return tuple(overlaps(training, problems(config.evaluation.tasks, "eval"))) if training else ()


def left_out(config: CompareConfig) -> dict[str, dict[str, int]]:
    """Training problems that are left out, by pair of sets: `"set / evaluation set"` to counts, exact and near."""
    from tasks.overlap import counts

    return counts(overlaps_of(config))


def overlap_lines(config: CompareConfig) -> list[str]:
    """One line for every pair of sets that overlap."""
    return [
        f"{count['exact'] + count['near']} training problems of {pair.partition(' / ')[0]} stand in the evaluation set "
        f"{pair.partition(' / ')[2]} ({count['exact']} word for word, {count['near']} nearly)"
        for pair, count in left_out(config).items()
    ]
