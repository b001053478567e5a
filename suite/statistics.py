"""From verdicts to accuracies, paired differences and a verdict that says when the data cannot tell."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from scipy.special import comb

from suite.bootstrap import LEVEL, REPETITIONS, Cells, bootstrap
from suite.types import EvalResult, RunResult, UserError, Verdict

BASE = "base"
MEAN = "mean"
FEW_SEEDS = 5
MARGIN = 0.01


# --- counting verdicts ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Scores:
    """Verdicts of one model on one set: counts [seeds, problems] out of `samples` each, the wrong ones left out.

    Only correct answers count in the mean; the shares of missing and undecided ones are reported beside it.
    """

    task: str
    seeds: tuple[int, ...]
    problem_ids: tuple[str, ...]
    data_digest: str
    samples: int
    correct: np.ndarray
    no_answer: np.ndarray
    undecided: np.ndarray
    truncated_share: float

    @property
    def means(self) -> np.ndarray:
        """avg@k of every seed and problem, [seeds, problems]."""
        return self.correct / self.samples


def scores(by_seed: Mapping[int, EvalResult], model: str) -> Scores:
    """Counts of one model on one set over its seeds. `model` names it in errors.

    Raises UserError when the seeds were not evaluated on the same problems with the same number of samples.
    """
    seeds = tuple(sorted(by_seed))
    first = by_seed[seeds[0]]
    samples = len(first.verdicts[0]) if first.verdicts else 0
    for seed, result in sorted(by_seed.items()):
        if _questions(result) != _questions(first) or {len(row) for row in result.verdicts} != {samples}:
            raise UserError(
                f"{model}, seed {seed}, set {result.task}: other problems or samples than seed {seeds[0]}; "
                "evaluate again"
            )

    def count(verdict: Verdict) -> np.ndarray:
        return np.array([[row.count(verdict) for row in by_seed[seed].verdicts] for seed in seeds])

    truncated = float(np.mean([result.truncated_share for result in by_seed.values()]))
    counted = count(Verdict.CORRECT), count(Verdict.NO_ANSWER), count(Verdict.UNDECIDED)
    return Scores(first.task, seeds, first.problem_ids, first.data_digest, samples, *counted, truncated)


def _questions(result: EvalResult) -> tuple:
    return result.task, result.task_version, result.data_digest, result.problem_ids, len(result.verdicts)


def pass_at_k(correct: np.ndarray, samples: int, k: int) -> np.ndarray:
    """Unbiased chance that at least one of k samples is correct, from `correct` out of `samples`.

        1 - C(n - c, k) / C(n, k)

    Raises ValueError unless 1 <= k <= samples.

    >>> pass_at_k(np.array([0, 1, 4]), 4, 2).tolist()
    [0.0, 0.5, 1.0]

    Source: arXiv 2107.03374 eq. 1.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs 1 <= k <= {samples} samples")
    return 1 - np.asarray(comb(samples - np.asarray(correct), k)) / comb(samples, k)


# --- what the data support ------------------------------------------------------------------------


def verdict(low: float, high: float, minimum_detectable: float, *, seeds: int, margin: float = MARGIN) -> str:
    """What a difference supports, in words.

    "better" or "worse" where the interval excludes 0; else "under-powered" where not even a true difference of `margin`
    (1 point unless told) would be found with 80 % power; else "no difference found". "no variation" for nan. With at
    most 5 seeds ", few seeds" is added.

    >>> verdict(-0.01, 0.03, 0.028, seeds=3)
    'under-powered, few seeds'
    """
    if np.isnan(low) or np.isnan(high):
        words = "no variation"
    elif low > 0 or high < 0:
        words = "better" if low > 0 else "worse"
    else:
        words = "under-powered" if minimum_detectable > margin else "no difference found"
    return words + (", few seeds" if seeds <= FEW_SEEDS else "")


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


def exact_limits(value: float, problems: int) -> tuple[float, float]:
    """95 % Clopper-Pearson limits for an accuracy of exactly 0 or 1, where a bootstrap sees no variation.

    The problems count as single trials, whatever the samples and seeds: all share the same problems.
    """
    edge = ((1 - LEVEL) / 2) ** (1 / problems)
    return (0.0, 1 - edge) if value == 0 else (edge, 1.0)


