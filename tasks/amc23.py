"""AMC 12 of 2023: 40 problems of both papers, reworded by the source to have an integer answer; evaluation only.

Source: Mathematical Association of America; math-ai/amc23 on the hub at `REVISION`. With a data folder:
`amc23/test.jsonl`. Problem texts belong to the MAA. Nobody has compared the two copies word for word: the hub's is
held by its revision alone.

Flaws: 26 of the 40 stand in dapo_math_17k, word for word or nearly; training on it leaves those rows out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from suite.types import Problem
from tasks.data_sheet import Copy, Hub, Sheet
from tasks.text import tidy

NAME = "amc23"
VERSION = "1"
REVISION = "80815d37005feb82cd7f8fbc6901d5d3eff43057"
_URL = re.compile(r"2023_AMC_(12[AB])_Problems/Problem_([0-9]+)")


def from_hub(row: Mapping[str, Any], place: str) -> Problem:
    """A hub row (`question`, `answer` such as "27.0", `url` that ends in paper and number) as a problem."""
    paper, number = _URL.findall(row["url"])[0]
    gold = tidy(str(row["answer"])).removesuffix(".0")
    return Problem(f"amc/2023-{paper}-{number}", tidy(row["question"]), gold, NAME, VERSION)


SHEET = Sheet(
    name=NAME,
    version=VERSION,
    source="AMC 12 2023",
    licence="MIT in QwenLM/Qwen2.5-Math; texts by the MAA",
    flaws="26 of the 40 stand in dapo_math_17k",
    files={"eval": Copy(("amc23/test.jsonl",), 40, "f483107fa4f8ce68ee2ab24b7697eba56ed28913861f9961d1673490ce502f88")},
    hub=Hub(
        dataset="math-ai/amc23",
        revision=REVISION,
        splits={"eval": Copy(("test",), 40, None)},
        columns=("question", "answer", "url"),
        problem=from_hub,
    ),
)
TASK = SHEET.boxed_task(max_new_tokens=1024)
