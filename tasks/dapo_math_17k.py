"""DAPO-Math-17k: competition problems reworded so that every answer is an integer; training only.

Source: arXiv 2503.14476; BytedTsinghua-SIA/DAPO-Math-17k on the hub (Apache-2.0) at `REVISION`. The hub stores every
problem about a hundred times (1,791,700 rows): one of each is kept, English ones only, and reading them takes a
minute. With a data folder: `dapo_math_17k/train_en.jsonl`, 14,028 English problems. Nobody has compared the two word
for word.

Flaws: some problems stand there more than once with different answers. Problems that are equal without markup, case
and spacing but disagree on the answer are left out, all of them (33 of the folder's rows; its maker had left out 12
problems already). Repetitions that agree are kept. Texts whose LaTeX an escape had eaten are mended.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from suite.types import Problem
from tasks.data_sheet import Copy, Hub, Sheet
from tasks.text import plain, tidy

NAME = "dapo_math_17k"
VERSION = "1"
REVISION = "65877096c24ffa7abc4e4fa5edb95cf3413a5674"
_BEFORE = re.compile(r"\ASolve the following math problem step by step\..*?answer to the problem\.\s*", re.DOTALL)
_AFTER = re.compile(r"\s*Remember to put your answer on its own line after \"Answer:\"\.\s*\Z")
_OTHER_SCRIPT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\u0400-\u04ff]")


def from_hub(row: Mapping[str, Any], place: str) -> Problem:
    """A hub row (`prompt` as one chat message around the problem, `reward_model` with the answer) as a problem."""
    text = _AFTER.sub("", _BEFORE.sub("", row["prompt"][0]["content"]))
    gold = tidy(str(row["reward_model"]["ground_truth"]))
    return Problem(f"{NAME}/{place.rpartition('/')[2]}", tidy(text), gold, NAME, VERSION)


def english_once(problems: Iterable[Problem]) -> Iterator[Problem]:
    """The first of each problem and answer, without those in another script than Latin."""
    seen = set()
    for problem in problems:
        key = (problem.prompt, problem.gold)
        if key not in seen and not _OTHER_SCRIPT.search(problem.prompt):
            seen.add(key)
            yield problem


def consistent(split: str, problems: list[Problem]) -> list[Problem]:
    """The problems whose text has one answer throughout the set."""
    bare = [plain(problem.prompt, keep_request=True) for problem in problems]
    answers: dict[str, set[str]] = {}
    for text, problem in zip(bare, problems, strict=True):
        answers.setdefault(text, set()).add(problem.gold)
    return [problem for text, problem in zip(bare, problems, strict=True) if len(answers[text]) == 1]


SHEET = Sheet(
    name=NAME,
    version=VERSION,
    source="arXiv 2503.14476",
    licence="Apache-2.0",
    flaws="33 rows with contradictory answers, left out",
    files={
        "train": Copy(
            ("dapo_math_17k/train_en.jsonl",), 14028, "bee38f003e18cb8d9d2eb7e6cf9d88303364148b5f009b06b9e468d86b3cb33b"
        )
    },
    hub=Hub(
        dataset="BytedTsinghua-SIA/DAPO-Math-17k",
        revision=REVISION,
        splits={"train": Copy(("train",), 1791700, None)},
        columns=("prompt", "reward_model"),
        problem=from_hub,
        keep=english_once,
    ),
    usable=consistent,
)
TASK = SHEET.boxed_task(max_new_tokens=1024)
