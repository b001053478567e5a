"""MATH-500: 500 problems of the MATH test set, competition level, seven subjects and five levels; evaluation only.

Source: arXiv 2305.20050 (the selection), 2103.03874 (MATH); HuggingFaceH4/MATH-500 on the hub at `REVISION`, whose
file is byte for byte the one of openai/prm800k (MIT). With a data folder: `math500/test.jsonl`. Both copies give the
same problems, answers and ids. The MATH set states MIT; its own hub copy was withdrawn in January 2025 after a
takedown notice by the Art of Problem Solving, who claim the texts.

Flaws: a few gold answers end in a full stop or carry `\\text{ units}`, `\\!` or `\\%`; they are kept for the grader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suite.types import Problem
from tasks.data_sheet import Copy, Hub, Sheet
from tasks.text import tidy

NAME = "math500"
VERSION = "1"
REVISION = "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"
DIGEST = "e73affa5c53d00d6b99aa676a133e207226ce46dfa73a936c162f78d04828f0b"


def from_hub(row: Mapping[str, Any], place: str) -> Problem:
    """A hub row (`problem`, `solution`, `answer`, `unique_id` such as "test/algebra/7.json") as a problem."""
    problem_id = f"math/{row['unique_id'].removesuffix('.json')}"
    return Problem(problem_id, tidy(row["problem"]), tidy(row["answer"]), NAME, VERSION, row["solution"])


SHEET = Sheet(
    name=NAME,
    version=VERSION,
    source="arXiv 2305.20050",
    licence="MIT in openai/prm800k; MATH itself disputed",
    flaws="a few gold answers with units or a full stop, kept",
    files={"eval": Copy(("math500/test.jsonl",), 500, DIGEST)},
    hub=Hub(
        dataset="HuggingFaceH4/MATH-500",
        revision=REVISION,
        splits={"eval": Copy(("test",), 500, DIGEST)},
        columns=("problem", "solution", "answer", "unique_id"),
        problem=from_hub,
    ),
)
TASK = SHEET.boxed_task(max_new_tokens=512)
