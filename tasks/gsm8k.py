"""GSM8K: word problems from grade school, two to eight steps, 7,473 to train on and 1,319 to evaluate on.

Source: arXiv 2110.14168; openai/gsm8k on the hub (MIT), configuration "main", at `REVISION`. With a data folder:
`gsm8k/train.jsonl` and `gsm8k/test.jsonl`. Our split "eval" is the set's own "test". The id of a problem is its row.
"""

from __future__ import annotations

from pathlib import Path

from suite.types import Problem, Task, UserError
from tasks.grading import grade_problems
from tasks.hub import hub_rows
from tasks.jsonl import read_problems
from tasks.prompts import SEVERAL_STEPS, STOP, few_shot

NAME = "gsm8k"
VERSION = "1"
HUB_ID = "openai/gsm8k"
REVISION = "e53f048856ff4f594e959d75785d2c2d37b678ee"
SPLITS = {"train": "train", "eval": "test"}


def load(split: str, data_dir: Path | None) -> list[Problem]:
    """The problems of "train" or "eval", from a data folder or from the hub."""
    if split not in SPLITS:
        raise UserError(f"task {NAME}: unknown split {split!r}; choose train or eval")
    source_split = SPLITS[split]
    if data_dir is not None:
        return read_problems(data_dir / NAME / f"{source_split}.jsonl", NAME, VERSION)
    rows = hub_rows(HUB_ID, "main", source_split, REVISION, instead="gsm8k/train.jsonl and gsm8k/test.jsonl")
    return [from_hub(row, f"{NAME}/{source_split}/{i}") for i, row in enumerate(rows)]


def from_hub(row: dict[str, str], problem_id: str) -> Problem:
    """A hub row (`question`, `answer` with `#### N` at its end) as a problem."""
    gold = row["answer"].rpartition("####")[2].strip().replace(",", "")
    return Problem(problem_id, row["question"].strip(), gold, NAME, VERSION, row["answer"])


TASK = Task(
    name=NAME,
    version=VERSION,
    source=f"{HUB_ID}@{REVISION[:7]} (MIT), arXiv 2110.14168",
    load=load,
    render=lambda problem: few_shot(SEVERAL_STEPS, problem.prompt),
    question=lambda problem: problem.prompt,
    grade=grade_problems,
    stop=STOP,
    max_new_tokens=256,
)