# --- the comparison -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Tidy tables. accuracies: one row per model and set; differences: one per pair of models and set (method minus
    reference); by_seed: one per model, seed and set. The set "mean" is the mean over the sets.
    """

    accuracies: pd.DataFrame
    differences: pd.DataFrame
    by_seed: pd.DataFrame


def compare(
    base: Sequence[EvalResult],
    runs: Sequence[RunResult],
    *,
    seed: int,
    repetitions: int = REPETITIONS,
    margin: float = MARGIN,
) -> Comparison:
    """Accuracies of the base model and of every method, differences to the base and between methods, with intervals.

    `seed` fixes the bootstrap. Methods are compared on the seeds that both have; Holm's correction runs over all
    methods of one reference and set. Raises UserError when models were evaluated on different problems or samples, or
    two methods share no seed.
    """
    models = {BASE: {result.task: scores({0: result}, "base model") for result in base}}
    for method in dict.fromkeys(run.method for run in runs):
        models[method] = _method_scores(method, [run for run in runs if run.method == method])
    _require_same_sets(models)
    tasks = list(models[BASE])
    sets = {task: [task] for task in tasks} | ({MEAN: tasks} if len(tasks) > 1 else {})

    quantities: dict[tuple[str, str, str], Cells] = {}
    for label, members in sets.items():
        for model, by_task in models.items():
            quantities[model, "", label] = {task: by_task[task].means for task in members}
        for method, reference in _pairs(models):
            pair = {task: _paired(models[method][task], models[reference][task], method, reference) for task in members}
            quantities[method, reference, label] = pair
    found = bootstrap({repr(key): cells for key, cells in quantities.items()}, seed=seed, repetitions=repetitions)
    estimates = {key: found[repr(key)] for key in quantities}

    accuracies, differences = [], []
    for (model, reference, label), estimate in estimates.items():
        numbers = asdict(estimate)
        if reference:
            words = verdict(
                estimate.low, estimate.high, estimate.minimum_detectable, seeds=estimate.seeds, margin=margin
            )
            row = {"method": model, "reference": reference, "task": label, "difference": numbers.pop("value")}
            differences.append(row | numbers | {"verdict": words})
        else:
            counts = [models[model][task] for task in sets[label]]
            accuracies.append({"method": model, "task": label} | _accuracy_row(numbers, counts))
    return Comparison(pd.DataFrame(accuracies), _with_holm(differences), pd.DataFrame(_seed_rows(models, sets)))


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


def _paired(method: Scores, reference: Scores, name: str, other: str) -> np.ndarray:
    """Difference of avg@k per seed and problem, over common seeds; the base model serves every seed."""
    if other == BASE:
        return method.means - reference.means
    common = sorted(set(method.seeds) & set(reference.seeds))
    if not common:
        raise UserError(f"{name} and {other} have no seed in common: train both on the same seeds")
    rows = [[model.seeds.index(seed) for seed in common] for model in (method, reference)]
    return method.means[rows[0]] - reference.means[rows[1]]


def _accuracy_row(numbers: dict, counts: Sequence[Scores]) -> dict:
    """The columns of one accuracy: estimate, limits, and the counts behind them."""
    value = numbers["value"]
    low, high = numbers["low"], numbers["high"]
    problems = sum(len(found.problem_ids) for found in counts)
    if np.isnan(low) and value in (0, 1):
        low, high = exact_limits(value, problems)
    samples = min(found.samples for found in counts)
    passed = np.mean([pass_at_k(found.correct, found.samples, samples).mean() for found in counts])
    no_answer = np.mean([found.no_answer.mean() / found.samples for found in counts])
    undecided = np.mean([found.undecided.mean() / found.samples for found in counts])
    return {
        "accuracy": value,
        "low": float(np.clip(low, 0, 1)),
        "high": float(np.clip(high, 0, 1)),
        "standard_error": numbers["standard_error"],
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


def _with_holm(rows: Sequence[dict]) -> pd.DataFrame:
    """The differences, with p-values adjusted over the methods of each reference kind (base, or another) and set."""
    frame = pd.DataFrame(rows)
    if frame.empty:
        return frame
    family = [frame["task"], frame["reference"] == BASE]
    frame["p_holm"] = frame.groupby(family)["p_value"].transform(lambda p: holm(p.to_numpy()))
    return frame
