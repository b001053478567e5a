"""The five claims of FSPO's abstract, each beside what a comparison measured and the word that the rules give it.

The wording of the claims is ours, after the abstract of arXiv 2509.09177; so are the rules (`suite.findings.rules`).
"supported" is said of these runs, this model and these sets, never of the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import ttest_1samp

from suite.experiments.names import PAPER_BASELINES
from suite.findings import rules
from suite.findings.rules import NOT_TESTABLE, OURS
from suite.findings.stability import seed_spread
from suite.replay.replays import NO_CLIP_ACTS
from suite.replay.update_directions import ROUNDING
from suite.statistics.frames import NOTHING, Number, heading, names_of, numbers_of, p_text, percent, records, select
from suite.statistics.intervals import t_interval
from suite.statistics.verdicts import PRIMARY
from suite.types import Level, Method

MATCHED, OWN_CELLS = "matched", "default, own cells"
DIGITS = 5
"""Of a difference of cosines, whose later digits are those of a processor's float32 kernels."""
FEW_SEEDS = 3
"""With fewer seeds the spread between seeds is hardly known (`suite.replay.evenness.Spread`)."""


REWEIGHTING = "A fixed range on the sequence ratio reweights short against long responses"
BOUNDING = "A small LRE bounds the cosine between the clipped and the true update from below (bound of ours)"
FLATTENING = "The drift and sqrt(L) band flattens clip rates over length"


@dataclass(frozen=True)
class Claim:
    """One claim: what is said, what was measured with its interval, which runs that took, and the computed verdict."""

    claim: str
    measured: str
    runs: str
    verdict: str


# --- who is clipped -------------------------------------------------------------------------------


def without_clipping() -> list[Claim]:
    """The three claims about clips where no rollout got a second update."""
    why = f"needs a second update of a rollout: {NO_CLIP_ACTS}"
    return [_untestable(text, why) for text in (REWEIGHTING, BOUNDING, FLATTENING)]


def reweighting(fairness: pd.DataFrame, methods: Mapping[str, Method], runs: str) -> Claim:
    """Every fixed range on the sequence ratio clips short and long responses unequally, at one clip rate."""
    words = _words(fairness, rules.fixed_ranges(methods))
    if not words:
        return _untestable(REWEIGHTING, "needs a method that clips a whole response in a fixed range")
    return Claim(REWEIGHTING, clip_text(fairness, list(words)), runs, rules.reweighting_verdict(words.values()))


def flattening(fairness: pd.DataFrame, methods: Mapping[str, Method], runs: str) -> Claim:
    """FSPO's band makes clip rates flat, which every fixed range leaves uneven."""
    words = _words(fairness, [OURS, *rules.fixed_ranges(methods)])
    ours = words.get(OURS)
    fixed = {name: word for name, word in words.items() if name != OURS}
    if ours is None or not fixed:
        return _untestable(FLATTENING, f"needs {OURS} and a method that clips a whole response in a fixed range")
    others = ", ".join(f"{name} {word}" for name, word in fixed.items())
    measured = f"{clip_text(fairness, [OURS])}. Fixed ranges: {others}"
    return Claim(FLATTENING, measured, runs, rules.flattening_verdict(ours, fixed.values()))


def clip_text(fairness: pd.DataFrame, names: Sequence[str]) -> str:
    """The words of some methods at matched ranges with what they rest on, then those in own cells; equal rows are one.

    Slopes are per doubling of the length, in points and as a share of the method's clip rate with its 90 % interval,
    which decides about `flat` together with the limit of the farthest bin; p is that of neither slope nor bend.
    """
    matched, own = (_rows(fairness, names, span) for span in (MATCHED, OWN_CELLS))
    parts = [
        f"{row['method']} {rules.clip_word(row)} (slope {_slope(row)}{_farthest(row)}, {p_text_of(row['p_even'])}; "
        f"with truncated responses {_slope(row, 'all_')}{_farthest(row, 'all_')}; "
        f"LRE {Number.of(row['lre_max'], '.3f')}, by chance {Number.of(row['lre_noise'], '.3f')})"
        for row in matched
    ]
    text = "; ".join(parts)
    if any(row["seeds"] < FEW_SEEDS for row in matched):
        text += f"; seeds: {matched[0]['seeds']}, which says little of others"
    apart = ", ".join(f"{row['method']} {rules.clip_word(row)} (slope {_slope(row)})" for row in own)
    return f"{text}. Own ranges in own cells: {apart}" if apart else text


