"""What a page says first: sentences that follow from rows, and figures whose marks say the numbers that they show."""

from __future__ import annotations

import io
import math
import re
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from suite.report.accuracy_figures import accuracy_figure
from suite.report.first_look import (
    NAMED,
    accuracy_sentence,
    clip_sentence,
    outcome_sentence,
    span_sentence,
    stability_sentence,
)
from suite.report.style import SAID, svg
from suite.statistics.frames import percent

DEMO = Path(__file__).parents[2] / "results" / "demo"


def pair(rival: str, verdict: str = "undecided", found: float = 0.2, method: str = "fspo") -> dict[str, object]:
    row = {"method": method, "reference": rival, "task": "mean", "family": "primary", "verdict": verdict}
    return row | {"difference": 0.05, "low": -0.01, "high": 0.11, "minimum_detectable": found}


def test_the_outcome_is_told_pair_by_pair() -> None:
    rows = [pair("rloo", found=0.2), pair("grpo", "better, few seeds"), pair("gspo", found=0.3)]
    assert outcome_sentence(pd.DataFrame(rows)) == (
        "On the declared outcome, the mean of sets, after Holm's correction: fspo against rloo is undecided (+5.0 "
        "[-1.0, +11.0] points), against grpo better, few seeds (+5.0 [-1.0, +11.0] points), against gspo undecided "
        "(+5.0 [-1.0, +11.0] points); a true difference of 30.0 points would be found with 80 % power."
    )
    decided = outcome_sentence(pd.DataFrame([pair("rloo", "worse")]))
    assert decided.endswith("fspo against rloo is worse (+5.0 [-1.0, +11.0] points).")
    one_seed = outcome_sentence(pd.DataFrame([pair("rloo", found=math.nan)]))
    assert one_seed.endswith("; one seed does not show how much seeds differ.")
    assert outcome_sentence(pd.DataFrame([pair("rloo") | {"family": "exploratory"}])) == ""


def test_of_many_pairs_those_with_a_verdict_are_named() -> None:
    rows = [pair(f"m{i}") for i in range(NAMED)] + [pair("gspo", "better")]
    said = outcome_sentence(pd.DataFrame(rows))
    assert "fspo against gspo is better" in said
    assert f"{NAMED} of {NAMED + 1} pairs are undecided" in said
    assert "m0" not in said


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ([(0.5, 0.45, 0.55)], "; its 95 % interval overlaps with those of m0, and not with that of the base model"),
        ([(0.4, 0.35, 0.45)], "; its 95 % interval overlaps with no other, and not with that of the base model"),
        ([(0.5, 0.45, 0.55), (0.4, 0.3, 0.41)], "overlaps with those of m0 and not with those of m1, and not with"),
        ([(0.5, 0.5, 0.51)] * 8, "overlaps with those of 8 methods, and not with"),
    ],
)
def test_the_highest_accuracy_is_said_with_whose_intervals_overlap(others: list[tuple[float, ...]], said: str) -> None:
    values = {"base": (0.1, 0.05, 0.15), **{f"m{i}": row for i, row in enumerate(others)}, "fspo": (0.6, 0.5, 0.7)}
    rows = [
        {"method": name, "task": task, "accuracy": value, "low": low, "high": high}
        for name, (value, low, high) in values.items()
        for task in ("gcd", "mean")
    ]
    sentence = accuracy_sentence(pd.DataFrame(rows))
    assert sentence.startswith("fspo has the highest accuracy on the mean of sets, 60.0 [50.0, 70.0] %")
    assert said in sentence
    assert sentence.endswith(" the base model, 10.0 [5.0, 15.0] %.")


def clipped(method: str, span: str, slope: float, word: str = "uneven", seeds: int = 3) -> dict[str, object]:
    row = {"method": method, "range": span, "mean_clipped": 0.3, "word": word, "seeds": seeds, "band": True}
    return row | {"clipped_slope": slope, "clipped_slope_low": slope - 0.01, "clipped_slope_high": slope + 0.01}


