"""Every rule that turns a measured number into a word about a claim: dated, with its reason, and a pure function.

The report, the bank's page, `fspo report --claims` and docs/reading-a-report.md read these rules and no others. All are
ours. A rule is dated before the runs that it judges are made; what an earlier rule said, and why it was replaced,
stands in results/LOG.md.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from suite.experiments.names import PAPER_BASELINES, REFERENCE
from suite.statistics.compare import ALPHA, MARGIN, holm
from suite.statistics.frames import records
from suite.types import Growth, Level, Method

OURS = REFERENCE
DATED = "2026-11-29"
"""When the rules below were fixed."""

SLOPE_MARGIN = 0.10
"""Share of a method's clip rate per doubling of the length, within which a slope reweights nobody."""
BIN_MARGIN = 1 / 3
"""Share of a method's clip rate by which no length bin may be off in a flat band."""
BELOW_BOUND = 0.05
"""Share of FSPO's updates that may lie below the bound of the second claim."""

FLAT, UNEVEN = "flat", "uneven"
SUPPORTED, NOT_SUPPORTED = "supported", "not supported"
UNDECIDED, NOT_TESTABLE = "undecided", "not testable here"
BETTER, WORSE, EQUAL = "better", "worse", "equal"


@dataclass(frozen=True)
class Rule:
    """One rule: what it is a rule of, when it was fixed, what it looks at, what it says, and why so."""

    of: str
    dated: str
    quantity: str
    threshold: str
    reason: str


RULES = (
    Rule(
        "the word of a method",
        DATED,
        "`clipped`: the share of responses with a gradient whose gradient the clip cuts, by length, at ranges matched "
        "to one clip rate on the same recorded responses; own cells stand beside it",
        f"{FLAT}: the 90 % interval of the slope per doubling lies within {100 * SLOPE_MARGIN:.0f} % of the clip rate "
        "(of the acceptance, where that is smaller), and no length bin can be off the mean by more than a third of it "
        f"(one-sided 95 %), with and without truncated responses. {UNEVEN}: not flat, and p < .05 that finished "
        f"responses have neither slope nor bend. Else {UNDECIDED}",
        "Flat has to be shown, so it is an equivalence test. A slope is blind to a U, so every bin is bounded too; a "
        "third is about where a slope at its margin ends, three doublings from the mean. Ratios outside the band also "
        "count where the min ignores them, so they do not decide. How long a truncated response would have become is "
        "not known: it makes no method uneven, but can keep one from being called flat",
    ),
    Rule(
        "claim 1, fixed ranges",
        DATED,
        "the words of all methods that clip a whole response in a fixed range: a sequence ratio whose band is constant "
        "in L (on S) or linear in L (on S / L)",
        f"{SUPPORTED}: every one is {UNEVEN}. {NOT_SUPPORTED}: one is {FLAT}. Else {UNDECIDED}, as with one seed, or "
        "where one has no matched range",
        "The claim is about fixed ranges as such; which methods have one is read off their declared growth, not their "
        "names",
    ),
    Rule(
        "claim 2, the bound",
        DATED,
        "FSPO replayed on all recorded updates: of those that it clips and for which K LRE < 1, the share whose cosine "
        "lies below the bound of LRE, seed by seed",
        f"{SUPPORTED}: its 95 % t interval over seeds ends below {100 * BELOW_BOUND:.0f} %. {NOT_SUPPORTED}: it begins "
        f"above {100 * BELOW_BOUND:.0f} %. Else {UNDECIDED}, as where all seeds have one and the same share",
        "Updates of one seed are not independent, so seeds count. One that nothing clips lies on its bound. Methods "
        "are not pooled, and token ratios are not what the theorem is about. For updates scaled by length the bound is "
        "algebra, not evidence. Our lemma assumes that a clip only scales; the paper's theorem has a further "
        "assumption (bounded correlation) that is not public, so a real clip below the bound speaks against our form",
    ),
    Rule(
        "claim 3, flat clip rates",
        DATED,
        "the words of FSPO and of the methods of claim 1",
        f"{SUPPORTED}: FSPO is {FLAT} and every fixed range is {UNEVEN}. {NOT_SUPPORTED}: FSPO is {UNEVEN} or a fixed "
        f"range is {FLAT}. Else {UNDECIDED}, as in claim 1",
        "`Flattens` is read as `makes flat`: flat with the band and not flat without it. A slope smaller than a "
        "rival's is not flat",
    ),
    Rule(
        "claim 4, stability",
        DATED,
        f"FSPO against {', '.join(PAPER_BASELINES)}, paired by seed, the mean over learning rates: the largest fall of "
        "the reward on the probe set below its earlier maximum; and collapsed runs, whose final accuracy on the mean "
        "of sets lies below the base model's with its whole 95 % interval, or whose reward or gradient norm is no "
        "number",
        f"{SUPPORTED}: FSPO falls less than each of them (95 % t interval over seeds) and has no more collapsed runs. "
        f"{NOT_SUPPORTED}: it falls deeper than one (Holm), or collapses more often than one in significantly more "
        f"seeds (sign test, Holm). Else {UNDECIDED}, as where one of them was not run; without probes {NOT_TESTABLE}",
        "The reward of a training step depends on which problems were drawn, so its falls are mostly noise; the probe "
        "set and its noise are the same at every step and for every method. Runs of one seed at several rates are not "
        "independent. The spread over seeds is shown and not judged: few seeds do not determine a variance",
    ),
    Rule(
        "claim 5, accuracy",
        DATED,
        f"accuracy of FSPO minus that of {', '.join(PAPER_BASELINES)}, on the primary outcome (the mean of sets, "
        "unless a recipe declares another) and on every other",
        f"{SUPPORTED}: better than each on the primary outcome (Holm) and worse than none on another (Holm over "
        f"baselines and outcomes). {NOT_SUPPORTED}: worse than one on any, or shown equal to one within "
        f"{100 * MARGIN:.0f} point on the primary outcome. Else {UNDECIDED}, as with a single set, or where one of "
        "them was not run",
        "The claim is about all baselines and several sets, and a mean of sets can hide opposite effects. The family "
        "is the paper's baselines; other methods are shown, not judged",
    ),
)


