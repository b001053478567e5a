"""OlympiadBench: English competition problems without pictures whose answers can be checked; evaluation only.

Source: arXiv 2402.14008; Hothan/OlympiadBench on the hub (Apache-2.0 stated there, MIT in the authors' repository),
configuration OE_TO_maths_en_COMP at `REVISION`, 674 rows. With a data folder: `olympiadbench/test.jsonl`, 675 rows of
an earlier release. The two were compared: 659 problems have the same text, and scores are not comparable. The folder's
copy has a digest, the hub's is held by its revision.

Flaws: the 19 problems of `WITHOUT_VALUE` come from relays and use a number that "you will receive" from a team mate
and that the text does not give; they are left out of both copies. 15 of them say `T = T N Y W R`, four name the
position of the team mate. (The list of 16 that goes round with the data lacks those four, and has 2608, which gives
all it needs: kept.) Several gold answers are lists, kept in one comma-separated text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suite.types import Problem
from tasks.data_sheet import Copy, Hub, Sheet
from tasks.text import tidy

NAME = "olympiadbench"
VERSION = "1"
REVISION = "91184b52131e7fc9455fef848035173aea8cc01a"
WITHOUT_VALUE = frozenset(
    f"{NAME}/{number}" for number in (2655, *range(2720, 2732), 2856, 2857, 2859, 2860, 2967, 3095)
)


def from_hub(row: Mapping[str, Any], place: str) -> Problem:
    """A hub row (`id`, `context` or none, `question`, `final_answer` as a list of texts in `$`) as a problem."""
    prompt = "\n".join(tidy(part) for part in (row["context"], row["question"]) if part)
    gold = ",".join(tidy(answer).strip("$").strip() for answer in row["final_answer"])
    return Problem(f"{NAME}/{row['id']}", prompt, gold, NAME, VERSION)


def with_value(split: str, problems: list[Problem]) -> list[Problem]:
    """The problems that can be solved as written."""
    return [problem for problem in problems if problem.id not in WITHOUT_VALUE]


SHEET = Sheet(
    name=NAME,
    version=VERSION,
    source="arXiv 2402.14008",
    licence="MIT in the authors' repository, Apache-2.0 on the hub",
    flaws="19 rows without their value, left out; hub and folder are two releases",
    files={
        "eval": Copy(
            ("olympiadbench/test.jsonl",), 675, "31931b9fb813c2172f6ac782a83374aa2eca8e43592d261952a3aa944ec1ddd8"
        )
    },
    hub=Hub(
        dataset="Hothan/OlympiadBench",
        revision=REVISION,
        config="OE_TO_maths_en_COMP",
        splits={"eval": Copy(("train",), 674, None)},
        columns=("id", "context", "question", "final_answer"),
        problem=from_hub,
    ),
    usable=with_value,
)
TASK = SHEET.boxed_task(max_new_tokens=1024)
