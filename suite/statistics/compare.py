"""From verdicts to accuracies, paired differences and a verdict that says when the data cannot tell."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from suite.config import MEAN
from suite.records.result import BASE
from suite.statistics.bootstrap import REPETITIONS, bootstrap
from suite.statistics.intervals import SMALL_SET, effective_trials, exact_limits, few_seeds, wilson_limits
from suite.statistics.pairing import common_hits, pairing_row
from suite.statistics.variance import Cells
from suite.statistics.verdict_counts import Scores, pass_at_k, scores
from suite.types import EvalResult, RunResult, UserError

MARGIN = 0.01
ALPHA = 0.05
BEFORE_HOLM = "before Holm's correction"
"""What is said of a difference whose own interval excludes 0, but not once the other comparisons are counted."""


# --- what the data support ------------------------------------------------------------------------


def difference_words(low: float, high: float, minimum_detectable: float, *, seeds: int, margin: float = MARGIN) -> str:
    """What a difference supports, in words.

    "better" or "worse" where the interval excludes 0; else "under-powered" where not even a true difference of `margin`
    (1 point unless told) would be found with 80 % power; else "no difference found". "no variation" for nan. With at
    most 5 seeds ", few seeds" is added, and what such an interval was measured to cover.

    >>> difference_words(-0.01, 0.03, 0.028, seeds=8), difference_words(0.01, 0.03, 0.028, seeds=1)
    ('under-powered', 'better, few seeds')
    """
    if np.isnan(low) or np.isnan(high):
        words = "no variation"
    elif low > 0 or high < 0:
        words = "better" if low > 0 else "worse"
    else:
        words = "under-powered" if minimum_detectable > margin else "no difference found"
    return words + few_seeds(seeds)


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values adjusted for testing several methods at once (Holm's step-down); nan stays nan and does not count.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, float)
    adjusted = np.full_like(p, np.nan)
    order = [i for i in np.argsort(p, kind="stable") if not np.isnan(p[i])]
    steps = [(len(order) - rank) * p[i] for rank, i in enumerate(order)]
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1) if order else []
    return adjusted


# --- the comparison -------------------------------------------------------------------------------


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
) -> Estimates:
    """Accuracies of the base model and of every method, differences to the base and between methods, with intervals.

    `seed` fixes the bootstrap. Methods are compared on the seeds that both have. `primary` is the outcome declared
    before the run, a set or "mean" (the one set, where there is one): its p-values are adjusted over the methods, those
    of the other outcomes over methods and sets; differences to the base and between methods are two families. Raises
    UserError when models were evaluated on different problems or samples, two methods share no seed, or there is no
    such primary outcome.
    """
    models = models_of(base, runs)
    tasks = list(models[BASE])
    sets = {task: [task] for task in tasks} | ({MEAN: tasks} if len(tasks) > 1 else {})
    primary = tasks[0] if primary == MEAN and len(tasks) == 1 else primary
    if primary not in sets:
        raise UserError(f"primary outcome {primary}: no such set; there are {', '.join(sets)}")

    quantities: dict[tuple[str, str, str], Cells] = {}
    for label, members in sets.items():
        for model, by_task in models.items():
            quantities[model, "", label] = {task: by_task[task].means for task in members}
        for method, reference in _pairs(models):
            pairs = {task: common_hits(models, method, reference, task) for task in members}
            quantities[method, reference, label] = {
                task: one.mean(axis=2) - other.mean(axis=2) for task, (one, other) in pairs.items()
            }
    found = bootstrap({repr(key): cells for key, cells in quantities.items()}, seed=seed, repetitions=repetitions)
    estimates = {key: found[repr(key)] for key in quantities}

    accuracies, differences, pairing = [], [], []
    for (model, reference, label), estimate in estimates.items():
        numbers = asdict(estimate)
        if reference:
            words = difference_words(
                estimate.low, estimate.high, estimate.minimum_detectable, seeds=estimate.seeds, margin=margin
            )
            row = {"method": model, "reference": reference, "task": label, "difference": numbers.pop("value")}
            differences.append(row | numbers | {"verdict": words})
            names = {"method": model, "reference": reference, "task": label}
            pairing.append(names | pairing_row(models, model, reference, sets[label]))
        else:
            counts = [models[model][task] for task in sets[label]]
            accuracies.append({"method": model, "task": label} | _accuracy_row(numbers, counts))
    by_seed = pd.DataFrame(_seed_rows(models, sets))
    return Estimates(pd.DataFrame(accuracies), _with_holm(differences, primary), by_seed, pd.DataFrame(pairing))


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


def _pairs(models: Iterable[str]) -> list[tuple[str, str]]:
    """(method, reference): every method against the base, and every two methods once."""
    methods = [model for model in models if model != BASE]
    return [(method, BASE) for method in methods] + [(a, b) for a, b in itertools.combinations(methods, 2)]


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


def _with_holm(rows: Sequence[dict], primary: str) -> pd.DataFrame:
    """The differences with adjusted p-values: of the primary outcome over methods, of the others over methods and sets;
    differences to the base and between methods apart. A verdict that the adjustment does not leave standing says so.
    """
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    family = [frame["task"] == primary, frame["reference"] == BASE]
    frame["primary"] = frame["task"] == primary
    frame["p_holm"] = frame.groupby(family)["p_value"].transform(lambda p: holm(p.to_numpy()))
    lost = frame["verdict"].str.match("better|worse") & (frame["p_holm"] >= ALPHA)
    frame.loc[lost, "verdict"] = frame["verdict"].str.replace(r"^(better|worse)", rf"\1 {BEFORE_HOLM}", regex=True)
    return frame
