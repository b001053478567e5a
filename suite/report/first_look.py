"""What a page shows first: at most five sentences, composed from the rows of its tables, and figures to point at."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from suite.config import MEAN, CompareConfig
from suite.experiments.names import PAPER_BASELINES
from suite.findings import rules
from suite.findings.bank_questions import DRAWN, Lab
from suite.findings.claims import MATCHED, steadiness
from suite.findings.comparison import Comparison
from suite.findings.rules import NOT_TESTABLE
from suite.records.result import BASE
from suite.replay.growth import growth_sentence
from suite.replay.matched_ranges import TOLERANCE
from suite.report import tables
from suite.report.accuracy_figures import accuracy_figure, difference_figure, reward_figure
from suite.report.bank_text import warnings_of
from suite.report.comparison_text import NOBODY, stand_ins
from suite.report.growth_figures import growth_figure
from suite.report.html import Drawn, FirstLook
from suite.report.length_figures import WIDEST, acceptance_figure, clip_figure
from suite.report.style import NARROW, WIDTH, method_colours, svg
from suite.report.tables import counted
from suite.statistics.frames import heading, names_of, numbers_of, overall, percent, records, select
from suite.statistics.intervals import MEASURED_COVERAGE
from suite.statistics.verdicts import NO_VARIATION, PRIMARY, UNDECIDED
from suite.types import reward_of, task_name

NAMED = 6
"""Most pairs, and most methods, that a sentence names one by one."""
DEFAULT = "default"
UNTESTED, UNVARIED = "not tested", "without variation"
OPEN = (UNDECIDED, UNTESTED, UNVARIED)
"""What a difference without a verdict is."""
CLIPPED = "responses with a gradient (of their tokens, where a method weighs tokens)"
"""What a clip rate is a share of."""
SHOWS = {
    "accuracy": "Accuracy of every method, set by set, with 95 % intervals",
    "differences": "Differences between methods in points, set by set",
    "clip_by_length": "Who is clipped, by response length",
    "reward": "Reward while training",
    "acceptance": "Who is accepted, by response length",
    "growth": "How the sequence log ratio S grows with length",
}
"""What the figures of a first look show, by file name."""


def _drawn(folder: Path, narrow: Mapping[str, Figure]) -> dict[str, Drawn]:
    """Figures that are in the folder as they are on a page, with those for a phone."""
    return {
        name: Drawn(SHOWS[name], (folder / f"{name}.svg").read_text(), svg(figure)) for name, figure in narrow.items()
    }


# --- a comparison ---------------------------------------------------------------------------------


def comparison_look(report: Comparison, folder: Path) -> FirstLook:
    """Verdicts, accuracy, clipping, stability and what is not known of a comparison, with its main figures.

    They are saved in the folder, here and below.
    """
    differences = report.statistics.differences
    declared = tables.declared_rows(differences)
    judged = {*names_of(declared, "method"), *names_of(declared, "reference")}
    clipped = clip_sentence(report.fairness, judged or set(report.methods)) if report.ratios_moved else NOBODY
    sentences = [
        outcome_sentence(differences),
        accuracy_sentence(report.statistics.accuracies),
        clipped,
        stability_sentence(report.stability),
        limits_sentence(report.config, swept=len(report.sweep) > 1),
    ]
    figures = _drawn(folder, main_figures(report, NARROW))
    return FirstLook([sentence for sentence in sentences if sentence], figures)


def main_figures(report: Comparison, width: float = WIDTH) -> dict[str, Figure]:
    """The figures that a report begins with, by file name, for a page or for a phone."""
    stats, colours, phone = report.statistics, method_colours([*report.methods, BASE]), width <= NARROW
    accuracies, declared = (stats.accuracies, stats.by_seed), tables.declared_rows(stats.differences)
    size: dict[str, Any] = {"colours": colours, "width": width}
    found = {"accuracy": accuracy_figure(*accuracies, columns=2 if phone else 3, **size)}
    if len(declared):
        found["differences"] = difference_figure(declared, columns=2 if phone else 5, **size)
    if report.any_ended:
        arena, rows = report.arena, ("default", "matched") if report.arena.matched else ("default",)
        clipped = (arena.by_length, arena.fairness)
        found["clip_by_length"] = clip_figure(*clipped, colours=colours, rows=rows, columns=2 if phone else WIDEST)
    return found | {"reward": reward_figure(report.curves, smooth=3, **size)}


def outcome_sentence(differences: pd.DataFrame) -> str:
    """The verdict on the declared outcome, pair by pair, and what the design could have found; nothing of no pair.

    Of many pairs only those with a verdict are named, the others counted.
    """
    rows: list[dict[str, Any]] = [r | {"word": _word(r)} for r in records(select(differences, family=PRIMARY))]
    if not rows:
        return ""
    few = len(rows) <= NAMED
    parts = []
    for method, pairs in groupby([r for r in rows if few or r["word"] not in OPEN], key=lambda row: row["method"]):
        against = [
            f"against {row['reference']} {'is ' * (i == 0)}{row['word']} "
            f"({_interval(row, 'difference', sign=True)} points)"
            for i, row in enumerate(pairs)
        ]
        parts.append(f"{method} {', '.join(against)}")
    for word, count in Counter(row["word"] for row in rows if not few and row["word"] in OPEN).items():
        parts.append(f"{count} of {len(rows)} pairs {'is' if count == 1 else 'are'} {word}")
    unknown = [row["minimum_detectable"] for row in rows if row["word"] in (UNDECIDED, UNTESTED)]
    most = max((found for found in unknown if not math.isnan(found)), default=math.nan)
    pairs = ", for all pairs of methods, as no declared pair was run" if stand_ins(differences) else ""
    verdicts = "" if all(math.isnan(row["p_holm"]) for row in rows) else "verdicts after Holm's correction, "
    return (
        f"On the declared outcome, {_on(rows[0])}{pairs} ({verdicts}95 % intervals uncorrected): {'; '.join(parts)}"
        f"{f'; {tables.detectable_words(most)}' if unknown else ''}."
    )


def _word(row: Mapping[str, Any]) -> str:
    """A verdict as what a difference is."""
    if row["verdict"] == NO_VARIATION:
        return UNVARIED
    return UNTESTED if row["verdict"] == UNDECIDED and math.isnan(row["p_holm"]) else row["verdict"]


def accuracy_sentence(accuracies: pd.DataFrame) -> str:
    """Which of the trained methods have the highest and the lowest accuracy, and where the base model lies."""
    rows = [overall(part) for _, part in accuracies.groupby("method", sort=False)]
    base, methods = ([row for row in rows if (row["method"] == BASE) == first] for first in (True, False))
    least, most = (_at_the(end, methods, "accuracy") for end in (min, max))
    where = f"on {_on(rows[0])}"
    if len(methods) == 1:
        said = f"{methods[0]['method']} reaches {_share(methods[0])} {where}"
    elif len(most) == len(methods):
        said = f"The {len(methods)} trained methods have the same accuracy {where}, {percent(most[0]['accuracy'])} %"
    else:
        has = "has" if len(most) == 1 else "have"
        said = f"Of the {len(methods)} trained methods {_shares(most)} {has} the highest accuracy {where}"
        said += f" and {_shares(least)} the lowest"
    if base:
        said += f"; the base model ({_share(base[0])}) lies {_place(base[0], methods)}"
    shown = "" if all(math.isnan(row["low"]) for row in rows) else "95 % intervals, "
    return f"{said} ({shown}no test of a difference)."


def _place(base: Mapping[str, Any], methods: Sequence[Mapping[str, Any]]) -> str:
    """Where the base model's accuracy lies among those of the methods."""
    above = sum(row["accuracy"] > base["accuracy"] for row in methods)
    below = sum(row["accuracy"] < base["accuracy"] for row in methods)
    if len(methods) in (above, below):
        return f"{'below' if above else 'above'} {'all of them' if len(methods) > 1 else 'it'}"
    return f"below {above} and above {below} of them" if above or below else "level with that"


