"""Evaluation: k responses to every problem of every set, kept and graded; their noise does not depend on the method."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.config import EvalConfig
from suite.evaluation.sample_store import REWARD, Judged, Sample, SampleStore
from suite.policy.loading import LoadedModel
from suite.policy.prompting import data_digest, encode, prompt_text
from suite.policy.sampling import Sampler, SampleRequest, SamplingSettings, awake
from suite.policy.stop_texts import before_stop
from suite.records.files import folder_in_memory
from suite.seeds import derive
from suite.types import EvalResult, FinishReason, Problem, Task, UserError, Verdict

QUESTION = "{question}"
"""Where the question stands in the text of a prompt template."""


def evaluation_problems(task: Task, data_dir: Path | None, config: EvalConfig) -> list[Problem]:
    """The first problems (all without a limit) of the task's evaluation split."""
    return task.load("eval", data_dir)[: config.limit_of(task.name)]


def template_of(tokenizer: Any, task: Task, chat: bool) -> str:
    """The text of the task's prompts, with QUESTION in the place of the question."""
    return prompt_text(tokenizer, task, Problem("", QUESTION, "", task.name, task.version), chat)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def sampling_settings_of(task: Task, config: EvalConfig) -> SamplingSettings:
    """How the responses to a task's problems are drawn."""
    return SamplingSettings(
        max_new_tokens=config.max_new_tokens or task.max_new_tokens,
        temperature=config.temperature,
        batch_size=config.batch_size,
        stop=task.stop,
    )


def evaluate(
    sampler: Sampler,
    tokenizer: Any,
    tasks: Sequence[Task],
    config: EvalConfig,
    data_dir: Path | None,
    on_progress: Callable[[str, int, int], None] | None = None,
    store: SampleStore | None = None,
) -> list[EvalResult]:
    """For each task its verdicts, problem by problem, `config.samples` side by side.

    The noise of a response is a function of (config.seed, task, problem, sample, position, token) alone. With a
    `store`, which must be claimed, what it holds is not drawn or graded again. `on_progress(task, new, total)` is told
    how many responses are there: first what the store holds of each task, then every chunk.
    """
    if store is None:
        with folder_in_memory() as folder:
            return evaluate(sampler, tokenizer, tasks, config, data_dir, on_progress, SampleStore(folder))
    results = []
    with awake(sampler):
        for task in tasks:
            problems = evaluation_problems(task, data_dir, config)
            asked = Asked(task, problems, tokenizer, config)
            samples = sorted(_drawn(asked, sampler, store, on_progress), key=lambda sample: sample.place)
            judged = store.judged(task.name)
            if judged is None:
                judged = judgement(task, problems, samples)
                store.judge(task.name, judged)
            lengths, reasons = [len(s.tokens) for s in samples], [s.finish for s in samples]
            results.append(summarise(task, problems, lengths, reasons, judged.verdicts[REWARD]))
    return results


