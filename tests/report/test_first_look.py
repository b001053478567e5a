"""What a page says first: sentences that follow from rows, and figures whose marks say the numbers that they show."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from suite.records.comparison_folder import stored_config
from suite.report.accuracy_figures import accuracy_figure
from suite.report.comparison_text import NOBODY
from suite.report.first_look import (
    NAMED,
    accuracy_sentence,
    clip_sentence,
    limits_sentence,
    outcome_sentence,
    span_sentence,
    stability_sentence,
)
from suite.report.style import SAID, svg
from suite.statistics.frames import percent

DEMO = Path(__file__).parents[2] / "results" / "demo"


def pair(rival: str, verdict: str = "undecided", found: float = 0.2, method: str = "fspo") -> dict[str, Any]:
    row = {"method": method, "reference": rival, "task": "mean", "family": "primary", "verdict": verdict}
    return row | {"difference": 0.05, "low": -0.01, "high": 0.11, "minimum_detectable": found, "p_holm": 0.08}


UNTESTED = {"minimum_detectable": math.nan, "p_holm": math.nan}
HEAD = "On the declared outcome, the mean of sets (verdicts after Holm's correction, 95 % intervals uncorrected): "


def test_the_outcome_is_told_pair_by_pair() -> None:
    """An interval without 0 beside "undecided" is no contradiction: it is said to be uncorrected."""
    rows = [pair("rloo", found=0.2) | {"low": 0.01}, pair("grpo", "better"), pair("gspo", found=0.3)]
    assert outcome_sentence(pd.DataFrame(rows)) == HEAD + (
        "fspo against rloo is undecided (+5.0 [+1.0, +11.0] points), against grpo better (+5.0 [-1.0, +11.0] points), "
        "against gspo undecided (+5.0 [-1.0, +11.0] points); a true difference of 30.0 points would be found with 80 % "
        "power."
    )
    decided = outcome_sentence(pd.DataFrame([pair("rloo", "worse")]))
    assert decided.endswith("fspo against rloo is worse (+5.0 [-1.0, +11.0] points).")
    assert outcome_sentence(pd.DataFrame([pair("rloo") | {"family": "exploratory"}])) == ""


def test_one_seed_is_no_test_and_nothing_is_said_to_be_corrected() -> None:
    said = outcome_sentence(pd.DataFrame([pair("rloo") | UNTESTED]))
    assert said == (
        "On the declared outcome, the mean of sets (95 % intervals uncorrected): fspo against rloo is not tested (+5.0 "
        "[-1.0, +11.0] points); one seed does not show how much seeds differ."
    )
    for rows in ([pair("rloo"), pair("grpo") | UNTESTED], [pair("grpo") | UNTESTED, pair("rloo")]):
        said = outcome_sentence(pd.DataFrame(rows))
        assert said.startswith(HEAD)
        assert said.endswith("a true difference of 20.0 points would be found with 80 % power."), "whichever is first"


def test_a_difference_without_variation_has_no_interval_and_no_verdict() -> None:
    same = {"verdict": "no variation", "difference": 0.0, "low": math.nan, "high": math.nan, "p_holm": math.nan}
    said = outcome_sentence(pd.DataFrame([pair("rloo"), pair("grpo") | same]))
    assert "against grpo without variation (+0.0 points); a true difference" in said
    many = outcome_sentence(pd.DataFrame([pair(f"m{i}") | same for i in range(NAMED)] + [pair("rloo")]))
    assert f"{NAMED} of {NAMED + 1} pairs are without variation; 1 of {NAMED + 1} pairs is undecided" in many
    assert "m0" not in many


def test_pairs_that_stand_in_are_not_called_declared() -> None:
    """All pairs of methods are tested where none of FSPO with the paper's baselines was run, with FSPO or without."""
    for rows in ([pair("ctpo")], [pair("grpo", method="rloo")], [pair("ctpo"), pair("ppo", method="ctpo")]):
        assert "mean of sets, for all pairs of methods, as no declared pair was run (" in outcome_sentence(
            pd.DataFrame(rows)
        )


def test_of_many_pairs_those_with_a_verdict_are_named() -> None:
    rows = [pair(f"m{i}") for i in range(NAMED)] + [pair("gspo", "better")]
    said = outcome_sentence(pd.DataFrame(rows))
    assert "fspo against gspo is better" in said
    assert f"{NAMED} of {NAMED + 1} pairs are undecided" in said
    assert "m0" not in said


def accuracies(values: dict[str, tuple[float, float, float]]) -> pd.DataFrame:
    rows = [
        {"method": name, "task": task, "accuracy": value + (task != "mean"), "low": low, "high": high}
        for name, (value, low, high) in values.items()
        for task in ("gcd", "mean")
    ]
    return pd.DataFrame(rows)


