"""SVAMP: 1,000 word problems of one or two steps whose wording was varied so that shallow patterns fail.

The set has no split of its own. Ours: in the order of its numbers (`chal-1` to `chal-1000`), the first 700 are "train",
the last 300 "eval". The hub copy has another 700/300 split; we join its halves and split them by number, so that a
split has the same numbers from the hub and from a data folder. Scores are therefore not those of the hub's test half.

Source: arXiv 2103.07191; ChilleD/SVAMP on the hub (MIT) at `REVISION`. With a data folder: `svamp/test.jsonl`, all of
the 1,000. The hub joins body and question in its own way: nobody has compared its texts with the folder's.

Flaws: arXiv 2502.03461 (platinum-bench) drops 35 of the 300 problems that it checked, as unclear or wrong. All are
kept here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from suite.types import Problem, UserError
from tasks.data_sheet import Copy, Hub, Sheet
from tasks.prompts import ONE_STEP, STOP, few_shot

NAME = "svamp"
VERSION = "1"
REVISION = "5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef"
PROBLEMS = 1000
TRAIN_PROBLEMS = 700


def from_hub(row: Mapping[str, Any], place: str) -> Problem:
    """A hub row (`ID`, `Body`, `Question`, `Answer` such as "145" or "145.0") as a problem."""
    body = row["Body"].strip()
    body += "" if body.endswith((".", "?", "!", ",")) else "."
    gold = str(row["Answer"]).strip().removesuffix(".0")
    return Problem(f"{NAME}/{row['ID']}", f"{body} {row['Question'].strip()}", gold, NAME, VERSION)


def half(split: str, problems: Sequence[Problem]) -> list[Problem]:
    """The problems of our split; UserError unless they are chal-1 to chal-1000, once each."""
    numbers = [re.fullmatch(rf"{NAME}/chal-([0-9]+)", problem.id) for problem in problems]
    found = {int(number[1]): problem for number, problem in zip(numbers, problems, strict=True) if number}
    if set(found) != set(range(1, PROBLEMS + 1)):
        raise UserError(
            f"task {NAME}: the ids are not svamp/chal-1 to svamp/chal-{PROBLEMS}, once each; "
            "get the whole set, its split goes by these numbers"
        )
    ordered = [found[number] for number in sorted(found)]
    return ordered[:TRAIN_PROBLEMS] if split == "train" else ordered[TRAIN_PROBLEMS:]


FOLDER = Copy(("svamp/test.jsonl",), PROBLEMS, "77910556b193a93c4f696889b3fae8d8a31893173d5b0f6f97be9e1b941290ed")
HALVES = Copy(("train", "test"), PROBLEMS, None)
SHEET = Sheet(
    name=NAME,
    version=VERSION,
    source="arXiv 2103.07191, our split by number",
    licence="MIT",
    flaws="no split of its own; unclear or wrong problems (arXiv 2502.03461), kept",
    files={"train": FOLDER, "eval": FOLDER},
    hub=Hub(
        dataset="ChilleD/SVAMP",
        revision=REVISION,
        splits={"train": HALVES, "eval": HALVES},
        columns=("ID", "Body", "Question", "Answer"),
        problem=from_hub,
    ),
    usable=half,
)
TASK = SHEET.task(
    render=lambda problem: few_shot(ONE_STEP, problem.prompt),
    question=lambda problem: problem.prompt,
    stop=STOP,
    max_new_tokens=128,
)
