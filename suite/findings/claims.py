"""The five claims of FSPO's abstract, each beside what a comparison measured: a verdict computed from intervals.

The wording of the claims is ours, after the abstract of arXiv 2509.09177; so are the rules that turn an interval into a
verdict. "supported" is said of these runs, this model and these sets, never of the paper's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import sem, t, ttest_rel

from suite.records.result import BASE
from suite.replay.update_directions import ROUNDING
from suite.statistics.compare import ALPHA, MARGIN, holm
from suite.statistics.frames import names_of, numbers_of, percent, select

OURS = "fspo"
FIXED = ("rloo", "gspo")
"""The rivals that clip a whole response in a fixed range: of its log ratio, and of its mean log ratio."""
FLAT = 0.01
"""A slope between -1 and +1 points per doubling reweights nobody."""
FALLS_BELOW = 0.05
"""Share of updates below the bound that the second claim may have."""

SUPPORTED, NOT_SUPPORTED = "supported", "not supported"
UNDER_POWERED, NOT_TESTABLE = "under-powered", "not testable here"


@dataclass(frozen=True)
class Claim:
    """One claim: what is said, what was measured with its interval, which runs that took, and the computed verdict."""

    claim: str
    measured: str
    runs: str
    verdict: str


def claim_verdict(holds: Sequence[bool], refuted: Sequence[bool]) -> str:
    """`supported` where every part holds, `not supported` where one is refuted, else `under-powered`.

    >>> (claim_verdict([True, True], [False, False]), claim_verdict([True, False], [False, True]),
    ... claim_verdict([True, False], [False] * 2))
    ('supported', 'not supported', 'under-powered')
    """
    if any(refuted):
        return NOT_SUPPORTED
    return SUPPORTED if all(holds) else UNDER_POWERED


def reweighting(fairness: pd.DataFrame, runs: str) -> Claim:
    """Fixed ranges clip short and long responses unequally: the slope of the outside-band share excludes 0.

    Refuted where a slope's whole interval lies within one point per doubling. At ranges matched to one clip rate.
    """
    text = "A fixed range on the sequence ratio reweights short against long responses"
    rows = _matched(fairness, FIXED)
    if not rows:
        return _untestable(text, f"needs {' or '.join(FIXED)}")
    holds = [r["outside_slope_low"] > 0 or r["outside_slope_high"] < 0 for r in rows.values()]
    refuted = [r["outside_slope_low"] > -FLAT and r["outside_slope_high"] < FLAT for r in rows.values()]
    return Claim(text, _slopes(rows), runs, claim_verdict(holds, refuted))


def bounding(bounds: pd.DataFrame, runs: str) -> Claim:
    """A small LRE bounds the cosine of clipped and true update: real updates rarely lie below the bound.

    `bounds` as `update_directions.log_prob_bounds` returns them; the form of the bound is ours. Supported where the t
    interval over cells of the share below it ends under 5 per cent, refuted where it begins above.
    """
    text = "A small LRE bounds the cosine between the clipped and the true update from below"
    said = bounds.take(np.flatnonzero(bounds["bound"].notna()))
    shares = np.array([numbers_of(select(said, cell=cell), "violated").mean() for cell in names_of(said, "cell")])
    if len(shares) < 2:
        return _untestable(text, f"needs two cells with K LRE < 1; it reached 1 in {len(bounds) - len(said)} updates")
    share, error = float(shares.mean()), float(sem(shares))
    low, high = (share, share) if error == 0 else t.interval(1 - ALPHA, len(shares) - 1, share, error)
    scaled = int(np.sum(numbers_of(said, "scaled") < numbers_of(said, "bound") - ROUNDING))
    measured = (
        f"{len(said)} of {len(bounds)} updates have K LRE < 1. Updates scaled by length, as the bound assumes, lie "
        f"below it in {scaled}; real clips, which choose within a length, in {percent(share, max(low, 0.0), high)} %"
    )
    return Claim(text, measured, runs, claim_verdict([high < FALLS_BELOW], [low > FALLS_BELOW]))


def flattening(fairness: pd.DataFrame, runs: str) -> Claim:
    """FSPO's band makes clip rates even: its slope is nearer to 0 than that of each fixed range, intervals apart."""
    text = "The drift and sqrt(L) band flattens clip rates over length"
    rows = _matched(fairness, (OURS, *FIXED))
    if OURS not in rows or len(rows) < 2:
        return _untestable(text, f"needs {OURS} and one of {', '.join(FIXED)}")
    sizes = {name: _size(r["outside_slope_low"], r["outside_slope_high"]) for name, r in rows.items()}
    rivals = [size for name, size in sizes.items() if name != OURS]
    (nearest, farthest) = sizes[OURS]
    verdict = claim_verdict([farthest < low for low, _ in rivals], [nearest > high for _, high in rivals])
    return Claim(text, _slopes(rows), runs, verdict)


