"""HMMT February 2026: the 33 problems of the tournament with final answers, numbers and expressions; evaluation only.

Source: Harvard-MIT Mathematics Tournament; MathArena/hmmt_feb_2026 on the hub (CC BY-NC-SA 4.0 stated). With a data
folder: `hmmt_feb26/test.jsonl`. Problem texts belong to HMMT.

No copy was at hand when this was written: its columns and the number of its rows are those that public programs read.
Loading it is untested. Rows are counted, but neither a digest nor a revision of the hub is pinned: say with a result
when it was loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suite.types import Problem
from tasks.data_sheet import Copy, Hub, Sheet
from tasks.text import tidy

NAME = "hmmt_feb26"
VERSION = "1"
REVISION = "main"


def from_hub(row: Mapping[str, Any], place: str) -> Problem:
    """A hub row (`problem`, `answer`, `problem_idx`) as a problem."""
    gold = tidy(str(row["answer"]))
    return Problem(f"hmmt/feb-2026-{row['problem_idx']}", tidy(row["problem"]), gold, NAME, VERSION)


SHEET = Sheet(
    name=NAME,
    version=VERSION,
    source="HMMT February 2026",
    licence="CC BY-NC-SA 4.0; texts by HMMT",
    flaws="untested; content and hub revision not pinned: no copy was at hand",
    files={"eval": Copy(("hmmt_feb26/test.jsonl",), 33, None)},
    hub=Hub(
        dataset="MathArena/hmmt_feb_2026",
        revision=REVISION,
        splits={"eval": Copy(("train",), 33, None)},
        columns=("problem", "answer", "problem_idx"),
        problem=from_hub,
    ),
)
TASK = SHEET.boxed_task(max_new_tokens=1024)