FSPO, GRPO = {"fspo": (0.2, 0.18, 0.22)}, {"grpo": (0.15, 0.1, 0.2)}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"base": (0.34, 0.31, 0.37)} | FSPO | GRPO,
            "Of the 2 trained methods fspo (20.0 [18.0, 22.0] %) has the highest accuracy on the mean of sets and grpo "
            "(15.0 [10.0, 20.0] %) the lowest; the base model (34.0 [31.0, 37.0] %) lies above all of them (95 % "
            "intervals, no test of a difference).",
        ),
        ({"base": (0.1, 0.0, 0.2)} | FSPO | GRPO, "the base model (10.0 [0.0, 20.0] %) lies below all of them"),
        ({"base": (0.16, 0.1, 0.2)} | FSPO | GRPO, "lies below 1 and above 1 of them"),
        ({"base": (0.1, 0.0, 0.2)} | FSPO, "fspo reaches 20.0 [18.0, 22.0] % on the mean of sets; the base model"),
        ({"base": (0.3, 0.2, 0.4)} | FSPO, "(30.0 [20.0, 40.0] %) lies above it (95 %"),
        (
            FSPO | {"ppo": (0.7 - 0.5, 0.15, 0.25)} | GRPO,
            "fspo (20.0 [18.0, 22.0] %) and ppo (20.0 [15.0, 25.0] %) have the highest accuracy",
        ),
        (
            {f"m{i}": (0.2, 0.1, 0.3) for i in range(NAMED + 1)} | GRPO,
            f" {NAMED + 1} of them (20.0 %) have the highest",
        ),
        (
            dict.fromkeys(("base", "a", "b"), (0.0, 0.0, 0.1)),
            "The 2 trained methods have the same accuracy on the mean of sets, 0.0 %; the base model (0.0 [0.0, 10.0] "
            "%) lies level with that (95 %",
        ),
        (
            {"a": (0.5, math.nan, math.nan), "b": (0.25, math.nan, math.nan)},
            " a (50.0 %) has the highest accuracy on the mean of sets and b (25.0 %) the lowest (no test",
        ),
    ],
)
def test_the_highest_accuracy_is_that_of_trained_methods(
    values: dict[str, tuple[float, float, float]], said: str
) -> None:
    """The base model, ties and a missing interval (one problem) are told as they are."""
    assert said in accuracy_sentence(accuracies(values))


def clipped(method: str, span: str, slope: float, word: str = "uneven", seeds: int = 3) -> dict[str, Any]:
    row = {"method": method, "range": span, "mean_clipped": 0.3, "word": word, "seeds": seeds, "band": True}
    row |= {"p_slope": 0.01, "p_bend": 0.02}
    return row | {"clipped_slope": slope, "clipped_slope_low": slope - 0.01, "clipped_slope_high": slope + 0.01}


def test_who_is_clipped_is_said_at_one_clip_rate_of_the_methods_asked_for() -> None:
    rows = [clipped("fspo", "default", 0.5), clipped("fspo", "matched", 0.0, "flat"), clipped("rloo", "matched", 0.02)]
    rows += [clipped("grpo", "matched", 0.02), clipped("other", "matched", 0.3)]
    rows += [clipped("ctpo", "matched", -0.001) | {"p_slope": 0.8}]
    said = clip_sentence(pd.DataFrame(rows), ("fspo", "rloo", "grpo", "ctpo"))
    assert said == (
        "At matched clip rates, 30.0 % of the same responses with a gradient (of their tokens, where a method weighs "
        "tokens), the clip rate of finished responses changes per doubling of the length by +0.0 [-1.0, +1.0] points "
        "for fspo, flat; +2.0 [+1.0, +3.0] points for rloo and grpo, uneven; -0.1 [-1.1, +0.9] points for ctpo, uneven "
        "by its bend; the words also weigh bend, seeds and truncated responses, the 95 % intervals only the slope over "
        "problems."
    )
    alone = clip_sentence(pd.DataFrame([clipped("fspo", "default", 0.5, seeds=1)]), {"fspo"})
    assert alone.startswith("At their own ranges, the clip rate of finished responses changes")
    assert "for fspo, uneven (one seed: exploratory); the words" in alone
    assert clip_sentence(pd.DataFrame([clipped("a", "default", 0.0) | {"band": False}]), {"a"}) == ""


def test_one_method_under_two_names_is_one_finding() -> None:
    """gspo and gspo_wide differ in width alone: matched within the tolerance their rows print alike."""
    rows = [clipped(name, "matched", slope) for name, slope in (("gspo", -0.0398), ("gspo_wide", -0.0399))]
    rows[1]["mean_clipped"] = 0.3006
    said = clip_sentence(pd.DataFrame(rows), {"gspo", "gspo_wide"})
    assert "by -4.0 [-5.0, -3.0] points for gspo and gspo_wide, uneven; the words" in said
    assert said.startswith("At matched clip rates, 30.0 to 30.1 %")