def rules_table() -> pd.DataFrame:
    """The rules for people, one a row."""
    return pd.DataFrame([asdict(rule) for rule in RULES])


# --- clip rates -----------------------------------------------------------------------------------


def clip_word(row: Mapping[str, Any]) -> str:
    """`flat`, `uneven` or `undecided`, from a row of `suite.replay.fairness.fairness_summary`."""
    flat = all(
        row[f"{part}relative_slope_low_90"] > -SLOPE_MARGIN
        and row[f"{part}relative_slope_high_90"] < SLOPE_MARGIN
        and row[f"{part}largest_deviation_high"] < BIN_MARGIN
        for part in ("", "all_")
    )
    if flat:
        return FLAT
    return UNEVEN if row["p_even"] < ALPHA else UNDECIDED


def with_words(fairness: pd.DataFrame) -> pd.DataFrame:
    """The rows with their `word`, which also heads their sentence; a method without a band has "no band"."""
    rows = records(fairness)
    words = [clip_word(row) if row.get("band", True) else "no band" for row in rows]
    sentences = [
        f"{judged_word(row | {'word': word})}, {row['sentence']}" for word, row in zip(words, rows, strict=True)
    ]
    return fairness.assign(word=words, sentence=sentences)


def shown_word(row: Mapping[str, Any]) -> str:
    """The `word` of a row for people: that one seed alone has said it is said, too.

    >>> [shown_word({"word": word, "seeds": seeds}) for word, seeds in ((UNEVEN, 3), (UNEVEN, 1), (UNDECIDED, 1))]
    ['uneven', 'uneven (one seed: exploratory)', 'undecided']
    """
    return row["word"] + _exploratory(row)


def _exploratory(row: Mapping[str, Any]) -> str:
    alone = row["word"] in (FLAT, UNEVEN) and row.get("seeds") == 1
    return " (one seed: exploratory)" if alone else ""


def fixed_ranges(methods: Mapping[str, Method]) -> list[str]:
    """The methods of claim 1: they clip a whole response in a range of S or S / L that does not follow sqrt(L)."""
    fixed = (Growth.CONSTANT, Growth.LINEAR)
    return [name for name, method in methods.items() if method.level == Level.SEQUENCE and method.growth in fixed]


def judged_word(row: Mapping[str, Any]) -> str:
    """`shown_word`, and that its bend made it uneven where the bend did so more clearly than the slope."""
    bent = row["word"] == UNEVEN and row["p_slope"] > row["p_bend"]
    return f"{row['word']}{' by its bend' * bent}{_exploratory(row)}"


def reweighting_verdict(fixed: Collection[str]) -> str:
    """Claim 1, from the words of the fixed ranges.

    >>> [reweighting_verdict(words) for words in (["uneven"] * 2, ["uneven", "undecided"], ["uneven", "flat"], [])]
    ['supported', 'undecided', 'not supported', 'not testable here']
    """
    if not fixed:
        return NOT_TESTABLE
    if FLAT in fixed:
        return NOT_SUPPORTED
    return SUPPORTED if set(fixed) == {UNEVEN} else UNDECIDED


