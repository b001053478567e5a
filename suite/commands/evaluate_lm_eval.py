"""`fspo evaluate --through lm-eval`: the same problems, asked and scored by lm-eval, drawn by an engine of ours."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console

from suite.config import EvalConfig, plain_data
from suite.evaluation.evaluate import evaluation_problems, summarise
from suite.evaluation.lm_eval_model import PREFIX, Answering, fspo_tasks, native_task, require_lm_eval, run_lm_eval
from suite.experiments.local_jobs import progress_bar
from suite.experiments.names import LM_EVAL_TASKS, is_own, require_sets, tasks_named
from suite.experiments.start import model_for_evaluation
from suite.policy.engines import require_engine, sampler_for
from suite.policy.prompting import encode, with_verdicts
from suite.policy.sampling import awake
from suite.records.files import write_atomically
from suite.records.provenance import machine, versions
from suite.report.terminal import show
from suite.statistics.compare import compare
from suite.statistics.frames import NOTHING, percent
from suite.types import EvalResult, Problem, Task, UserError, Verdict

NATIVE = {"gsm8k": "gsm8k", "aime24": "aime24", "aime25": "aime25", "math500": "hendrycks_math500"}
"""Our sets that lm-eval has a task of its own for, and its name there."""


@dataclass(frozen=True)
class Agreement:
    """One set, by our own grading of the responses and by what lm-eval made of them.

    `lm_eval` and `error` are its accuracy and standard error; `same_prompts` counts responses whose prompt is ours
    token for token, `same_verdicts` problems on which its shares of correct, no answer and undecided are ours.
    """

    ours: EvalResult
    lm_eval: float
    error: float
    same_prompts: int
    same_verdicts: int
    native: Mapping[str, float]

    @property
    def responses(self) -> int:
        """How many responses there are."""
        return sum(map(len, self.ours.verdicts))


def require_way(through: str | None) -> None:
    """UserError where `--through` names something else than lm-eval."""
    if through not in (None, "lm-eval"):
        raise UserError(f"--through {through!r}: there is lm-eval; leave it out for the suite's own evaluation")


def run_through_lm_eval(
    model: str,
    config: EvalConfig,
    precision: str,
    engine: str,
    data_dir: Path | None,
    out: Path | None,
    native: bool,
    console: Console,
) -> None:
    """Ask through lm-eval, print both scores; with `native` those of lm-eval's own tasks, too, greedy as it asks them.

    With `out`, write lm_eval.json there. UserError: lm-eval or the engine is missing, a set does not load.
    """
    require_lm_eval()
    require_engine(engine, precision)
    if config.limits:
        raise UserError("--limits: lm-eval knows one limit for all sets; use --limit, or leave out --through")
    if out is not None and (out / "lm_eval.json").exists():
        raise UserError(f"{out}: holds a result of lm-eval already; choose another --out")
    chosen = tasks_named(config.tasks)
    if own := [name for name in config.tasks if is_own(name)]:
        raise UserError(f"{own[0]}: lm-eval knows the suite's sets only; leave out --through")
    require_sets({"eval": config.tasks}, data_dir)
    own = _native_tasks(config.tasks, console) if native else {}
    loaded = model_for_evaluation(model, precision)
    sampler = sampler_for(engine, loaded.model, loaded.tokenizer, precision, config.batch_size)
    with progress_bar(console) as bar:
        rows: dict[str, Any] = {}

        def told(task: str, new: int, total: int) -> None:
            if task not in rows:
                rows[task] = bar.add_task(task, total=total)
            bar.advance(rows[task], new)

        answering = Answering(sampler, loaded.tokenizer, config.seed, config.batch_size, config.chat, told)
        with awake(sampler):
            found = asked_through_lm_eval(answering, chosen, config, data_dir)
            scores = {name: _native_scores(answering, task, config, console) for name, task in own.items()}
    found = [replace(each, native=scores.get(each.ours.task, {})) for each in found]
    show(agreement_table(found, config), f"{model}: avg@{config.samples} in per cent", console)
    for name in scores:
        console.print(f"lm-eval's own {name}: its prompt and grader, greedy, one response a problem", highlight=False)
    if out is not None:
        record = {
            "settings": {"model": model, "precision": precision, "engine": engine, **plain_data(config)},
            "digests": {"model": loaded.digest, "tokenizer": loaded.tokenizer_digest},
            "environment": {**versions(), **machine(), "sampler": sampler.engine, "lm_eval": version("lm_eval")},
            "sets": [plain_data(each) for each in found],
        }
        write_atomically(out / "lm_eval.json", json.dumps(record, indent=1) + "\n")
        console.print(f"result: {out / 'lm_eval.json'}", highlight=False)


def asked_through_lm_eval(
    answering: Answering, tasks: Sequence[Task], config: EvalConfig, data_dir: Path | None
) -> list[Agreement]:
    """Every task asked and scored by lm-eval, beside our own grading of the same responses."""
    metadata = {"chat": config.chat} | ({} if data_dir is None else {"data_dir": str(data_dir)})
    gen_kwargs: dict[str, Any] = {"do_sample": config.temperature > 0, "temperature": config.temperature}
    if config.max_new_tokens is not None:
        gen_kwargs["max_gen_toks"] = config.max_new_tokens
    asked = fspo_tasks(LM_EVAL_TASKS, [task.name for task in tasks], config.samples, metadata)
    results = run_lm_eval(answering, asked, config.limit, gen_kwargs)
    return [
        _agreement(answering, task, evaluation_problems(task, data_dir, config), config.samples, results)
        for task in tasks
    ]


def _agreement(
    answering: Answering, task: Task, problems: Sequence[Problem], samples: int, results: Mapping[str, Any]
) -> Agreement:
    name = PREFIX + task.name
    repeated = [problem for problem in problems for _ in range(samples)]
    rollouts = with_verdicts(answering.tokenizer, {task.name: task}, repeated, answering.rollouts[name])
    lengths, reasons = [len(r.response_ids) for r in rollouts], [r.finish_reason for r in rollouts]
    ours = summarise(task, problems, lengths, reasons, [r.verdict for r in rollouts if r.verdict is not None])
    prompts = {problem.id: encode(answering.tokenizer, task, problem, answering.chat) for problem in problems}
    theirs = {row["doc"]["id"]: row for row in results["samples"][name]}
    shares = dict(zip(ours.problem_ids, map(_shares, ours.verdicts), strict=True))
    scores = results["results"][name]
    return Agreement(
        ours=ours,
        lm_eval=scores["accuracy,every_sample"],
        error=scores["accuracy_stderr,every_sample"],
        same_prompts=sum(rollout.prompt_ids == prompts[rollout.problem_id] for rollout in rollouts),
        same_verdicts=sum(all(theirs[i][kind] == share for kind, share in shares[i].items()) for i in shares),
        native={},
    )


def _shares(verdicts: Sequence[Verdict]) -> dict[str, float]:
    kinds = {"accuracy": Verdict.CORRECT, "no_answer": Verdict.NO_ANSWER, "undecided": Verdict.UNDECIDED}
    return {name: verdicts.count(kind) / len(verdicts) for name, kind in kinds.items()}


def _native_tasks(names: Sequence[str], console: Console) -> dict[str, Any]:
    """lm-eval's own task of each set that it has; a line for each one that is not to be had."""
    found = {}
    for name in names:
        if name not in NATIVE:
            console.print(f"{name}: lm-eval has no task of its own", highlight=False)
            continue
        try:
            found[name] = native_task(NATIVE[name])
        except UserError as error:
            console.print(f"{name}: {error}", highlight=False, markup=False, soft_wrap=True)
    return found