def test_a_rate_that_jumped_over_the_common_one_is_seen() -> None:
    rows = [clipped("fspo", "matched", 0.0), clipped("gspo", "matched", 0.1) | {"mean_clipped": 0.344}]
    said = clip_sentence(pd.DataFrame(rows), {"fspo", "gspo"})
    assert said.startswith("At clip rates that match no closer, 30.0 to 34.4 % of the same responses")


def test_methods_without_a_finding_are_named_and_those_beyond_the_sixth_counted() -> None:
    names = [f"m{i}" for i in range(NAMED + 2)]
    rows = [clipped(name, span, 0.1 * i) for i, name in enumerate(names) for span in ("default", "matched")]
    rows += [clipped("far", "default", 0.1), clipped("open", "default", 0.0) | {"band": False}]
    said = clip_sentence(pd.DataFrame(rows), {*names, "far", "open"})
    assert "; 2 further methods in the table below; not known for far (not matched), open (no band); the words" in said
    assert f"for m{NAMED - 1}, uneven" in said
    assert f"m{NAMED}," not in said
    still = clipped("still", "default", math.nan)
    assert "not known for still (no slope)" in clip_sentence(
        pd.DataFrame([*rows, still]).query("range == 'default'"), {"m0", "still"}
    )


def test_own_ranges_are_told_by_their_ends() -> None:
    rows = [
        clipped(name, "default", 0.0) | {"mean_clipped": rate} for name, rate in (("a", 0.5), ("b", 0.1), ("c", 0.3))
    ]
    rows.append(clipped("none", "default", 0.0) | {"mean_clipped": 0.0, "band": False})
    rows.append(clipped("d", "default", 0.1) | {"mean_clipped": 0.1})
    tail = " of the responses with a gradient (of their tokens, where a method weighs tokens)."
    said = span_sentence(pd.DataFrame(rows))
    assert said == f"At their own ranges the methods clip 10.0 % (b, d) to 50.0 % (a){tail}"
    assert span_sentence(pd.DataFrame(rows[:1])) == f"At their own ranges the methods clip 50.0 % (a){tail}"


def runs(method: str, fallen: int, rate: float = 0.1, broken: float = 0.0) -> list[dict[str, Any]]:
    return [
        {"method": method, "seed": i, "learning_rate": rate, "collapsed": float(i < fallen or broken), "final": 0.1 * i}
        | {"ahead_high": -0.01 if i < fallen else 0.02, "broken": broken, "probe_fall": 0.01 * i}
        for i in range(3)
    ]


def test_collapsed_runs_are_counted_by_method_and_kind() -> None:
    """A run whose reward or gradient norm is no number has not, for that, ended below the base model."""
    rows = [*runs("a", 0), *runs("gspo", 2), *runs("ctpo", 1), *runs("ppo", 0, broken=1.0)]
    said = stability_sentence(pd.DataFrame(rows))
    below = "ended below the base model by the whole 95 % interval over problems"
    assert said == (
        f"Of 12 runs, 3 (gspo 2, ctpo 1) {below}, and 3 (ppo 3) had a reward or gradient norm that is no number."
    )
    assert stability_sentence(pd.DataFrame(runs("a", 0))).startswith(f"Of 3 runs, none {below}, and none had")


def test_stability_says_than_whom_and_at_which_rates() -> None:
    rows = [*runs("fspo", 0), *runs("rloo", 0), *runs("ctpo", 0), *runs("ctpo", 1, rate=0.3)]
    said = stability_sentence(pd.DataFrame(rows))
    assert said.startswith("Of 12 runs at learning rates 0.1 and 0.3, 1 (ctpo 1) ended")
    assert said.endswith("; that FSPO trains more steadily than the paper's baselines (rloo) is undecided.")


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (1, "with 1 seed, so that no interval holds how seeds differ: it"),
        (3, "with 3 seeds, with which 95 % intervals of accuracies covered at least 92 % in simulations: it"),
        (10, "with 10 seeds: it says nothing of other models, rates or sets."),
    ],
)
def test_limits_are_those_of_the_folders_own_rate_and_seeds(seeds: int, said: str) -> None:
    config = replace(stored_config(DEMO), seeds=tuple(range(seeds)))
    head = "All this is of one model, embedded, at learning rate 0.0003"
    for swept, rates in ((False, ", "), (True, " (the counts of runs: also at others), ")):
        assert limits_sentence(config, swept=swept).startswith(head + rates + said)


def test_without_a_second_update_the_sentence_stands_alone() -> None:
    assert NOBODY.startswith("No response is clipped: every rollout got one update, and ")


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