def flattening_verdict(ours: str, fixed: Collection[str]) -> str:
    """Claim 3, from FSPO's word and those of the fixed ranges.

    >>> [flattening_verdict(ours, ["uneven"]) for ours in ("flat", "undecided", "uneven")]
    ['supported', 'undecided', 'not supported']
    """
    if not fixed:
        return NOT_TESTABLE
    if ours == UNEVEN or FLAT in fixed:
        return NOT_SUPPORTED
    return SUPPORTED if ours == FLAT and set(fixed) == {UNEVEN} else UNDECIDED


def equal_rows_joined(frame: pd.DataFrame) -> pd.DataFrame:
    """Rows whose numbers are all equal as one row, its `method` "ppo = grpo": in a replay they are one method.

    Texts beside the numbers are those of the first; frames without a range are one range.
    """
    numbers = [name for name in frame.columns if pd.api.types.is_numeric_dtype(frame[name])]
    rounded = frame[numbers].astype(float).round(12).to_numpy()
    spans = frame["range"] if "range" in frame else [""] * len(frame)
    texts = [f"{span} {row.tolist()}" for span, row in zip(spans, rounded, strict=True)]
    keys = pd.Series(texts if numbers else frame["method"].tolist(), index=frame.index)
    names = frame.groupby(keys, sort=False)["method"].transform(" = ".join)
    return frame.assign(method=names).take(np.flatnonzero(~keys.duplicated()))


# --- the bound ------------------------------------------------------------------------------------


def bound_verdict(low: float, high: float) -> str:
    """Claim 2, from the interval over seeds of the share of FSPO's updates below the bound; nan decides nothing."""
    if low > BELOW_BOUND:
        return NOT_SUPPORTED
    return SUPPORTED if high < BELOW_BOUND else UNDECIDED


# --- stability ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Steadier:
    """FSPO beside one rival: the rival's fall of the probe's reward minus FSPO's (mean, interval and p over seeds, nan
    without probe curves), runs that collapsed, and seeds in which FSPO collapsed more often, or less often."""

    rival: str
    fall: float
    low: float
    high: float
    p: float
    collapsed: int
    rivals_collapsed: int
    more: int
    less: int


def steadiness_verdict(rivals: Sequence[Steadier]) -> str:
    """Claim 4, from FSPO beside each of the paper's baselines."""
    if not rivals:
        return NOT_TESTABLE
    deeper = holm([r.p for r in rivals]) < ALPHA
    signs = holm([float(binomtest(r.more, r.more + r.less).pvalue) if r.more > r.less else 1.0 for r in rivals]) < ALPHA
    if any((d and r.high < 0) or s for r, d, s in zip(rivals, deeper, signs, strict=True)):
        return NOT_SUPPORTED
    if any(math.isnan(r.fall) for r in rivals):
        return NOT_TESTABLE
    return SUPPORTED if all(r.low > 0 and r.collapsed <= r.rivals_collapsed for r in rivals) else UNDECIDED


# --- accuracy -------------------------------------------------------------------------------------


def accuracy_word(verdict: str) -> str:
    """`better`, `worse`, `equal` or `undecided`, from a verdict of `suite.statistics.compare`; what Holm's correction
    does not leave standing is undecided.

    >>> [accuracy_word(x) for x in ("better, few seeds", "better before Holm's correction", "equal within 1 point")]
    ['better', 'undecided', 'equal']
    """
    head = verdict.split(",")[0]
    return head if head in (BETTER, WORSE) else EQUAL if head.startswith(EQUAL) else UNDECIDED


def turned(word: str) -> str:
    """The word of the other side.

    >>> turned("better"), turned("equal")
    ('worse', 'equal')
    """
    return {BETTER: WORSE, WORSE: BETTER}.get(word, word)


def superiority_verdict(on_mean: Iterable[str], on_sets: Iterable[str]) -> str:
    """Claim 5, from FSPO's words against each of the paper's baselines, on the mean of sets and on every set.

    >>> (superiority_verdict(["better"] * 3, ["better", "undecided"]), superiority_verdict(["better"], ["worse"]),
    ... superiority_verdict(["better", "equal"], []), superiority_verdict(["better", "undecided"], []))
    ('supported', 'not supported', 'not supported', 'undecided')
    """
    means, sets = list(on_mean), list(on_sets)
    if not means:
        return NOT_TESTABLE
    if WORSE in means + sets or EQUAL in means:
        return NOT_SUPPORTED
    return SUPPORTED if set(means) == {BETTER} else UNDECIDED