def _native_scores(answering: Answering, task: Any, config: EvalConfig, console: Console) -> dict[str, float]:
    """What lm-eval's own task says, by the name of each metric; nothing, and a line, where it cannot be asked."""
    gen_kwargs = {} if config.max_new_tokens is None else {"max_gen_toks": config.max_new_tokens}
    try:
        results = run_lm_eval(answering, [task], config.limit, gen_kwargs)
    except UserError as error:
        console.print(f"lm-eval's own {task.task_name}: {error}", highlight=False, markup=False, soft_wrap=True)
        return {}
    scores = results["results"][task.task_name].items()
    return {k: v for k, v in scores if isinstance(v, float) and "_stderr" not in k}


def agreement_table(found: Sequence[Agreement], config: EvalConfig) -> pd.DataFrame:
    """A row a set: our accuracy with its interval, lm-eval's with its standard error, and how far they agree."""
    accuracies = compare([each.ours for each in found], [], seed=config.seed).accuracies
    ours = {row["task"]: row for row in accuracies.to_dict("records")}
    rows = []
    for each in found:
        name, row = each.ours.task, ours[each.ours.task]
        own = ", ".join(f"{metric.replace(',', ' ')} {percent(value)}" for metric, value in each.native.items())
        rows.append(
            {
                "set": name,
                "problems": len(each.ours.problem_ids),
                "ours": percent(row["accuracy"], row["low"], row["high"]),
                "lm-eval": f"{percent(each.lm_eval)} ± {percent(each.error)}",
                "same prompts": f"{each.same_prompts} of {each.responses}",
                "same verdicts": f"{each.same_verdicts} of {len(each.ours.problem_ids)}",
            }
            | ({"lm-eval's own task": own or NOTHING} if any(e.native for e in found) else {})
        )
    return pd.DataFrame(rows)