def steadiness(stability: pd.DataFrame, runs: str) -> Claim:
    """FSPO trains more steadily: its largest drawdown of reward is below every other method's, paired over runs.

    t intervals of the difference over (learning rate, seed). Refuted where FSPO's is larger than one method's (Holm).
    """
    text = "Training is more stable"
    wide = stability.pivot(index=["learning_rate", "seed"], columns="method", values="drawdown")
    if OURS not in wide or wide.shape[1] < 2 or len(wide) < 2:
        return _untestable(text, f"needs {OURS}, another method and two runs of each")
    rivals = [name for name in wide.columns if name != OURS]
    tests = {name: ttest_rel(wide[name], wide[OURS], nan_policy="omit") for name in rivals}
    limits = {name: test.confidence_interval() for name, test in tests.items()}
    worse = holm([tests[name].pvalue for name in rivals]) < ALPHA
    means = {name: float(np.nanmean(numbers_of(wide, name))) for name in [OURS, *rivals]}
    fallen = {name: int(numbers_of(select(stability, method=name), "collapsed").sum()) for name in means}
    measured = (
        f"mean drawdown of reward {', '.join(f'{name} {x:.3f}' for name, x in means.items())}; minus FSPO's "
        + ", ".join(f"{name} {means[name] - means[OURS]:+.3f} {_interval(ci)}" for name, ci in limits.items())
        + f"; collapsed runs {', '.join(f'{name} {count}' for name, count in fallen.items())} of {len(wide)}"
    )
    refuted = [bool(w) and limits[name].high < 0 for name, w in zip(rivals, worse, strict=True)]
    return Claim(text, measured, runs, claim_verdict([limits[name].low > 0 for name in rivals], refuted))


def superiority(differences: pd.DataFrame, sets: int, runs: str) -> Claim:
    """FSPO is better than every other method on the mean of sets.

    Refuted where its advantage over one of them is below one point with 95 %.
    """
    text = "Better than all baselines on several sets"
    rows = _against_rivals(differences)
    if not rows:
        return _untestable(text, f"needs {OURS} and another method")
    measured = f"mean of {sets} sets, points ahead of " + ", ".join(
        f"{r['rival']} {percent(r['ahead'], r['low'], r['high'], sign=True)}" for r in rows
    )
    refuted = [r["high"] < MARGIN for r in rows]
    if any(refuted):
        names = ", ".join(r["rival"] for r, is_refuted in zip(rows, refuted, strict=True) if is_refuted)
        measured += f"; less than {percent(MARGIN)} point ahead of {names} with 95 %"
    return Claim(text, measured, runs, claim_verdict([r["low"] > 0 for r in rows], refuted))


def claims_table(found: Sequence[Claim]) -> pd.DataFrame:
    """One row a claim, numbered."""
    rows = [{"": i, **asdict(claim)} for i, claim in enumerate(found, start=1)]
    return pd.DataFrame(rows).rename(columns={"runs": "runs behind it"})


def _matched(fairness: pd.DataFrame, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Rows at matched ranges, by method, in the order of the names."""
    rows = {str(row["method"]): row for row in select(fairness, range="matched").to_dict("records")}
    return {name: rows[name] for name in names if name in rows}


def _slopes(rows: dict[str, dict]) -> str:
    slopes = [
        f"{name} {percent(r['outside_slope'], r['outside_slope_low'], r['outside_slope_high'], sign=True)}"
        for name, r in rows.items()
    ]
    return f"points outside the band per doubling of length, one clip rate: {', '.join(slopes)}"


def _size(low: float, high: float) -> tuple[float, float]:
    """Smallest and largest absolute value in an interval."""
    nearest = 0.0 if low <= 0 <= high else min(abs(low), abs(high))
    return nearest, max(abs(low), abs(high))


def _against_rivals(differences: pd.DataFrame) -> list[dict[str, Any]]:
    """FSPO minus every other method on the last set of the table, the mean where there are several."""
    last = {(row["method"], row["reference"]): row for row in differences.to_dict("records")}
    found = []
    for (method, reference), row in last.items():
        if OURS not in (method, reference) or reference == BASE:
            continue
        sign, rival = (1, reference) if method == OURS else (-1, method)
        low, high = sorted((sign * row["low"], sign * row["high"]))
        ahead = sign * row["difference"]
        found.append({"rival": rival, "ahead": ahead, "low": low, "high": high})
    return found


def _interval(limits: Any) -> str:
    return f"[{limits.low:+.3f}, {limits.high:+.3f}]"


def _untestable(text: str, why: str) -> Claim:
    return Claim(text, why, "–", NOT_TESTABLE)