@dataclass(frozen=True)
class Asked:
    """All that one task asks of a model."""

    task: Task
    problems: Sequence[Problem]
    tokenizer: Any
    config: EvalConfig

    def requests(self) -> list[SampleRequest]:
        """`config.samples` requests a problem, side by side: a request's index is its sample's place."""
        task, config = self.task, self.config
        prompts = [encode(self.tokenizer, task, problem, config.chat) for problem in self.problems]
        return [
            SampleRequest(p.id, sample, derive(config.seed, "evaluate", task.name, p.id, sample), prompt)
            for p, prompt in zip(self.problems, prompts, strict=True)
            for sample in range(config.samples)
        ]

    def chunks(self, requests: Sequence[SampleRequest], size: int) -> Iterator[tuple[int, list[int]]]:
        """(number, places) of the parts that responses are drawn and kept in: prompts of like length together.

        The longest prompts come first, so that memory runs out at the start or not at all.
        """
        order = sorted(range(len(requests)), key=lambda i: (len(requests[i].prompt_ids), requests[i].prompt_ids))
        for number in reversed(range(-(-len(order) // size))):
            yield number, order[number * size : (number + 1) * size]

    def samples(self, places: Sequence[int], requests: Sequence[SampleRequest], drawn: Sequence[Any]) -> list[Sample]:
        """What is kept of the responses at those places."""
        template = _sha256(template_of(self.tokenizer, self.task, self.config.chat))
        texts = self.tokenizer.batch_decode([list(r.response_ids) for r in drawn], skip_special_tokens=True)
        problems = [self.problems[place // self.config.samples] for place in places]
        return [
            Sample(
                task=self.task.name,
                problem=problem.id,
                sample=requests[place].sample_index,
                place=place,
                seed=requests[place].seed,
                template=template,
                prompt=prompt_text(self.tokenizer, self.task, problem, self.config.chat),
                gold=problem.gold,
                response=text,
                tokens=rollout.response_ids,
                finish=rollout.finish_reason,
            )
            for place, problem, text, rollout in zip(places, problems, texts, drawn, strict=True)
        ]


def _drawn(
    asked: Asked, sampler: Sampler, store: SampleStore, on_progress: Callable[[str, int, int], None] | None
) -> list[Sample]:
    """All samples of a task: those in the store, and the missing chunks, which are drawn and kept one by one."""
    name, requests, settings = asked.task.name, asked.requests(), sampling_settings_of(asked.task, asked.config)
    told = on_progress or (lambda task, new, total: None)
    samples, missing = [], []
    for number, places in asked.chunks(requests, store.chunk_size(asked.config.batch_size)):
        kept = store.chunk(name, number)
        if kept is None:
            missing.append((number, places))
            continue
        if [(s.problem, s.sample, s.place) for s in kept] != [
            (requests[i].problem_id, requests[i].sample_index, i) for i in places
        ]:
            raise UserError(
                f"{store.folder / name}: part {number} holds other samples than this evaluation asks for; "
                "delete the folder to draw them again"
            )
        samples += kept
    told(name, len(samples), len(requests))
    for number, places in missing:
        fresh = asked.samples(places, requests, sampler.sample([requests[i] for i in places], settings))
        store.add(name, number, fresh)
        samples += fresh
        told(name, len(fresh), len(requests))
    return samples


def judgement(task: Task, problems: Sequence[Problem], samples: Sequence[Sample]) -> Judged:
    """What the task's grader and its panel say of the samples, and the answers that they vote for."""
    by_id = {problem.id: problem for problem in problems}
    pairs = [(before_stop(sample.response, task.stop), by_id[sample.problem]) for sample in samples]
    verdicts = {REWARD: task.grade(pairs)} | {name: rule(pairs) for name, rule in task.panel.items()}
    return Judged(verdicts, [task.answer(*pair) for pair in pairs])


def summarise(
    task: Task,
    problems: Sequence[Problem],
    lengths: Sequence[int],
    reasons: Sequence[FinishReason],
    verdicts: Sequence[Verdict],
) -> EvalResult:
    """Verdicts and lengths per problem, and the share of responses cut at the token limit.

    Each has one entry a response, problem by problem, those of one side by side.
    """
    count = len(verdicts) // len(problems)
    starts = range(0, len(verdicts), count)
    return EvalResult(
        task=task.name,
        task_version=task.judged_version,
        data_digest=data_digest(problems),
        problem_ids=tuple(p.id for p in problems),
        verdicts=tuple(tuple(verdicts[i : i + count]) for i in starts),
        lengths=tuple(tuple(lengths[i : i + count]) for i in starts),
        truncated_share=sum(reason == FinishReason.LENGTH for reason in reasons) / len(reasons),
    )


def by_kind(result: EvalResult, task: Task, problems: Sequence[Problem]) -> list[EvalResult]:
    """The result of a set with kinds of problems as one result a kind, `SET, KIND`, in the order of the kinds' names.

    `problems` are those of the result. The share of truncated responses is not known of a kind: nan.
    """
    assert task.kind is not None
    kinds = [task.kind(problem) for problem in problems]
    found = []
    for kind in sorted(set(kinds)):
        places = [i for i, one in enumerate(kinds) if one == kind]
        found.append(
            dataclasses.replace(
                result,
                task=f"{result.task}, {kind}",
                data_digest=data_digest([problems[i] for i in places]),
                problem_ids=tuple(result.problem_ids[i] for i in places),
                verdicts=tuple(result.verdicts[i] for i in places),
                lengths=tuple(result.lengths[i] for i in places),
                truncated_share=math.nan,
            )
        )
    return found


def manifest_of(
    loaded: LoadedModel,
    engine: str,
    tasks: Sequence[Task],
    config: EvalConfig,
    data_dir: Path | None,
    made_by: Mapping[str, str],
) -> dict[str, Any]:
    """What is asked of which model, as plain data: `asked` is what a resumed evaluation must agree in.

    `made_by` (versions, machine) is what `asked` does not settle; it tells of the first start. `chunk` is how many
    responses are kept at a time, on every start.
    """

    def asked_of(task: Task) -> dict[str, Any]:
        problems, settings = evaluation_problems(task, data_dir, config), sampling_settings_of(task, config)
        template = template_of(loaded.tokenizer, task, config.chat)
        return {
            "version": task.version,
            "data": data_digest(problems),
            "problems": len(problems),
            "template": template,
            "template_sha256": _sha256(template),
            "stop": list(settings.stop),
            "max_new_tokens": settings.max_new_tokens,
            "graders": [REWARD, *task.panel],
            **({"grader": task.grader} if task.grader else {}),
        }

    asked = {
        "model": loaded.digest,
        "tokenizer": loaded.tokenizer_digest,
        "engine": engine,
        "seed": config.seed,
        "temperature": config.temperature,
        "samples": config.samples,
        "limit": config.limit,
        **({"limits": list(config.limits)} if config.limits else {}),
        "chat": config.chat,
        "tasks": {task.name: asked_of(task) for task in tasks},
    }
    return {"asked": asked, "chunk": config.batch_size, "model": loaded.reference, "made_by": dict(made_by)}
