"""What the YAML files beside it name: lm-eval gets problems, prompts and verdicts from the suite's own `Task`.

`lm_eval --include_path FOLDER --tasks fspo_gsm8k --metadata '{"data_dir": "DATA"}'` reads the set from a data folder;
without `data_dir` it comes from the hub. With `{"chat": true}` a document asks the bare question, for
`--apply_chat_template`. Nothing here imports lm-eval, so nothing here depends on its version.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from suite.types import Problem, Verdict
from tasks import TASKS

ASK = "ask"
"""The column of a document that holds the text which the model goes on from."""


def documents(of: str, data_dir: str | None = None, chat: bool = False, **unused: Any) -> dict[str, Any]:
    """The evaluation split of the task named `of`, as lm-eval wants a data set: a document a problem.

    lm-eval hands over all of `--metadata` and the model's own arguments; what is not named here is theirs.
    """
    import datasets

    task = TASKS[of]
    ask = task.question if chat else task.render
    problems = task.load("eval", None if data_dir is None else Path(data_dir))
    rows = [dataclasses.asdict(problem) | {ASK: ask(problem)} for problem in problems]
    return {"eval": datasets.Dataset.from_list(rows)}


def every_sample(responses: Iterable[Sequence[str]], documents: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A filter that keeps all samples of a problem, where lm-eval keeps the first; `repeats` is how many there are."""
    return [list(samples) for samples in responses]


def verdict_shares(document: Mapping[str, Any], results: Sequence[Sequence[str]]) -> dict[str, float]:
    """Of the samples of one problem, the shares that the task's own grader calls correct, no answer and undecided."""
    (samples,) = results
    problem = Problem(**{field.name: document[field.name] for field in dataclasses.fields(Problem)})
    verdicts = TASKS[problem.task].grade([(text, problem) for text in samples])
    return {
        "accuracy": verdicts.count(Verdict.CORRECT) / len(verdicts),
        "no_answer": verdicts.count(Verdict.NO_ANSWER) / len(verdicts),
        "undecided": verdicts.count(Verdict.UNDECIDED) / len(verdicts),
    }
