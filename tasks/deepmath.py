"""DeepMath: hard problems from high school to graduate level, checked against benchmarks by its authors; training only.

Source: arXiv 2504.11456; zwhe99/DeepMath-103K on the hub (MIT) at `REVISION`, 103,022 rows. With a data folder:
`deepmath_5k/train.jsonl`, 4,994 rows of it. The two are not the same training set; the data digest of a result tells
which one it was, and so do the ids (`deepmath_103k/...` and `deepmath/...`).

Flaws: six problems of the folder stand there twice, with equal answers; they are kept. Some answers are words (Yes,
No).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suite.types import Problem
from tasks.data_sheet import Copy, Hub, Sheet
from tasks.text import tidy

NAME = "deepmath"
VERSION = "1"
REVISION = "5cf055d1fe3d7a2eb19719ac020211469736ae44"


def from_hub(row: Mapping[str, Any], place: str) -> Problem:
    """A hub row (`question`, `final_answer`) as a problem; its id is its number."""
    problem_id = f"deepmath_103k/{place.rpartition('/')[2]}"
    return Problem(problem_id, tidy(row["question"]), tidy(str(row["final_answer"])), NAME, VERSION)


SHEET = Sheet(
    name=NAME,
    version=VERSION,
    source="arXiv 2504.11456",
    licence="MIT",
    flaws="six problems twice, kept; the folder holds 4,994 of the hub's 103,022",
    files={
        "train": Copy(
            ("deepmath_5k/train.jsonl",), 4994, "1e36e4e33687e9da146bde7d0f79edb75c83ae641100aa6b214bc64c1d9be77c"
        )
    },
    hub=Hub(
        dataset="zwhe99/DeepMath-103K",
        revision=REVISION,
        splits={"train": Copy(("train",), 103022, None)},
        columns=("question", "final_answer"),
        problem=from_hub,
    ),
)
TASK = SHEET.boxed_task(max_new_tokens=1024)
