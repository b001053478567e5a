"""SVAMP: 1,000 word problems of one or two steps whose wording was varied so that shallow patterns fail.

The set has no split of its own. Ours: in the order of its numbers (`chal-1` to `chal-1000`), the first 700 are "train",
the last 300 "eval". The hub copy has another 700/300 split; we join its halves and split them by number, so that hub
and data folder give the same problems. Scores are therefore not those of the hub's test half.

Source: arXiv 2103.07191; ChilleD/SVAMP on the hub (MIT) at `REVISION`. With a data folder: `svamp/test.jsonl`, all of
the 1,000.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from suite.types import Problem, Task, UserError
from tasks.grading import grade_problems
from tasks.hub import hub_rows
from tasks.jsonl import read_problems
from tasks.prompts import ONE_STEP, STOP, few_shot

NAME = "svamp"
VERSION = "1"
HUB_ID = "ChilleD/SVAMP"
REVISION = "5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef"
PROBLEMS = 1000
TRAIN_PROBLEMS = 700


def load(split: str, data_dir: Path | None) -> list[Problem]:
    """The problems of "train" or "eval", from a data folder or from the hub."""
    if split not in ("train", "eval"):
        raise UserError(f"task {NAME}: unknown split {split!r}; choose train or eval")
    if data_dir is not None:
        where = str(data_dir / NAME / "test.jsonl")
        problems = read_problems(Path(where), NAME, VERSION)
    else:
        where = HUB_ID
        halves = [hub_rows(HUB_ID, None, half, REVISION, instead="svamp/test.jsonl") for half in ("train", "test")]
        problems = [from_hub(row) for half in halves for row in half]
    return _half(split, problems, where)


def from_hub(row: dict[str, Any]) -> Problem:
    """A hub row (`ID`, `Body`, `Question`, `Answer` such as "145" or "145.0") as a problem."""
    body = row["Body"].strip()
    body += "" if body.endswith((".", "?", "!", ",")) else "."
    gold = str(row["Answer"]).strip().removesuffix(".0")
    return Problem(f"{NAME}/{row['ID']}", f"{body} {row['Question'].strip()}", gold, NAME, VERSION)


def _half(split: str, problems: Sequence[Problem], where: str) -> list[Problem]:
    numbers = [re.fullmatch(rf"{NAME}/chal-([0-9]+)", problem.id) for problem in problems]
    found = {int(number[1]): problem for number, problem in zip(numbers, problems, strict=True) if number}
    if len(problems) != PROBLEMS or set(found) != set(range(1, PROBLEMS + 1)):
        raise UserError(
            f"{where}: the ids are not svamp/chal-1 to svamp/chal-{PROBLEMS}, once each ({len(problems)} rows); "
            "get the whole set, its split goes by these numbers"
        )
    ordered = [found[number] for number in sorted(found)]
    return ordered[:TRAIN_PROBLEMS] if split == "train" else ordered[TRAIN_PROBLEMS:]


TASK = Task(
    name=NAME,
    version=VERSION,
    source=f"{HUB_ID}@{REVISION[:7]} (MIT), arXiv 2103.07191, our split by number",
    load=load,
    render=lambda problem: few_shot(ONE_STEP, problem.prompt),
    question=lambda problem: problem.prompt,
    grade=grade_problems,
    stop=STOP,
    max_new_tokens=128,
)
