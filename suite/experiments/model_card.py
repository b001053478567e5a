"""The card of a trained model, README.md of its folder: what it is, how it was made, how good it is, its limits.

It is written when a cell is finished, not by a report: `fspo train` makes no report, and the intervals that belong to
one model, over problems, are known then. Texts that are not ours stand in code blocks that they cannot close.

Source: ours; the YAML head has the names of the Hugging Face hub.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import tasks
from suite.config import CompareConfig
from suite.methods.cards import hyper_line
from suite.policy.loading import is_hub_id
from suite.policy.model_folders import CARD, SUMS
from suite.policy.smollm2 import HUB_ID as SMOLLM2
from suite.records.files import file_sha256, write_atomically
from suite.records.result import digest
from suite.records.texts import code, fenced
from suite.statistics.compare import compare
from suite.types import EvalResult, Method, RunResult, reward_of, task_name

SEED = 0
"""Seed of the bootstrap behind the intervals, that of reports."""
NOT_FOR = """A by-product of an experiment on training losses, not a product. Do not use it

- to advise or decide anything about people, or where a wrong answer does harm;
- as a tutor, an assistant or a source of facts: it was rewarded for final answers of narrow exercises, never for true,
  safe or readable text, and nobody has examined it for bias or misuse;
- in languages or on tasks other than those in the table above;
- as evidence that one loss is better than another: this is one run with one seed, a comparison has many.

What the licences of the start model and of the data forbid, they forbid here."""


@dataclass(frozen=True)
class Finished:
    """What a card is written from. `base` are the evaluations of the start model, none where they are not known."""

    config: CompareConfig
    method: Method
    result: RunResult
    base: Sequence[EvalResult]
    command: str
    """The command line that the run was started with; empty where it is not known."""


def model_card(finished: Finished, files: str) -> str:
    """The card as Markdown. `files` is the sha256 of the model folder's list of digests."""
    result, config = finished.result, finished.config
    blocks = [
        _head(finished),
        f"# {code(result.method)}, seed {result.seed}, of {code(config.name)}",
        f"{code(config.train.model)}, trained for {config.train.steps} steps with {code(finished.method.title)} by "
        "fspo-suite, as one of the runs of an experiment. It loads with "
        "`AutoModelForCausalLM.from_pretrained` and `AutoTokenizer.from_pretrained` of transformers, and by its path "
        "in vLLM.",
        *_accuracy(finished),
        *_origin(finished),
        "## What it must not be used for",
        NOT_FOR,
        *_digests(finished, files),
    ]
    return "\n\n".join(blocks) + "\n"


def write_card(finished: Finished, folder: Path) -> None:
    """Write the card of a saved model into its folder, beside the list of digests that it names."""
    write_atomically(folder / CARD, model_card(finished, file_sha256(folder / SUMS)))


def start_model_on_hub(reference: str) -> str | None:
    """The hub id of a start model; None for one that has none that we know of."""
    if reference == "smollm2":
        return SMOLLM2
    return reference if is_hub_id(reference) else None


def hub_sets(names: Sequence[str]) -> list[str]:
    """The hub ids of those of the named sets that are on the hub."""
    known = {module.SHEET.name: module.SHEET.hub.dataset for module in tasks.REAL_SETS}
    return [known[name] for name in names if name in known]


def _head(finished: Finished) -> str:
    """The YAML that the hub reads; a JSON text is a YAML text, so whatever a name holds, it stays a name."""
    train = finished.config.train
    base, sets = start_model_on_hub(train.model), hub_sets(train.tasks)
    head: dict[str, object] = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    head |= {"base_model": base} if base else {}
    head |= {"datasets": sets} if sets else {}
    head["tags"] = ["fspo-suite", "reinforcement-learning", finished.result.method]
    return "\n".join(["---", *(f"{name}: {json.dumps(value)}" for name, value in head.items()), "---"])


def _accuracy(finished: Finished) -> Iterator[str]:
    evaluation = finished.config.evaluation
    here = _estimates(finished.result.evals, finished.config.bootstrap)
    start = _estimates(finished.base, finished.config.bootstrap) if finished.base else {}
    yield "## Accuracy"
    yield (
        f"Mean over {evaluation.samples} responses a problem at temperature {evaluation.temperature:g}, in per cent, "
        "with 95 % intervals over problems. They are of this one model: another seed gives another one."
    )
    problems = {one.task: len(one.problem_ids) for one in finished.result.evals}
    rows = [
        f"| {code(name)} | {problems.get(name, '')} | {said} | {start.get(name, 'not recorded')} |"
        for name, said in here.items()
    ]
    yield "\n".join(["| set | problems | this model | start model |", "| --- | ---: | ---: | ---: |", *rows])
    for name in dict.fromkeys(reward for task in finished.config.all_tasks if (reward := reward_of(task))):
        yield f"The reward {code(name)} is the user's own: a response counts as right from a reward of 1 on."


def _estimates(evals: Sequence[EvalResult], repetitions: int) -> dict[str, str]:
    """Accuracy and interval of one model by set, in words."""
    rows = compare(evals, [], seed=SEED, repetitions=repetitions).accuracies.to_dict("records")
    return {
        row["task"]: f"{100 * row['accuracy']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]" for row in rows
    }


def _origin(finished: Finished) -> Iterator[str]:
    """Method, data, settings and command."""
    config, method = finished.config, finished.method
    train = config.train
    yield "## How it was made"
    yield fenced(finished.command or "the command was not recorded")
    yield (
        f"- seed {finished.result.seed}; {train.steps} rollout steps of {train.problems_per_step} problems x "
        f"{train.samples_per_problem} responses, {train.updates_per_rollout} updates each, peak learning rate "
        f"{train.learning_rate:g}\n"
        f"- trained on {', '.join(map(task_name, train.tasks))}; evaluated on "
        f"{', '.join(map(task_name, config.evaluation.tasks))}"
    )
    yield "The method, in short:"
    facts = [f"{method.title} ({method.source})", *(f"{key}: {value}" for key, value in method.facts.items())]
    yield fenced("\n".join([*facts, f"settings: {hyper_line(method) or 'none'}"]))


def _digests(finished: Finished, files: str) -> Iterator[str]:
    result = finished.result
    evals = {f"problems of {code(one.task)}": one.data_digest for one in result.evals}
    own = {name if ":" in name else name.replace("_", " "): value for name, value in result.digests.items()}
    named = {"result": digest(result), **own, **evals, f"`{SUMS}`, the list of this folder's files": files}
    yield "## Digests and versions"
    rows = [f"| {name} | `{value}` |" for name, value in named.items()]
    yield "\n".join(["| of | sha256, or its beginning |", "| --- | --- |", *rows])
    yield fenced("\n".join(f"{name}: {value}" for name, value in result.environment.items()))
