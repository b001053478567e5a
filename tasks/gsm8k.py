"""GSM8K: word problems from grade school, two to eight steps, 7,473 to train on and 1,319 to evaluate on.

Source: arXiv 2110.14168; openai/gsm8k on the hub (MIT), configuration "main", at `REVISION`. With a data folder:
`gsm8k/train.jsonl` and `gsm8k/test.jsonl`. Our split "eval" is the set's own "test". The id of a problem is its row.
The hub is held to the digests of the data folder, which were taken from the authors' repository.

Flaws: some answers of the test set are wrong and some questions unclear; arXiv 2502.03461 (GSM8K-Platinum) mends or
drops them. They are kept here, so that scores are on the set as it was published.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from suite.types import Problem
from tasks.data_sheet import Copy, Hub, Sheet
from tasks.prompts import SEVERAL_STEPS, STOP, few_shot

NAME = "gsm8k"
VERSION = "1"
REVISION = "e53f048856ff4f594e959d75785d2c2d37b678ee"
TRAIN_DIGEST = "b8384276fa19812c7911d99a464ee55e92689dd727bfcc645183e4b251d82733"
TEST_DIGEST = "fe5ed57e9dc9646ff7019ac7d984f4f365601875d1c2a33b4518e00d752ee146"


def from_hub(row: Mapping[str, Any], place: str) -> Problem:
    """A hub row (`question`, `answer` with `#### N` at its end) as a problem."""
    gold = row["answer"].rpartition("####")[2].strip().replace(",", "")
    return Problem(f"{NAME}/{place}", row["question"].strip(), gold, NAME, VERSION, row["answer"])


SHEET = Sheet(
    name=NAME,
    version=VERSION,
    source="arXiv 2110.14168",
    licence="MIT",
    flaws="wrong answers and unclear questions in the test set (arXiv 2502.03461), kept",
    files={
        "train": Copy(("gsm8k/train.jsonl",), 7473, TRAIN_DIGEST),
        "eval": Copy(("gsm8k/test.jsonl",), 1319, TEST_DIGEST),
    },
    hub=Hub(
        dataset="openai/gsm8k",
        revision=REVISION,
        config="main",
        splits={"train": Copy(("train",), 7473, TRAIN_DIGEST), "eval": Copy(("test",), 1319, TEST_DIGEST)},
        columns=("question", "answer"),
        problem=from_hub,
    ),
)
TASK = SHEET.task(
    render=lambda problem: few_shot(SEVERAL_STEPS, problem.prompt),
    question=lambda problem: problem.prompt,
    stop=STOP,
    max_new_tokens=256,
)