def p_text_of(p: float) -> str:
    """A p-value with its letter.

    >>> p_text_of(0.25), p_text_of(1e-9)
    ('p .2500', 'p < .0001')
    """
    return f"p {p_text(p)}"


def _words(fairness: pd.DataFrame, names: Sequence[str]) -> dict[str, str]:
    """The word of every named method, in the order of the names; undecided with one seed or without a matched range."""
    rows = {row["method"]: row for row in records(select(fairness, range=MATCHED))}
    there = set(names_of(fairness, "method"))
    judged = {name: name in rows and rows[name]["seeds"] > 1 for name in names if name in there}
    return {name: rules.clip_word(rows[name]) if known else rules.UNDECIDED for name, known in judged.items()}


def _rows(fairness: pd.DataFrame, names: Sequence[str], span: str) -> list[dict[str, Any]]:
    part = select(fairness, range=span)
    order = {name: i for i, name in enumerate(names)}
    kept = part.take(np.flatnonzero(part["method"].isin(order)))
    kept = kept.sort_values("method", key=lambda column: column.map(order))
    return records(rules.equal_rows_joined(kept)) if len(kept) else []


def _slope(row: Mapping[str, Any], part: str = "") -> str:
    """A slope in points, and as a share of the clip rate with its 90 % interval.

    >>> _slope({"clipped_slope": -0.018, "relative_slope": -0.24, "relative_slope_low_90": -0.42,
    ... "relative_slope_high_90": -0.06})
    '-1.8 points, -24.0 [-42.0, -6.0] % of its clip rate'
    """
    share = percent(*(row[f"{part}relative_slope{end}"] for end in ("", "_low_90", "_high_90")), sign=True)
    return f"{percent(row[f'{part}clipped_slope'], sign=True)} points, {share} % of its clip rate"


def _farthest(row: Mapping[str, Any], part: str = "") -> str:
    """How far a length bin may be off the mean clip rate; nothing where that is not known.

    >>> _farthest({"largest_deviation_high": 0.47})
    ', a bin off by at most 47 % of it'
    """
    limit = row[f"{part}largest_deviation_high"]
    return "" if math.isnan(limit) else f", a bin off by at most {percent(limit).split('.')[0]} % of it"


# --- the bound ------------------------------------------------------------------------------------


def bound_summary(bounds: pd.DataFrame, methods: Mapping[str, Method]) -> pd.DataFrame:
    """Real clips beside the bound of LRE, one row a method: `bounds` as `update_directions.log_prob_bounds` returns it.

    updates; with_bound: those that the method clips and for which K LRE < 1; scaled_below: of these, updates scaled by
    length that lie below their bound (0, by algebra); below: mean over seeds of each seed's share that the method's own
    clip puts below it, with its t interval over seeds (nan for one seed, and where all have one share);
    largest_shortfall, median_shortfall: how far below, of those below;
    `sequence`: whether the method is what the theorem is about.
    """
    rows = []
    for method in names_of(bounds, "method"):
        mine = select(bounds, method=method)
        cuts = (mine["lre"] > 0) | (mine["cosine"] < 1 - ROUNDING)
        said = mine.take(np.flatnonzero(mine["bound"].notna() & cuts))
        shares = np.array([numbers_of(select(said, seed=s), "violated").mean() for s in dict.fromkeys(said["seed"])])
        short = (numbers_of(said, "bound") - numbers_of(said, "cosine"))[numbers_of(said, "violated") > 0]
        low, high = t_interval(shares)
        rows.append(
            {"method": method, "sequence": methods[method].level == Level.SEQUENCE, "updates": len(mine)}
            | {"with_bound": len(said), "seeds": len(shares)}
            | {"scaled_below": int(np.sum(numbers_of(said, "scaled") < numbers_of(said, "bound") - ROUNDING))}
            | {"below": float(shares.mean()) if len(shares) else math.nan}
            | {"below_low": float(np.maximum(low, 0.0)), "below_high": float(np.minimum(high, 1.0))}
            | {"largest_shortfall": round(float(short.max()), DIGITS) if len(short) else 0.0}
            | {"median_shortfall": round(float(np.median(short)), DIGITS) if len(short) else 0.0}
        )
    return pd.DataFrame(rows)


