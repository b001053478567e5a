"""Limits for one accuracy on a small set, and what our intervals were measured to cover with few seeds."""

from __future__ import annotations

import math

import numpy as np
from scipy.special import stdtrit
from scipy.stats import sem, t

from suite.statistics.variance import LEVEL

SMALL_SET = 300
FEW_SEEDS = 5
MEASURED_COVERAGE = {2: 0.89, 3: 0.92, 4: 0.91, 5: 0.93}
"""Lowest coverage of a nominal 95 % interval in the worlds of results/coverage, by number of seeds."""


FALSE_VERDICTS, LOWEST_COVERAGE = 0.05, 0.939
"""Largest family-wise error and lowest coverage of results/family_error, over its worlds and numbers of seeds."""
MEASURED_FAMILY = (
    f"in simulated comparisons without a difference at most {100 * FALSE_VERDICTS:.1f} % had any verdict of better or "
    f"worse, and the intervals covered at least {100 * LOWEST_COVERAGE:.1f} %"
)
"""The same in the words of a report."""


def few_seeds(seeds: int) -> str:
    """ ", few seeds (they covered .92 when measured)" for at most 5 seeds, "" for more; one seed has no coverage."""
    if seeds > FEW_SEEDS:
        return ""
    measured = MEASURED_COVERAGE.get(seeds)
    said = "" if measured is None else f" (they covered {measured:.2f} when measured)".replace("0.", ".")
    return f", few seeds{said}"


def exact_limits(value: float, problems: int) -> tuple[float, float]:
    """95 % Clopper-Pearson limits for an accuracy of exactly 0 or 1, where a bootstrap sees no variation.

    The problems count as single trials, whatever the samples and seeds: all share the same problems.
    """
    edge = ((1 - LEVEL) / 2) ** (1 / problems)
    return (0.0, 1 - edge) if value == 0 else (edge, 1.0)


def effective_trials(value: float, standard_error: float) -> float:
    """The number of independent coin flips that would have this standard error: p (1 - p) / error^2.

    avg@k over seeds is no single Bernoulli: samples and seeds of one problem hang together, and problems differ.
    Source: the effective sample size of Korn and Graubard 1998 (complex surveys).
    """
    return value * (1 - value) / standard_error**2


def wilson_limits(value: float, trials: float, df: float = float("inf")) -> tuple[float, float]:
    """95 % Wilson score limits of a share from so many (effective, so not always whole) trials.

        (p + t^2/2n -+ t sqrt(p (1 - p)/n + t^2/4n^2)) / (1 + t^2/n),   t = t(.975, df)

    df: degrees of freedom of the variance behind the trials. Lies within [0, 1].

    >>> [round(x, 3) for x in wilson_limits(0.1, 30)]
    [0.035, 0.256]
    """
    t = stdtrit(df, (1 + LEVEL) / 2)
    middle, half = value + t**2 / (2 * trials), t * np.sqrt(value * (1 - value) / trials + (t / trials) ** 2 / 4)
    return float((middle - half) / (1 + t**2 / trials)), float((middle + half) / (1 + t**2 / trials))


def t_interval(values: np.ndarray) -> tuple[float, float]:
    """95 % t interval of the mean of independent values; nan for fewer than two, or for values that do not differ.

    Equal values do not show how far others would lie apart.

    >>> [round(x, 3) for x in t_interval(np.array([0.1, 0.2, 0.3]))]
    [-0.048, 0.448]
    """
    if len(values) < 2 or np.ptp(values) == 0:
        return math.nan, math.nan
    middle, error = float(np.mean(values)), float(sem(values))
    low, high = t.interval(LEVEL, len(values) - 1, middle, error)
    return float(low), float(high)
