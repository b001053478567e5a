"""What pairing and common random numbers bought: how far two models' errors move together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from suite.records.result import BASE
from suite.statistics.variance import measured_error
from suite.statistics.verdict_counts import Scores
from suite.types import UserError


def common_hits(models: Mapping[str, Mapping[str, Scores]], method: str, reference: str, task: str) -> list[np.ndarray]:
    """Correct answers of both models on the seeds they share, each [seeds, problems, samples]; base serves every seed.

    Raises UserError when two methods share no seed.
    """
    one, other = models[method][task], models[reference][task]
    if reference == BASE:
        return [one.hits, np.broadcast_to(other.hits, (len(one.seeds), *other.hits.shape[1:]))]
    common = sorted(set(one.seeds) & set(other.seeds))
    if not common:
        raise UserError(f"{method} and {reference} have no seed in common: train both on the same seeds")
    return [model.hits[[model.seeds.index(seed) for seed in common]] for model in (one, other)]


def pairing_row(
    models: Mapping[str, Mapping[str, Scores]], method: str, reference: str, tasks: Sequence[str]
) -> dict[str, float | int]:
    """Over the given sets: correlations of two models, and how often larger an unpaired difference's variance is.

    correlation         of avg@k over (seed, problem), within sets: what comparing on the same problems is worth
    sample_correlation  of single samples within (seed, problem): what the common random numbers add; nan where a cell
                        has one sample or the models have not equally many
    variance_factor     (error(method)^2 + error(reference)^2) / error(difference)^2, errors of the mean over the sets
    """
    pairs = {task: common_hits(models, method, reference, task) for task in tasks}
    cells = [{task: pair[i].mean(axis=2) for task, pair in pairs.items()} for i in (0, 1)]
    if reference == BASE:
        cells[1] = {task: matrix[:1] for task, matrix in cells[1].items()}
    difference = {task: cells[0][task] - cells[1][task] for task in tasks}
    errors = [measured_error(each)[0] for each in (*cells, difference)]
    whole = errors[2] ** 2
    return {
        "seeds": len(difference[tasks[0]]),
        "correlation": _correlation([[pair[i].mean(axis=2) for pair in pairs.values()] for i in (0, 1)], None),
        "sample_correlation": _correlation([[pair[i].astype(float) for pair in pairs.values()] for i in (0, 1)], 2),
        "variance_factor": (errors[0] ** 2 + errors[1] ** 2) / whole if whole > 0 else float("nan"),
    }


def _correlation(sides: Sequence[Sequence[np.ndarray]], axis: int | None) -> float:
    """Correlation of deviations from each array's mean (over `axis`, or all of it), pooled over pairs of arrays."""
    products = np.zeros(3)
    for one, other in zip(*sides, strict=True):
        if one.shape != other.shape:
            return float("nan")
        a, b = (x - x.mean(axis=axis, keepdims=True) for x in (one, other))
        products += [(a * b).sum(), (a * a).sum(), (b * b).sum()]
    scale = np.sqrt(products[1] * products[2])
    return float(products[0] / scale) if scale > 0 else float("nan")