def _at_the(end: Callable[[Iterable[float]], float], rows: Sequence[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """All rows at the largest or the smallest value, but for rounding."""
    value = end(row[key] for row in rows)
    return [row for row in rows if math.isclose(row[key], value, abs_tol=1e-12)]


def _on(row: Mapping[str, Any]) -> str:
    return f"{'the ' * (row['task'] == MEAN)}{heading(row['task'])}"


def _interval(row: Mapping[str, Any], key: str, *, sign: bool = False) -> str:
    """A value in per cent, with its interval where there is one."""
    return percent(row[key], *(() if math.isnan(row["low"]) else (row["low"], row["high"])), sign=sign)


def _share(row: Mapping[str, Any]) -> str:
    return f"{_interval(row, 'accuracy')} %"


def _shares(rows: Sequence[Mapping[str, Any]]) -> str:
    """Each method with its accuracy; of many, how many there are."""
    if len(rows) > NAMED:
        return f"{len(rows)} of them ({percent(rows[0]['accuracy'])} %)"
    return _listed([f"{row['method']} ({_share(row)})" for row in rows])


def _listed(names: Sequence[str]) -> str:
    return " and ".join([*([", ".join(names[:-1])] if len(names) > 1 else []), names[-1]])


def clip_sentence(fairness: pd.DataFrame, names: Collection[str]) -> str:
    """How the clip rate of some methods changes with the length, at matched ranges or else at their own.

    Rows as `suite.findings.rules.with_words` returns them; nothing where none of the methods has a band. Methods with
    the same numbers are said together; those without any are named, those beyond NAMED findings counted.
    """
    asked = fairness.take(np.flatnonzero(fairness["method"].isin([*names])))
    span = MATCHED if MATCHED in set(asked["range"]) else DEFAULT
    rows = [r for r in records(select(asked, range=span)) if r["band"] and not math.isnan(r["clipped_slope"])]
    if not rows:
        return ""
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        slope = percent(*(row[f"clipped_slope{end}"] for end in ("", "_low", "_high")), sign=True)
        found.setdefault((slope, rules.judged_word(row)), []).append(row["method"])
    parts = [f"{slope} points for {_listed(methods)}, {word}" for (slope, word), methods in [*found.items()][:NAMED]]
    more = sum(map(len, [*found.values()][NAMED:]))
    shown = [row["method"] for row in rows]
    missing = {
        row["method"]: "no band" if not row["band"] else "not matched" if span == MATCHED else "no slope"
        for row in records(select(asked, range=DEFAULT))
        if row["method"] not in shown
    }
    left_out = [f"{counted(more, 'further method')} in the table below"] if more else []
    left_out += [f"not known for {', '.join(f'{name} ({why})' for name, why in missing.items())}"] if missing else []
    return (
        f"{_at_rates(rows) if span == MATCHED else 'At their own ranges'}, the clip rate of finished responses changes "
        f"per doubling of the length by {'; '.join(parts + left_out)}; the words also weigh bend, seeds and truncated "
        "responses, the 95 % intervals only the slope over problems."
    )


def _at_rates(rows: Sequence[Mapping[str, Any]]) -> str:
    """At which clip rates matched methods are compared: a jump of a rate may have passed over the common one."""
    rates = [row["mean_clipped"] for row in rows]
    one = max(rates) - min(rates) <= 2 * TOLERANCE
    said = " to ".join(percent(rate) for rate in tables.spanned(rates))
    return f"At {'matched clip rates' if one else 'clip rates that match no closer'}, {said} % of the same {CLIPPED}"


def stability_sentence(stability: pd.DataFrame) -> str:
    """How many runs collapsed in which way, and the word of the claim about stability where there is one."""
    rates = [f"{rate:g}" for rate in sorted(set(stability["learning_rate"].tolist()))]
    below = _counts(stability, numbers_of(stability, "ahead_high") < 0)
    broken = _counts(stability, numbers_of(stability, "broken") > 0)
    said = (
        f"Of {counted(len(stability), 'run')}{f' at learning rates {_listed(rates)}' if len(rates) > 1 else ''}, "
        f"{below} ended below the base model by the whole 95 % interval over problems, and {broken} had a reward or "
        "gradient norm that is no number"
    )
    verdict = steadiness(stability, "").verdict
    if verdict == NOT_TESTABLE:
        return f"{said}."
    there = set(names_of(stability, "method"))
    rivals = ", ".join(name for name in PAPER_BASELINES if name in there)
    return f"{said}; that FSPO trains more steadily than the paper's baselines ({rivals}) is {verdict}."


def _counts(runs: pd.DataFrame, which: np.ndarray) -> str:
    """How many of the runs, method by method.

    >>> _counts(pd.DataFrame({"method": ["a", "b", "b"]}), np.array([False, True, True]))
    '2 (b 2)'
    """
    found = runs.take(np.flatnonzero(which))
    parts = [f"{name} {len(select(found, method=name))}" for name in names_of(found, "method")]
    return f"{len(found)} ({', '.join(parts)})" if parts else "none"


def limits_sentence(config: CompareConfig, *, swept: bool) -> str:
    """What such runs cannot say: of other models, seeds and sets."""
    own = [task_name(task) for task in config.all_tasks if reward_of(task)]
    graded = f"; the rewards of {', '.join(dict.fromkeys(own))} are the user's own" if own else ""
    rate = f"{config.train.learning_rate:g}{' (the counts of runs: also at others)' if swept else ''}"
    seeds = len(config.seeds)
    measured = MEASURED_COVERAGE.get(seeds)
    few = (
        f", with which 95 % intervals of accuracies covered at least {100 * measured:.0f} % in simulations"
        if measured
        else ""
    )
    return (
        f"All this is of one model, {config.train.model}, at learning rate {rate}, with {counted(seeds, 'seed')}"
        f"{few or _alone(seeds)}: it says nothing of other models, rates or sets{graded}."
    )


def _alone(seeds: int) -> str:
    return ", so that no interval holds how seeds differ" if seeds == 1 else ""


# --- a bank ---------------------------------------------------------------------------------------


def lab_look(lab: Lab, folder: Path) -> FirstLook:
    """Whom each clip spares, how often it clips, how S grows and what is not known of a bank, with its main figures."""
    arena = lab.arena
    found = rules.with_words(arena.fairness)
    growth = [growth_sentence(row) for row in records(select(arena.growth, sign="all"))]
    seeds = len(set(arena.log.seed.tolist()))
    sentences = [
        *(warnings_of(lab) or [clip_sentence(found, DRAWN)]),
        span_sentence(select(found, range="default")),
        *(f"Of S, the log ratio of a response, over {line.replace('all:', 'all responses:', 1)}." for line in growth),
        f"This is one bank with {counted(seeds, 'seed')}{_alone(seeds)}: it says nothing of other models, sets or "
        "trainers.",
    ]
    figures = _drawn(folder, lab_figures(lab, NARROW))
    return FirstLook([sentence for sentence in sentences if sentence], figures)


def lab_figures(lab: Lab, width: float = WIDTH) -> dict[str, Figure]:
    """The figures that a bank's page begins with, by file name, for a page or for a phone."""
    arena = lab.arena
    shown, summary = (
        frame.take(np.flatnonzero(frame["method"].isin(DRAWN))) for frame in (arena.by_length, arena.fairness)
    )
    look: dict[str, Any] = {"colours": method_colours(DRAWN)}
    look["rows"] = tuple(span for span in ("default", MATCHED) if span in set(shown["range"]))
    return {
        "clip_by_length": clip_figure(shown, summary, columns=WIDEST if width > NARROW else 2, **look),
        "acceptance": acceptance_figure(shown, summary, width=width, **look),
        "growth": growth_figure(arena.growth_bins, arena.quantiles, width=width),
    }


def span_sentence(fairness: pd.DataFrame) -> str:
    """Which methods clip least and most of the responses at their own ranges; nothing where none has a band."""
    rows = [row for row in records(rules.equal_rows_joined(fairness)) if row["band"]]
    if not rows:
        return ""
    least, most = (_at_the(end, rows, "mean_clipped") for end in (min, max))
    ends = [f"{percent(row[0]['mean_clipped'])} % ({', '.join(one['method'] for one in row)})" for row in (least, most)]
    return f"At their own ranges the methods clip {' to '.join(dict.fromkeys(ends))} of the {CLIPPED}."