def test_who_is_clipped_is_said_at_one_clip_rate_of_the_methods_asked_for() -> None:
    rows = [clipped("fspo", "default", 0.5), clipped("fspo", "matched", 0.0, "flat"), clipped("rloo", "matched", 0.02)]
    rows += [clipped("grpo", "matched", 0.02), clipped("other", "matched", 0.3)]
    said = clip_sentence(pd.DataFrame(rows), ("fspo", "rloo", "grpo"))
    assert said == (
        "At one clip rate, 30.0 % of the same responses, that of finished responses changes per doubling of the length "
        "by +0.0 [-1.0, +1.0] points for fspo, flat; +2.0 [+1.0, +3.0] points for rloo = grpo, uneven."
    )
    alone = clip_sentence(pd.DataFrame([clipped("fspo", "default", 0.5, seeds=1)]), {"fspo"})
    assert alone.startswith("At their own ranges")
    assert alone.endswith("for fspo, uneven (one seed: exploratory).")
    assert clip_sentence(pd.DataFrame([clipped("a", "default", 0.0) | {"band": False}]), {"a"}) == ""


def test_own_ranges_are_told_by_their_ends() -> None:
    rows = [
        clipped(name, "default", 0.0) | {"mean_clipped": rate} for name, rate in (("a", 0.5), ("b", 0.1), ("c", 0.3))
    ]
    rows.append(clipped("none", "default", 0.0) | {"mean_clipped": 0.0, "band": False})
    said = span_sentence(pd.DataFrame(rows))
    assert said == "At their own ranges the methods clip 10.0 % (b) to 50.0 % (a) of the responses with a gradient."


def test_collapsed_runs_are_counted_by_method() -> None:
    rows = [
        {"method": name, "seed": i, "learning_rate": 0.1, "collapsed": float(i < fallen), "final": 0.1 * i}
        for name, fallen in (("a", 0), ("gspo", 2), ("ctpo", 1))
        for i in range(3)
    ]
    said = stability_sentence(pd.DataFrame(rows))
    assert said == "Of 9 runs gspo 2, ctpo 1 ended below the base model by the whole interval."
    none = pd.DataFrame(rows).assign(collapsed=0.0)
    assert stability_sentence(none).startswith("Of 9 runs none ended")


@pytest.fixture(scope="module")
def demo() -> tuple[pd.DataFrame, pd.DataFrame]:
    return pd.read_csv(DEMO / "accuracy.csv"), pd.read_csv(DEMO / "by_seed.csv")


def test_every_mark_says_its_number(demo: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """One for each model and set, and one for each run and set: with the value of the committed table."""
    accuracies, by_seed = demo
    titles = [unescape(title) for title in re.findall("<title>(.*?)</title>", svg(accuracy_figure(*demo)))]
    names = {"mean": "mean of sets"}
    expected = [
        f"{row.method}, {names.get(row.task, row.task)}: {percent(row.accuracy, row.low, row.high)} %"
        for row in accuracies.itertuples()
    ]
    expected += [
        f"{row.method}, seed {row.seed}, {names.get(row.task, row.task)}: {percent(row.accuracy)} %"
        for row in by_seed.itertuples()
        if row.method != "base"
    ]
    assert sorted(titles) == sorted(expected)


def test_marks_to_point_at_are_not_seen(demo: tuple[pd.DataFrame, pd.DataFrame]) -> None:
    """The picture is the same without them, pixel by pixel."""
    pictures = []
    for kept in (True, False):
        figure = accuracy_figure(*demo)
        for artist in [] if kept else figure.findobj(lambda one: str(one.get_gid()).startswith(SAID)):
            artist.remove()
        drawn = io.BytesIO()
        FigureCanvasAgg(figure).print_raw(drawn)
        pictures.append(np.frombuffer(drawn.getvalue(), np.uint8))
    assert np.array_equal(*pictures)
