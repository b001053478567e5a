"""The rule that turns differences into verdicts, fixed on 2026-11-29, before the runs that it judges [ours].

    better, worse          the Holm-adjusted p of the declared family is below .05
    equal within 1 point   else, two one-sided tests hold: the 90 % interval lies within -1 and +1 point, and the larger
                           of the two one-sided p, Holm-adjusted over the same family, is below .05
    undecided              else; always said with the difference that the design finds with 80 % power
    exploratory            outside the declared families: unadjusted intervals, no verdict

Families: the declared pairs on the primary outcome; the declared pairs times all other outcomes (single sets). A pair
without a p-value (no variation, one seed) counts in its family, whose size the data do not decide. Each error, a false
"better" or "worse" anywhere in a family, and a false "equal" anywhere in it, is held to 5 %.

Reasons. The rule before this one called an interval around 0 "no difference found" or "under-powered" by the power
that the same data were estimated to have: [-1.09, +0.21] was the first, [-1.0, +0.9] the second. Observed power is a
function of the p-value and says nothing beside it; that two methods are equal has to be shown by a test of its own.
And a correction over all pairs of methods charges the question of the paper for questions that nobody asked.
Source: Holm 1979; two one-sided tests, Schuirmann 1987; observed power, Hoenig and Heisey 2001; families, margin ours.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtr, stdtrit

from suite.statistics.bootstrap import INNER
from suite.statistics.variance import minimum_detectable

ALPHA = 0.05
MARGIN = 0.01
"""Accuracies that differ by less than one point are called equal."""

BETTER, WORSE, UNDECIDED = "better", "worse", "undecided"
EXPLORATORY, NO_VARIATION = "exploratory", "no variation"
PRIMARY, SETS = "primary", "sets"
"""The two declared families, beside EXPLORATORY, in the column `family`."""


def equal_words(margin: float = MARGIN) -> str:
    """The verdict of two one-sided tests that hold.

    >>> equal_words(), equal_words(0.02)
    ('equal within 1 point', 'equal within 2 points')
    """
    return f"equal within {100 * margin:g} point{'' if margin == 0.01 else 's'}"


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values adjusted for testing several methods at once (Holm's step-down); nan stays nan, and counts as a test.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist(), holm([0.01, float("nan")]).round(2).tolist()
    ([0.03, 0.06, 0.06], [0.02, nan])
    """
    p = np.asarray(p_values, float)
    adjusted = np.full_like(p, np.nan)
    order = [i for i in np.argsort(p, kind="stable") if not np.isnan(p[i])]
    steps = [(len(p) - rank) * p[i] for rank, i in enumerate(order)]
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1) if order else []
    return adjusted


def equivalence_p(value: float, low_90: float, high_90: float, df: float, margin: float = MARGIN) -> float:
    """p of "the true difference lies outside -margin to +margin": the larger of two one-sided p from t(df).

        max over both ends of P(T > (margin -+ value) / error),   error = half of the 90 % interval / t(.95, df)

    Each end is on the scale of the interval's half that faces it: below .05 where the 90 % interval lies within the
    margins, and nowhere else. nan stays nan.
    """
    quantile = stdtrit(df, (1 + INNER) / 2)
    ends = ((margin - value) / (high_90 - value), (value + margin) / (value - low_90))
    return float(max(stdtr(df, -each * quantile) for each in ends))


def verdict(difference: float, low: float, p_holm: float, p_equal_holm: float, margin: float = MARGIN) -> str:
    """The word for one difference of a declared family.

    >>> verdict(0.03, 0.01, 0.004, 1.0), verdict(0.001, -0.004, 0.7, 0.01), verdict(0.01, -0.01, 0.3, 0.5)
    ('better', 'equal within 1 point', 'undecided')
    """
    if np.isnan(low):
        return NO_VARIATION
    if p_holm < ALPHA:
        return BETTER if difference > 0 else WORSE
    return equal_words(margin) if p_equal_holm < ALPHA else UNDECIDED


def by_the_rule(
    rows: Sequence[Mapping[str, Any]], declared: Collection[tuple[str, str]], primary: str, margin: float = MARGIN
) -> pd.DataFrame:
    """Differences with their family, adjusted p-values, the design's detectable difference, and verdicts.

    `rows` hold method, reference, task, difference, low, high, low_90, high_90, standard_error, minimum_detectable, p,
    df and seeds. A pair with one seed has no p: how its seeds would differ is unknown.
    """
    made = [_alone(row, declared, primary, margin) for row in rows]
    for family in (PRIMARY, SETS):
        part = [row for row in made if row["family"] == family]
        adjusted = zip(part, holm([r["p"] for r in part]), holm([r["p_equal"] for r in part]), strict=True)
        for row, p_holm, p_equal_holm in adjusted:
            row |= {"p_holm": float(p_holm), "p_equal_holm": float(p_equal_holm)}
            row["verdict"] = verdict(row["difference"], row["low"], p_holm, p_equal_holm, margin)
        for task in dict.fromkeys(row["task"] for row in part):
            outcome = [row for row in part if row["task"] == task and not np.isnan(row["p"])]
            found = _detectable(outcome, len(part))
            for row in outcome:
                row["minimum_detectable"] = found
    others = [name for name in (made[0] if made else {}) if name not in COLUMNS]
    return pd.DataFrame(made, columns=pd.Index([*COLUMNS, *others]))


COLUMNS = (
    *("method", "reference", "task", "difference", "low", "high", "low_90", "high_90"),
    *("p", "p_holm", "p_equal_holm", "verdict", "family", "minimum_detectable", "standard_error", "df", "seeds"),
)
"""The first columns of differences, in order."""


def _alone(
    row: Mapping[str, Any], declared: Collection[tuple[str, str]], primary: str, margin: float
) -> dict[str, Any]:
    """What is known of a difference before its family is: an exploratory one is finished."""
    family = PRIMARY if row["task"] == primary else SETS
    p_equal = equivalence_p(row["difference"], row["low_90"], row["high_90"], row["df"], margin)
    made = {**row, "p_equal": p_equal, "p_holm": np.nan, "p_equal_holm": np.nan, "verdict": EXPLORATORY}
    made["family"] = family if (row["method"], row["reference"]) in declared else EXPLORATORY
    return made | (dict.fromkeys(("p", "p_equal", "minimum_detectable"), np.nan) if row["seeds"] < 2 else {})


def _detectable(outcome: Sequence[Mapping[str, Any]], tests: int) -> float:
    """What the design finds with 80 % power at the first step of Holm's correction, one number an outcome.

    From the root mean square of the family's standard errors and the median of their degrees of freedom, so that it is
    not one pair's luck that says what the design could find. nan for no rows.
    """
    if not outcome:
        return float("nan")
    error = float(np.sqrt(np.mean([row["standard_error"] ** 2 for row in outcome])))
    return minimum_detectable(error, float(np.median([row["df"] for row in outcome])), tests=tests)
