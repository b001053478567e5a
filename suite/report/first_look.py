"""What a page shows first: at most five sentences, composed from the rows of its tables, and figures to point at."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from suite.config import MEAN
from suite.findings import rules
from suite.findings.bank_questions import DRAWN, Lab
from suite.findings.claims import MATCHED, steadiness
from suite.findings.comparison import Comparison
from suite.findings.rules import NOT_TESTABLE
from suite.records.result import BASE
from suite.replay.growth import growth_sentence
from suite.report import tables
from suite.report.accuracy_figures import accuracy_figure, difference_figure, reward_figure
from suite.report.bank_text import warnings_of
from suite.report.comparison_text import NOBODY
from suite.report.growth_figures import growth_figure
from suite.report.html import Drawn, FirstLook
from suite.report.length_figures import WIDEST, acceptance_figure, clip_figure
from suite.report.style import NARROW, WIDTH, method_colours, svg
from suite.report.tables import counted
from suite.statistics.frames import heading, names_of, overall, percent, records, select
from suite.statistics.intervals import few_seeds
from suite.statistics.verdicts import PRIMARY, UNDECIDED
from suite.types import reward_of, task_name

NAMED = 6
"""Most pairs, and most methods, that a sentence names one by one."""
SHOWS = {
    "accuracy": "Accuracy of every method, set by set, with 95 % intervals",
    "differences": "Differences of the declared pairs in points, set by set",
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
        limits_sentence(report),
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

    Of many pairs only those with a verdict are named.
    """
    rows = records(select(differences, family=PRIMARY))
    if not rows:
        return ""
    unknown = [row for row in rows if row["verdict"] == UNDECIDED]
    named = rows if len(rows) <= NAMED else [row for row in rows if row["verdict"] != UNDECIDED]
    parts = []
    for method, pairs in groupby(named, key=lambda row: row["method"]):
        against = [
            f"against {row['reference']} {'is ' * (i == 0)}{row['verdict']} "
            f"({percent(row['difference'], row['low'], row['high'], sign=True)} points)"
            for i, row in enumerate(pairs)
        ]
        parts.append(f"{method} {', '.join(against)}")
    if len(named) < len(rows):
        parts.append(f"{len(unknown)} of {len(rows)} pairs are undecided")
    found = [row["minimum_detectable"] for row in unknown]
    detectable = f"; {tables.detectable_words(max(found))}" if found else ""
    return f"On the declared outcome, {_on(rows[0])}, after Holm's correction: {'; '.join(parts)}{detectable}."


def accuracy_sentence(accuracies: pd.DataFrame) -> str:
    """Which method has the highest accuracy, and with whose intervals its own overlaps."""
    rows = [overall(part) for _, part in accuracies.groupby("method", sort=False)]
    base, methods = ([row for row in rows if (row["method"] == BASE) == first] for first in (True, False))
    best = max(methods, key=lambda row: row["accuracy"])
    others = [row for row in methods if row is not best]
    near, far = ([row["method"] for row in others if _overlap(row, best) == first] for first in (True, False))
    said = f"{best['method']} has the highest accuracy on {_on(best)}, {_share(best)} %"
    said = f"{best['method']} reaches {_share(best)} % on {_on(best)}" if not others else said
    if others:
        named = ", ".join(near) if len(near) <= NAMED else f"{len(near)} methods"
        said += f"; its 95 % interval overlaps with {f'those of {named}' if near else 'no other'}"
        said += f" and not with those of {', '.join(far)}" if near and 0 < len(far) <= NAMED else ""
    apart = "" if not base or _overlap(base[0], best) else "not "
    return said + (f", and {apart}with that of the base model, {_share(base[0])} %." if base else ".")


def _on(row: Mapping[str, Any]) -> str:
    return f"{'the ' * (row['task'] == MEAN)}{heading(row['task'])}"


def _overlap(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one["low"] <= other["high"] and other["low"] <= one["high"]


def _share(row: Mapping[str, Any]) -> str:
    return percent(row["accuracy"], row["low"], row["high"])


def clip_sentence(fairness: pd.DataFrame, names: Collection[str]) -> str:
    """How the clip rate of some methods changes with the length, at one clip rate or else at their own ranges.

    Rows as `suite.findings.rules.with_words` returns them; nothing where none of the methods has a band.
    """
    span = MATCHED if MATCHED in set(fairness["range"]) else "default"
    rows = select(fairness, range=span)
    joined = records(rules.equal_rows_joined(rows.take(np.flatnonzero(rows["method"].isin([*names])))))
    shown = [row for row in joined if row.get("band", True)]
    if not shown:
        return ""
    parts = [
        f"{percent(*(row[f'clipped_slope{end}'] for end in ('', '_low', '_high')), sign=True)} points for "
        f"{row['method']}, {rules.shown_word(row)}"
        for row in shown[:NAMED]
    ]
    rate = percent(shown[0]["mean_clipped"])
    where = f"At one clip rate, {rate} % of the same responses" if span == MATCHED else "At their own ranges"
    return f"{where}, that of finished responses changes per doubling of the length by {'; '.join(parts)}."


def stability_sentence(stability: pd.DataFrame) -> str:
    """How many runs collapsed, of which methods, and the word of the claim about stability where there is one."""
    fallen = select(stability, collapsed=1.0)
    counts = ", ".join(f"{name} {len(select(fallen, method=name))}" for name in names_of(fallen, "method"))
    runs = f"Of {len(stability)} runs {counts or 'none'} ended below the base model by the whole interval"
    verdict = steadiness(stability, "").verdict
    return f"{runs}; that training with FSPO is more stable is {verdict}." if verdict != NOT_TESTABLE else f"{runs}."


def limits_sentence(report: Comparison) -> str:
    """What such runs cannot say: of other models, seeds and sets."""
    seeds, rates = len(report.config.seeds), ", ".join(f"{part.rate:g}" for part in report.sweep)
    own = [task_name(task) for task in report.config.all_tasks if reward_of(task)]
    graded = f"; the rewards of {', '.join(dict.fromkeys(own))} are the user's own" if own else ""
    return (
        f"All this is of one model, {report.config.train.model}, at learning rate {rates}, with "
        f"{counted(seeds, 'seed')}{few_seeds(seeds)}: it says nothing of other models, rates or sets{graded}."
    )


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
        *(f"Of S, the log ratio of a response, over {line}." for line in growth),
        f"This is one bank with {counted(seeds, 'seed')}: it says nothing of other models, sets or trainers.",
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
    rows = [row for row in records(rules.equal_rows_joined(fairness)) if row.get("band", True)]
    if not rows:
        return ""
    least, most = (pick(rows, key=lambda row: row["mean_clipped"]) for pick in (min, max))
    ends = (f"{percent(row['mean_clipped'])} % ({row['method']})" for row in (least, most))
    return f"At their own ranges the methods clip {' to '.join(ends)} of the responses with a gradient."
