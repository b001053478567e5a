"""Minerva's OCW courses: 272 questions of undergraduate science, numbers and symbols as answers; evaluation only.

Source: arXiv 2206.14858; math-ai/minervamath on the hub. With a data folder: `minerva_math/test.jsonl`. The questions
are drawn from MIT OpenCourseWare, whose general terms are CC BY-NC-SA 4.0.

No public source names a revision of the hub copy that could be verified, so none is pinned: its content must have the
digest of the data folder, whose answers equal a second public copy, or it is refused.

Flaws: 58 gold answers are in e-notation (`4.5e33`), a few are code (`np.arcsin(10/13)`); they are kept for the
grader.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suite.types import Problem
from tasks.data_sheet import Copy, Hub, Sheet
from tasks.text import tidy

NAME = "minerva_math"
VERSION = "1"
REVISION = "main"
DIGEST = "31cfc2bab283605411ff4611d45c7ced7ac8ea8fb6622717619948728b68cdb1"


def from_hub(row: Mapping[str, Any], place: str) -> Problem:
    """A hub row (`question`, `answer`) as a problem; its id is its number."""
    problem_id = f"{NAME}/{place.rpartition('/')[2]}"
    return Problem(problem_id, tidy(row["question"]), tidy(str(row["answer"])), NAME, VERSION)


SHEET = Sheet(
    name=NAME,
    version=VERSION,
    source="arXiv 2206.14858",
    licence="MIT in QwenLM/Qwen2.5-Math; courses CC BY-NC-SA 4.0",
    flaws="58 gold answers in e-notation; a few are code, kept; hub revision not pinned, digest instead",
    files={"eval": Copy(("minerva_math/test.jsonl",), 272, DIGEST)},
    hub=Hub(
        dataset="math-ai/minervamath",
        revision=REVISION,
        splits={"eval": Copy(("test",), 272, DIGEST)},
        columns=("question", "answer"),
        problem=from_hub,
    ),
)
TASK = SHEET.boxed_task(max_new_tokens=512)
