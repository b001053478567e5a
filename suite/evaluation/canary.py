"""A canary: the start model answers a few questions again wherever a comparison evaluates, and must say the same.

Other threads, devices, drivers or library versions can change a model's texts without anybody touching a setting. Rows
of one table are comparable where the same model still gives the same answers.

Source: ours.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from suite.config import EvalConfig
from suite.evaluation.evaluate import evaluation_problems
from suite.policy.loading import LoadedModel
from suite.policy.prompting import encode
from suite.policy.sampling import Sampler, SampleRequest, SamplingSettings
from suite.records.files import write_atomically
from suite.seeds import generator
from suite.types import Task, UserError

PROBLEMS = 16
TOKENS = 32
"""Length of a canary's answers: enough to notice another arithmetic, short enough to cost next to nothing."""
FILE = "canary.json"
SAME = "same"


def canary_answers(
    loaded: LoadedModel, sampler: Sampler, tasks: Sequence[Task], config: EvalConfig, data_dir: Path | None
) -> list[dict[str, Any]]:
    """The most likely tokens after PROBLEMS prompts, which are drawn from all evaluation sets with a fixed seed."""
    asked = [(task, problem) for task in tasks for problem in evaluation_problems(task, data_dir, config)]
    chosen = sorted(torch.randperm(len(asked), generator=generator(0, "canary"))[:PROBLEMS].tolist())
    requests = [
        SampleRequest(problem.id, 0, 0, encode(loaded.tokenizer, task, problem, config.chat))
        for task, problem in (asked[i] for i in chosen)
    ]
    drawn = sampler.sample(requests, SamplingSettings(TOKENS, temperature=0, batch_size=PROBLEMS))
    texts = loaded.tokenizer.batch_decode([list(r.response_ids) for r in drawn])
    return [
        {"task": asked[i][0].name, "problem": r.problem_id, "tokens": list(r.response_ids), "text": text}
        for i, r, text in zip(chosen, drawn, texts, strict=True)
    ]


def check_canary(
    folder: Path,
    loaded: LoadedModel,
    sampler: Sampler,
    tasks: Sequence[Task],
    config: EvalConfig,
    data_dir: Path | None,
) -> str:
    """SAME, or in words what the start model answers otherwise than when the comparison's base was first evaluated.

    `loaded` is the start model, not trained yet. Where the folder has no canary, today's answers become it.
    """
    path = folder / FILE
    content: dict[str, Any] = {"model": loaded.digest, "engine": sampler.engine}
    content["answers"] = canary_answers(loaded, sampler, tasks, config, data_dir)
    if not path.exists():
        write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        return SAME
    return difference(read_canary(path), content)


def read_canary(path: Path) -> dict[str, Any]:
    """The stored canary; UserError where the file is broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {"model": content["model"], "engine": content["engine"], "answers": list(content["answers"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no canary to read ({error}); evaluate in another folder") from error


def difference(stored: dict[str, Any], today: dict[str, Any]) -> str:
    """SAME, or what differs, in words."""
    for name in ("model", "engine"):
        if stored[name] != today[name]:
            return f"the start model's {name} is {today[name][:40]}, was {stored[name][:40]}"
    before, now = stored["answers"], today["answers"]
    if [a["problem"] for a in before] != [a["problem"] for a in now]:
        return "the canary asks other problems"
    others = [a["problem"] for a, b in zip(before, now, strict=True) if a["tokens"] != b["tokens"]]
    if not others:
        return SAME
    return f"the start model answers {len(others)} of {len(now)} problems of the canary otherwise (first {others[0]})"