def bounding(summary: pd.DataFrame, runs: str) -> Claim:
    """A small LRE bounds the cosine of clipped and true update: FSPO's real updates rarely lie below the bound.

    `summary` as `bound_summary` returns it; the form of the bound is ours.
    """
    mine = select(summary, method=OURS)
    if mine.empty or mine["seeds"].iloc[0] < 2:
        return _untestable(BOUNDING, f"needs {OURS}, and two seeds of updates with K LRE < 1")
    rows = rules.equal_rows_joined(select(summary, sequence=True))
    rows = sorted(records(rows), key=lambda row: OURS not in row["method"].split(" = "))
    head = "the bound holds for updates scaled by length (algebra, not evidence)"
    parts = [
        f"{row['method']} {percent(row['below'], row['below_low'], row['below_high'])} % (a mean over "
        f"{row['seeds']} seeds, {row['with_bound']} updates; their cosine is short of it by "
        f"{row['median_shortfall']:.2f} in the median, {row['largest_shortfall']:.2f} at most)"
        for row in rows
    ]
    measured = f"{head}; real clips, which choose within a length, lie below it in these shares: {'; '.join(parts)}"
    verdict = rules.bound_verdict(float(mine["below_low"].iloc[0]), float(mine["below_high"].iloc[0]))
    return Claim(BOUNDING, measured, runs, verdict)


# --- stability ------------------------------------------------------------------------------------


def steadiness(stability: pd.DataFrame, runs: str) -> Claim:
    """FSPO trains more steadily than the paper's baselines: it falls less on the probe set and collapses no more often.

    `stability` as `suite.findings.stability.stability` returns it.
    """
    text = "Training is more stable"
    there = names_of(stability, "method")
    rivals = [_beside(stability, name) for name in PAPER_BASELINES if name in there] if OURS in there else []
    if not rivals:
        return _untestable(text, f"needs {OURS} and one of {', '.join(PAPER_BASELINES)}")
    names = [OURS, *(rival.rival for rival in rivals)]
    missing = _missing(names)
    fallen = ", ".join(f"{name} {int(numbers_of(select(stability, method=name), 'collapsed').sum())}" for name in names)
    counts = {name: len(select(stability, method=name)) for name in names}
    measured = f"collapsed runs (final accuracy below the base model's with its whole interval): {fallen} of "
    measured += str(max(counts.values()))
    spreads = [f"{name} {spread_text(select(stability, method=name))}" for name in names]
    measured += f"; spread of final accuracy over seeds, points: {', '.join(spreads)}"
    if any(math.isnan(rival.fall) for rival in rivals):
        measured += "; falls on the probe set are not testable here (not recorded)"
    else:
        falls = ", ".join(f"{r.rival} {percent(r.fall, r.low, r.high, sign=True)}" for r in rivals)
        own = float(np.mean(numbers_of(select(stability, method=OURS), "probe_fall")))
        measured = (
            f"largest fall on the probe set, in points: FSPO {percent(own)}, rival minus FSPO: {falls}; {measured}"
        )
    return Claim(text, measured + missing, runs, _unless(missing, rules.steadiness_verdict(rivals)))


def _missing(names: Sequence[str]) -> str:
    """Which of the paper's baselines are not among those, as the end of a sentence; nothing where all are.

    >>> _missing(["rloo", "grpo", "gspo"])
    '; not run: gspo_wide'
    """
    left_out = [name for name in PAPER_BASELINES if name not in names]
    return f"; not run: {', '.join(left_out)}" if left_out else ""


def _unless(missing: str, verdict: str) -> str:
    """A verdict about all baselines: what speaks against the claim stays, but some of them cannot support it."""
    return rules.UNDECIDED if missing and verdict == rules.SUPPORTED else verdict


