"""AIME 2026: the 30 problems of both papers of the invitational, answers from 0 to 999; evaluation only.

Source: Mathematical Association of America; math-ai/aime26 on the hub (Apache-2.0 stated). With a data folder:
`aime26/test.jsonl`. Problem texts belong to the MAA.

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

NAME = "aime26"
VERSION = "1"
REVISION = "main"


def from_hub(row: Mapping[str, Any], place: str) -> Problem:
    """A hub row (`problem`, `answer`, `id`) as a problem."""
    return Problem(f"aime/2026-{row['id']}", tidy(row["problem"]), str(int(row["answer"])), NAME, VERSION)


SHEET = Sheet(
    name=NAME,
    version=VERSION,
    source="AIME 2026",
    licence="Apache-2.0; texts by the MAA",
    flaws="untested; content and hub revision not pinned: no copy was at hand",
    files={"eval": Copy(("aime26/test.jsonl",), 30, None)},
    hub=Hub(
        dataset="math-ai/aime26",
        revision=REVISION,
        splits={"eval": Copy(("test",), 30, None)},
        columns=("problem", "answer", "id"),
        problem=from_hub,
    ),
)
TASK = SHEET.boxed_task(max_new_tokens=1024)
