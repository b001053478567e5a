"""AIME 2025: the 30 problems of both papers of the invitational, answers from 0 to 999; evaluation only.

Source: Mathematical Association of America; math-ai/aime25 on the hub at `REVISION` (Apache-2.0 stated). With a data
folder: `aime25/test.jsonl`. Problem texts belong to the MAA. The hub's rows stand in the order of the papers, I-1 to
II-15. Nobody has compared the two copies word for word: the hub's is held by its revision alone.

Flaws: the answer to II-5 was `336^\\circ` in a source; it is 336 here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suite.types import Problem
from tasks.data_sheet import Copy, Hub, Sheet
from tasks.text import tidy

NAME = "aime25"
VERSION = "1"
REVISION = "563bb8404243c5f09de6ec262f2db674fe5bce9b"
PER_PAPER = 15


def from_hub(row: Mapping[str, Any], place: str) -> Problem:
    """A hub row (`problem`, `answer`, `id` from 0 to 29) as a problem."""
    paper, number = divmod(int(row["id"]), PER_PAPER)
    gold = str(int(str(row["answer"]).removesuffix("^\\circ")))
    return Problem(f"aime/2025-{'I' * (paper + 1)}-{number + 1}", tidy(row["problem"]), gold, NAME, VERSION)


SHEET = Sheet(
    name=NAME,
    version=VERSION,
    source="AIME 2025",
    licence="Apache-2.0; texts by the MAA",
    flaws="one answer in degrees in a source, mended; others not looked for by us",
    files={
        "eval": Copy(("aime25/test.jsonl",), 30, "c0921d1a5d0c8e8013a7a84d965eb19d5f582146c9ff8773315b7b41e9477914")
    },
    hub=Hub(
        dataset="math-ai/aime25",
        revision=REVISION,
        splits={"eval": Copy(("test",), 30, None)},
        columns=("problem", "answer", "id"),
        problem=from_hub,
    ),
)
TASK = SHEET.boxed_task(max_new_tokens=1024)