def _beside(stability: pd.DataFrame, rival: str) -> rules.Steadier:
    """FSPO beside one rival, on the rates and seeds that both have; a seed is one observation."""
    keys = ["learning_rate", "seed"]
    both = select(stability, method=rival).merge(select(stability, method=OURS), on=keys, suffixes=("_rival", "_ours"))
    seeds = [select(both, seed=seed) for seed in dict.fromkeys(both["seed"])]

    def gaps(name: str) -> np.ndarray:
        """The rival's minus FSPO's, a mean over the rates of every seed; nan where one is not recorded."""
        return np.array([np.mean(numbers_of(s, f"{name}_rival") - numbers_of(s, f"{name}_ours")) for s in seeds])

    fall = gaps("probe_fall") if np.isfinite(gaps("probe_fall")).all() else np.array([math.nan])
    low, high = t_interval(fall)
    varies = len(fall) > 1 and float(np.ptp(fall)) > 0
    collapsed = gaps("collapsed")
    test: Any = ttest_1samp(fall, 0.0) if varies else None
    return rules.Steadier(
        rival=rival,
        fall=float(fall.mean()),
        low=low,
        high=high,
        p=float(test.pvalue) if varies else math.nan,
        collapsed=int(numbers_of(both, "collapsed_ours").sum()),
        rivals_collapsed=int(numbers_of(both, "collapsed_rival").sum()),
        more=int((collapsed < 0).sum()),
        less=int((collapsed > 0).sum()),
    )


def spread_text(runs: pd.DataFrame) -> str:
    """Standard deviation of the final accuracy over seeds with its 95 % interval, in points.

    At the learning rate with the most seeds; a dash for one seed.
    """
    found = seed_spread(runs)
    return NOTHING if math.isnan(found[0]) else percent(*found)


# --- accuracy -------------------------------------------------------------------------------------


def superiority(differences: pd.DataFrame, runs: str) -> Claim:
    """FSPO is better than each of the paper's baselines on the mean of sets, and on no set worse than one.

    `differences` as `suite.statistics.compare.compare` returns them.
    """
    text = "Better than all baselines on several sets"
    rows = [_from_fspos_side(row) for row in records(differences)]
    rows = [row for row in rows if row["rival"] in PAPER_BASELINES]
    if not rows:
        return _untestable(text, f"needs {OURS} and one of {', '.join(PAPER_BASELINES)}")
    means, sets = ([r for r in rows if (r["family"] == PRIMARY) == first] for first in (True, False))
    missing = _missing([row["rival"] for row in means])
    ahead = ", ".join(
        f"{r['rival']} {percent(r['ahead'], r['low'], r['high'], sign=True)} ({r['said']})" for r in means
    )
    measured = f"{heading(means[0]['task'])}, points ahead of {ahead}"
    decided = [r for r in sets if r["word"] != rules.UNDECIDED]
    if sets:
        measured += "; single sets: " + (
            ", ".join(f"{r['task']} {r['said']} against {r['rival']}" for r in decided) or "all undecided"
        )
    verdict = rules.superiority_verdict([r["word"] for r in means], [r["word"] for r in sets])
    return Claim(text, measured + missing, runs, _unless(missing or ("" if sets else "several sets"), verdict))


def _from_fspos_side(row: Mapping[str, Any]) -> dict[str, Any]:
    """A difference as FSPO minus its rival, which is empty where FSPO takes no part; p is Holm's where there is one."""
    names = (row["method"], row["reference"])
    sign = 1 if names[0] == OURS else -1
    rival = "" if OURS not in names else names[1] if sign == 1 else names[0]
    low, high = sorted((sign * row["low"], sign * row["high"]))
    word = rules.accuracy_word(str(row.get("verdict", "")))
    word = word if sign == 1 else rules.turned(word)
    p = row.get("p_equal_holm" if word == rules.EQUAL else "p_holm", math.nan)
    shown = "equal within 1 point" if word == rules.EQUAL else word
    said = f"{shown}, {p_text_of(p)}" if pd.notna(p) else shown
    return {
        "rival": rival,
        "task": row["task"],
        "family": row["family"],
        "ahead": sign * row["difference"],
        "low": low,
        "high": high,
        "word": word,
        "said": said,
    }


# --- the table ------------------------------------------------------------------------------------


def claims_table(found: Sequence[Claim]) -> pd.DataFrame:
    """One row a claim, numbered."""
    rows = [{"": i, **asdict(claim)} for i, claim in enumerate(found, start=1)]
    return pd.DataFrame(rows).rename(columns={"runs": "runs behind it"})


def _untestable(text: str, why: str) -> Claim:
    return Claim(text, why, "–", NOT_TESTABLE)
