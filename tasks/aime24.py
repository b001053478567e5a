"""AIME 2024: the 30 problems of both papers of the invitational, answers from 0 to 999; evaluation only.

Source: Mathematical Association of America; HuggingFaceH4/aime_2024 on the hub at `REVISION` (no licence stated
there). With a data folder: `aime24/test.jsonl`. Problem texts belong to the MAA. The two copies come from different
transcriptions that nobody has compared word for word: the hub's is held by its revision alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from suite.types import Problem
from tasks.data_sheet import Copy, Hub, Sheet
from tasks.text import tidy

NAME = "aime24"
VERSION = "1"
REVISION = "2fe88a2f1091d5048c0f36abc874fb997b3dd99a"
_URL = re.compile(r"2024_AIME_(I{1,2})_Problems/Problem_([0-9]+)")


def from_hub(row: Mapping[str, Any], place: str) -> Problem:
    """A hub row (`problem`, `answer` such as "073", `url` that ends in paper and number) as a problem."""
    paper, number = _URL.findall(row["url"])[0]
    return Problem(f"aime/2024-{paper}-{number}", tidy(row["problem"]), str(int(row["answer"])), NAME, VERSION)


SHEET = Sheet(
    name=NAME,
    version=VERSION,
    source="AIME 2024",
    licence="MIT in QwenLM/Qwen2.5-Math; texts by the MAA",
    flaws="none looked for by us",
    files={
        "eval": Copy(("aime24/test.jsonl",), 30, "1de0395287ba56a9c3b72d542c34bc75d44451631eae3163d00f5f55e236cd84")
    },
    hub=Hub(
        dataset="HuggingFaceH4/aime_2024",
        revision=REVISION,
        splits={"eval": Copy(("train",), 30, None)},
        columns=("problem", "answer", "url"),
        problem=from_hub,
    ),
)
TASK = SHEET.boxed_task(max_new_tokens=1024)
