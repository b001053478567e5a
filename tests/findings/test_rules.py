"""Rules: a planted case for every word of every rule, and that the pages say what the rules are."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from strategies import METHODS
from suite.findings import rules
from suite.findings.rules import (
    FLAT,
    NOT_SUPPORTED,
    NOT_TESTABLE,
    SUPPORTED,
    UNDECIDED,
    UNEVEN,
    Steadier,
    accuracy_word,
    bound_verdict,
    clip_word,
    equal_rows_joined,
    fixed_ranges,
    flattening_verdict,
    judged_word,
    reweighting_verdict,
    steadiness_verdict,
    superiority_verdict,
    with_words,
)
from suite.report.markdown import markdown

ROOT = Path(__file__).parents[2]


def clip_row(low: float = -0.09, high: float = 0.09, deviation: float = 0.3, p_even: float = 0.5, **other) -> dict:
    """A row of fairness numbers: a 90 % interval of the relative slope, the upper limit of a bin, and p."""
    row = {"relative_slope_low_90": low, "relative_slope_high_90": high, "largest_deviation_high": deviation}
    row |= {f"all_{name}": value for name, value in row.items()}
    return row | {"p_even": p_even, "p_slope": 0.2, "p_bend": 0.3, "sentence": "no slope found: +0.0"} | other


@pytest.mark.parametrize(
    ("row", "word"),
    [
        (clip_row(), FLAT),
        (clip_row(p_even=0.001), FLAT),  # a slope that is there, but reweights nobody
        (clip_row(low=-0.11), UNDECIDED),  # no slope found, but one of 11 % is possible
        (clip_row(high=0.11, p_even=0.049), UNEVEN),
        (clip_row(deviation=0.34), UNDECIDED),  # a slope within its margin, and a U that is not excluded
        (clip_row(deviation=0.34, p_even=0.01), UNEVEN),
        (clip_row(all_largest_deviation_high=0.4), UNDECIDED),  # flat but for truncated responses
        (clip_row(all_relative_slope_high_90=0.2), UNDECIDED),
        (clip_row(low=math.nan, high=math.nan, deviation=math.nan, p_even=math.nan), UNDECIDED),  # nothing was clipped
    ],
)
def test_the_word_of_a_method(row: dict, word: str) -> None:
    assert clip_word(row) == word


def test_a_word_heads_its_sentence_and_a_bend_is_named() -> None:
    frame = pd.DataFrame([clip_row(low=-0.2, p_even=0.01, p_bend=0.005), clip_row(), clip_row() | {"band": False}])
    found = with_words(frame.assign(band=[True, True, False]))
    assert found["word"].tolist() == [UNEVEN, FLAT, "no band"]
    assert found["sentence"].tolist() == [
        "uneven by its bend, no slope found: +0.0",
        "flat, no slope found: +0.0",
        "no band, no slope found: +0.0",
    ]


def test_a_bend_is_named_before_the_one_seed_that_showed_it() -> None:
    row = clip_row(p_even=0.01, p_bend=0.005) | {"word": UNEVEN, "seeds": 1}
    assert judged_word(row) == "uneven by its bend (one seed: exploratory)"


def test_fixed_ranges_are_recognised_by_level_and_growth() -> None:
    assert fixed_ranges(METHODS) == ["rloo", "gspo", "gspo_wide", "luspo"]
    renamed = {"mine": replace(METHODS["gspo"], name="mine"), "fspo": METHODS["fspo"], "ppo": METHODS["ppo"]}
    assert fixed_ranges(renamed) == ["mine"]


@pytest.mark.parametrize(
    ("fixed", "verdict"),
    [
        ([UNEVEN, UNEVEN], SUPPORTED),
        ([UNEVEN, UNDECIDED], UNDECIDED),
        ([UNEVEN, FLAT], NOT_SUPPORTED),
        ([UNDECIDED, FLAT], NOT_SUPPORTED),
        ([], NOT_TESTABLE),
    ],
)
def test_claim_1(fixed: list[str], verdict: str) -> None:
    assert reweighting_verdict(fixed) == verdict


@pytest.mark.parametrize(
    ("ours", "fixed", "verdict"),
    [
        (FLAT, [UNEVEN, UNEVEN], SUPPORTED),
        (FLAT, [UNEVEN, UNDECIDED], UNDECIDED),
        (FLAT, [UNEVEN, FLAT], NOT_SUPPORTED),
        (UNDECIDED, [UNEVEN], UNDECIDED),
        (UNEVEN, [UNEVEN], NOT_SUPPORTED),  # less uneven than a rival is not flat
        (FLAT, [], NOT_TESTABLE),
    ],
)
def test_claim_3(ours: str, fixed: list[str], verdict: str) -> None:
    assert flattening_verdict(ours, fixed) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.04, SUPPORTED),
        (0.06, 0.1, NOT_SUPPORTED),
        (0.04, 0.06, UNDECIDED),
        (math.nan, math.nan, UNDECIDED),
    ],
)
def test_claim_2(low: float, high: float, verdict: str) -> None:
    assert bound_verdict(low, high) == verdict


STEADY = Steadier("rloo", fall=0.03, low=0.01, high=0.05, p=0.01, collapsed=0, rivals_collapsed=2, more=0, less=2)


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, SUPPORTED),
        ({"low": -0.01}, UNDECIDED),
        ({"low": -0.05, "high": -0.01}, NOT_SUPPORTED),
        ({"low": -0.05, "high": -0.001, "p": 0.04}, UNDECIDED),  # .08 after Holm over two rivals
        ({"collapsed": 3}, UNDECIDED),  # falls less, but collapses more often
        ({"collapsed": 5, "more": 5, "less": 0}, UNDECIDED),  # five seeds of five: p .0625 at best
        ({"collapsed": 8, "more": 8, "less": 0}, NOT_SUPPORTED),
        ({"fall": math.nan, "low": math.nan, "high": math.nan, "p": math.nan}, NOT_TESTABLE),
        ({"low": math.nan, "high": math.nan, "p": math.nan, "more": 8, "less": 0, "collapsed": 8}, NOT_SUPPORTED),
    ],
)
def test_claim_4(changes: dict, verdict: str) -> None:
    other = replace(STEADY, rival="gspo", p=0.9 if changes.get("p") == 0.04 else STEADY.p)
    assert steadiness_verdict([replace(STEADY, **changes), other]) == verdict


def test_claim_4_needs_a_rival() -> None:
    assert steadiness_verdict([]) == NOT_TESTABLE


@pytest.mark.parametrize(
    ("means", "sets", "verdict"),
    [
        (["better"] * 3, ["better", "undecided", "equal"], SUPPORTED),
        (["better", "better", "undecided"], [], UNDECIDED),
        (["better", "better", "equal"], [], NOT_SUPPORTED),
        (["better"] * 3, ["better", "worse"], NOT_SUPPORTED),  # the mean hides it
        (["worse", "better", "better"], [], NOT_SUPPORTED),
        ([], [], NOT_TESTABLE),
    ],
)
def test_claim_5(means: list[str], sets: list[str], verdict: str) -> None:
    assert superiority_verdict(means, sets) == verdict


@pytest.mark.parametrize(
    "verdict", ["under-powered", "no difference found", "exploratory", "no variation", "undecided"]
)
def test_other_verdicts_decide_nothing(verdict: str) -> None:
    assert accuracy_word(verdict) == UNDECIDED


def test_equal_rows_are_one() -> None:
    frame = pd.DataFrame(
        {
            "method": ["ppo", "rloo", "grpo", "ppo"],
            "range": ["matched", "matched", "matched", "default"],
            "clipped": [0.1, 0.2, 0.1, 0.1],
            "sentence": ["a", "b", "c", "d"],
        }
    )
    assert equal_rows_joined(frame)["method"].tolist() == ["ppo = grpo", "rloo", "ppo"]


def test_every_rule_is_dated_and_has_a_reason() -> None:
    assert [rule.of.split(",")[0] for rule in rules.RULES[1:]] == [f"claim {i}" for i in range(1, 6)]
    assert all(rule.dated >= "2026-11-29" and len(rule.reason) > 80 for rule in rules.RULES)
    words = " ".join(rule.threshold for rule in rules.RULES)
    assert f"{100 * rules.SLOPE_MARGIN:.0f} % of the clip rate" in words
    assert "a third" in words
    assert pytest.approx(1 / 3) == rules.BIN_MARGIN


def test_the_page_has_the_rules_word_for_word() -> None:
    page = (ROOT / "docs" / "reading-a-report.md").read_text()
    found = page.split("<!-- rules of suite/findings/rules.py -->\n")[1].split("<!-- end of rules -->")[0]
    assert found.strip() == markdown(rules.rules_table()).strip()
