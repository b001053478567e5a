"""From verdicts to accuracies and paired differences, judged by the rule of `suite.statistics.verdicts`."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from suite.config import MEAN
from suite.records.result import BASE
from suite.statistics.bootstrap import REPETITIONS, bootstrap
from suite.statistics.intervals import SMALL_SET, effective_trials, exact_limits, wilson_limits
from suite.statistics.pairing import common_hits, pairing_row
from suite.statistics.variance import Cells, SeedDoubt, seed_doubt
from suite.statistics.verdict_counts import Scores, pass_at_k, scores
from suite.statistics.verdicts import ALPHA, MARGIN, by_the_rule, holm
from suite.types import EvalResult, RunResult, UserError

__all__ = ["ALPHA", "MARGIN", "Estimates", "compare", "holm", "models_of"]

Key = tuple[str, str, str]
"""Model, reference ("" for an accuracy) and outcome of a quantity."""


@dataclass(frozen=True)
class Estimates:
    """Tidy tables. accuracies: one row per model and set; differences: one per pair of models and set (method minus
    reference); by_seed: one per model, seed and set; pairing: what pairing bought, one row per row of differences. The
    set "mean" is the mean over the sets.
    """

    accuracies: pd.DataFrame
    differences: pd.DataFrame
    by_seed: pd.DataFrame
    pairing: pd.DataFrame


def compare(
    base: Sequence[EvalResult],
    runs: Sequence[RunResult],
    *,
    seed: int,
    repetitions: int = REPETITIONS,
    margin: float = MARGIN,
    primary: str = MEAN,
    focus: str = "",
    rivals: Collection[str] = (),
) -> Estimates:
    """Accuracies of the base model and of every method, differences to the base and between methods, with intervals.

    `seed` fixes the bootstrap. Methods are compared on the seeds that both have. `primary` is the outcome declared
    before the run, a set or "mean" (the one set, where there is one). The declared pairs are those of the method
    `focus` with each of its `rivals`; where none of them was run, all pairs of methods. The others and those with the
    base model are exploratory. Raises UserError when models were evaluated on different problems or samples, two
    methods share no seed, or there is no such primary outcome.
    """
    models = models_of(base, runs)
    tasks = list(models[BASE])
    sets = {task: [task] for task in tasks} | ({MEAN: tasks} if len(tasks) > 1 else {})
    primary = tasks[0] if primary == MEAN and len(tasks) == 1 else primary
    if primary not in sets:
        raise UserError(f"primary outcome {primary}: no such set; there are {', '.join(sets)}")

    quantities = _quantities(models, sets, focus)
    doubts = {repr(key): doubt for key, doubt in _doubts(quantities).items()}
    named = {repr(key): cells for key, cells in quantities.items()}
    found = bootstrap(named, seed=seed, repetitions=repetitions, doubts=doubts)
    accuracies, differences, pairing = [], [], []
    for model, reference, label in quantities:
        numbers = asdict(found[repr((model, reference, label))])
        if reference:
            names = {"method": model, "reference": reference, "task": label}
            differences.append(names | {"difference": numbers.pop("value")} | numbers)
            pairing.append(names | pairing_row(models, model, reference, sets[label]))
        else:
            counts = [models[model][task] for task in sets[label]]
            accuracies.append({"method": model, "task": label} | _accuracy_row(numbers, counts))
    between = [pair for pair in _pairs(models, focus) if pair[1] != BASE]
    declared = [pair for pair in between if pair[0] == focus and pair[1] in rivals] or between
    by_seed = pd.DataFrame(_seed_rows(models, sets))
    judgements = by_the_rule(differences, declared, primary, margin)
    return Estimates(pd.DataFrame(accuracies), judgements, by_seed, pd.DataFrame(pairing))


def _quantities(
    models: Mapping[str, Mapping[str, Scores]], sets: Mapping[str, Sequence[str]], focus: str
) -> dict[Key, Cells]:
    """Everything that gets an interval: accuracies and paired differences, outcome by outcome."""
    found: dict[Key, Cells] = {}
    for label, members in sets.items():
        for model, by_task in models.items():
            found[model, "", label] = {task: by_task[task].means for task in members}
        for method, reference in _pairs(models, focus):
            pairs = {task: common_hits(models, method, reference, task) for task in members}
            found[method, reference, label] = {
                task: one.mean(axis=2) - other.mean(axis=2) for task, (one, other) in pairs.items()
            }
    return found


def _doubts(quantities: Mapping[Key, Cells]) -> dict[Key, SeedDoubt]:
    """The pooled seed variance of every difference: over those of its outcome to the base, or between methods."""
    kinds: dict[tuple[bool, str], list[Key]] = {}
    for key in quantities:
        _, reference, label = key
        if reference:
            kinds.setdefault((reference == BASE, label), []).append(key)
    pooled = {kind: seed_doubt([quantities[key] for key in keys]) for kind, keys in kinds.items()}
    return {key: pooled[kind] for kind, keys in kinds.items() for key in keys}


def models_of(base: Sequence[EvalResult], runs: Sequence[RunResult]) -> dict[str, dict[str, Scores]]:
    """Scores by model and set, the base model first. Raises UserError where models cannot be compared."""
    models = {BASE: {result.task: scores({0: result}, "base model") for result in base}}
    for method in dict.fromkeys(run.method for run in runs):
        models[method] = _method_scores(method, [run for run in runs if run.method == method])
    _require_same_sets(models)
    return models


def _method_scores(method: str, runs: Sequence[RunResult]) -> dict[str, Scores]:
    tasks = [result.task for result in runs[0].evals]
    by_task: dict[str, dict[int, EvalResult]] = {task: {} for task in tasks}
    for run in runs:
        if [result.task for result in run.evals] != tasks:
            raise UserError(
                f"{method}, seed {run.seed}: other evaluation sets than seed {runs[0].seed}; evaluate again"
            )
        for result in run.evals:
            if run.seed in by_task[result.task]:
                raise UserError(f"{method}, seed {run.seed} is there twice: keep one of the two results")
            by_task[result.task][run.seed] = result
    return {task: scores(by_seed, method) for task, by_seed in by_task.items()}


def _require_same_sets(models: Mapping[str, Mapping[str, Scores]]) -> None:
    base = models[BASE]
    if not base:
        raise UserError("the base model has no evaluation: evaluate it first")
    for model, by_task in models.items():
        if list(by_task) != list(base):
            raise UserError(f"{model} was evaluated on {', '.join(by_task)}, the base model on {', '.join(base)}")
        for task, found in by_task.items():
            if (found.problem_ids, found.data_digest) != (base[task].problem_ids, base[task].data_digest):
                raise UserError(f"{model}, set {task}: other problems than the base model's; evaluate it again")


def _pairs(models: Collection[str], focus: str) -> list[tuple[str, str]]:
    """(method, reference): every method against the base, and every two methods once, the one in focus first."""
    methods = [model for model in models if model != BASE]
    methods = [name for name in methods if name == focus] + [name for name in methods if name != focus]
    return [(model, BASE) for model in models if model != BASE] + list(itertools.combinations(methods, 2))


def _accuracy_row(numbers: dict, counts: Sequence[Scores]) -> dict:
    """The columns of one accuracy: estimate, limits and what made them, and the counts behind them."""
    value = numbers["value"]
    low, high, error = numbers["low"], numbers["high"], numbers["standard_error"]
    problems = sum(len(found.problem_ids) for found in counts)
    kind, trials = "bootstrap", effective_trials(value, error)
    if np.isnan(low):
        kind = "none"
        if value in (0, 1):
            kind, (low, high) = "exact", exact_limits(value, problems)
    elif len(counts) == 1 and problems < SMALL_SET:
        kind, (low, high) = "wilson", wilson_limits(value, trials, numbers["df"])
    samples = min(found.samples for found in counts)
    passed = np.mean([pass_at_k(found.correct, found.samples, samples).mean() for found in counts])
    no_answer = np.mean([found.no_answer.mean() / found.samples for found in counts])
    undecided = np.mean([found.undecided.mean() / found.samples for found in counts])
    return {
        "accuracy": value,
        "low": float(np.clip(low, 0, 1)),
        "high": float(np.clip(high, 0, 1)),
        "interval": kind,
        "standard_error": error,
        "effective_trials": trials,
        "seeds": numbers["seeds"],
        "problems": problems,
        "samples": samples,
        "pass_at_samples": float(passed),
        "no_answer_share": float(no_answer),
        "undecided_share": float(undecided),
        "truncated_share": float(np.mean([found.truncated_share for found in counts])),
        "mean_length": float(np.mean([found.mean_length for found in counts])),
    }


def _seed_rows(models: Mapping[str, Mapping[str, Scores]], sets: Mapping[str, Sequence[str]]) -> list[dict]:
    rows = []
    for (model, by_task), (label, members) in itertools.product(models.items(), sets.items()):
        means = np.mean([by_task[task].means.mean(axis=1) for task in members], axis=0)
        seeds = by_task[members[0]].seeds
        rows += [
            {"method": model, "seed": s, "task": label, "accuracy": float(m)} for s, m in zip(seeds, means, strict=True)
        ]
    return rows
