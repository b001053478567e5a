"""The theory figure: real methods on simulated S against a normal tail of our own, and wrong bands that it must show.

The seed is 0, the first one; with 80 points beyond three standard errors .22 are expected by chance.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.container import ErrorbarContainer
from scipy import stats

from strategies import METHODS
from suite.commands import main
from suite.findings import theory
from suite.findings.theory import CENTRED, DRIFTING, STILL, BandRule, measured_shares, theory_sentence
from suite.report import theory_page
from suite.report.theory_page import table, theory_figure, write_theory
from suite.statistics.frames import select
from suite.types import UserError

COLUMNS = ["rule", "sigma", "drift", "length", "responses", "measured", "standard_error", "expected", "z"]


def tail(rule: str, sigma: float, drift: float, length: int) -> float:
    """P(S outside) with S ~ N(L drift, L sigma^2) and every band written out: rloo .2, gspo 3e-4 / 4e-4, fspo .03."""
    low, high = {
        "rloo": (math.log(0.8), math.log(1.2)),
        "gspo": (length * math.log(1 - 3e-4), length * math.log(1 + 4e-4)),
        "fspo": (-0.03 * math.sqrt(length), 0.03 * math.sqrt(length)),
        CENTRED: (length * drift - 0.03 * math.sqrt(length), length * drift + 0.03 * math.sqrt(length)),
    }[rule]
    s = stats.norm(length * drift, sigma * math.sqrt(length))
    return float(s.cdf(low) + s.sf(high))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two spreads, three lengths, 2,000 responses of each: seconds instead of a minute."""
    for module in (theory, theory_page):
        monkeypatch.setattr(module, "SIGMAS", (0.02, 0.035))
    for module in (theory, theory_page):
        monkeypatch.setattr(module, "LENGTHS", (64, 256, 1024))
    monkeypatch.setattr(theory, "STEPS", 4)


def check_against_the_tail(points: pd.DataFrame) -> None:
    """Expected shares are `tail`'s; no measured count is one that the binomial law all but excludes."""
    for row in points.to_dict("records"):
        expected = tail(row["rule"], row["sigma"], row["drift"], row["length"])
        assert row["expected"] == pytest.approx(expected, rel=1e-9, abs=0)
        error = math.sqrt(expected * (1 - expected) / row["responses"])
        assert row["standard_error"] == pytest.approx(error, rel=1e-9, abs=0)
        assert row["z"] == pytest.approx((row["measured"] - expected) / error, rel=1e-6, abs=1e-6)
        count = round(row["measured"] * row["responses"])
        assert count == pytest.approx(row["measured"] * row["responses"], abs=1e-9)
        # One in a hundred thousand, for one of at most 80 points: less than one seed in a thousand.
        assert stats.binomtest(count, row["responses"], expected).pvalue > 1e-5, row


@pytest.mark.usefixtures("small")
def test_points_are_the_methods_on_the_normal_tail() -> None:
    points = measured_shares()
    assert list(points.columns) == COLUMNS
    assert len(points) == 2 * 3 * (3 + 2)
    assert set(points["responses"]) == {2000}
    check_against_the_tail(points)
    assert set(zip(points["rule"], points["drift"] == 0, strict=True)) == {
        ("rloo", True),
        ("gspo", True),
        ("fspo", True),
        ("fspo", False),
        (CENTRED, False),
    }
    drifts = select(points, sigma=0.02)["drift"].unique().tolist()
    assert drifts == [0, pytest.approx(-0.0002)]


@pytest.mark.slow
@pytest.mark.long
def test_the_whole_figure_with_its_default_seed(tmp_path: Path) -> None:
    points = write_theory(tmp_path)
    assert len(points) == 4 * 4 * (3 + 2)
    check_against_the_tail(points)
    for sigma, rise in ((0.02, 0.28 - 0.14), (0.035, 0.77 - 0.40)):
        zero, batch = (
            select(points, rule=rule, sigma=sigma, drift=theory.drift_of(sigma))["measured"].to_numpy()
            for rule in ("fspo", CENTRED)
        )
        assert zero[-1] - zero[0] == pytest.approx(rise, abs=0.05)
        # The largest of four shares of 4,000 lies less than 5 standard errors above the smallest.
        flat = 2 * stats.norm.sf(0.03 / sigma)
        assert np.ptp(batch) < 5 * math.sqrt(flat * (1 - flat) / 4000)


WRONG = {
    "a band a fifth too wide": {"fspo": METHODS["fspo"].scaled(1.2)},
    "a band that is constant": {"fspo": METHODS["rloo"]},
    "rloo's upper edge as its lower": {
        "rloo": dataclasses.replace(
            METHODS["rloo"], hyper=dataclasses.replace(METHODS["rloo"].hyper, clip_low=1 - 1 / 1.2)
        )
    },
    "the wide range of gspo": {"gspo": METHODS["gspo_wide"]},
}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_band_is_seen(case: str) -> None:
    planted = {name: BandRule(method, STILL[name].edges) for name, method in WRONG[case].items()}
    points = measured_shares({**STILL, **planted}, {})
    (name,) = planted
    assert (select(points, rule=name)["z"].abs() > 3).any()
    others = points[points["rule"] != name]
    assert (others["z"].abs() < 4).all()
    within, total = map(int, re.findall(r"(\d+) of (\d+) points", theory_sentence(points))[0])
    assert within < total == len(points)


@pytest.mark.usefixtures("small")
def test_a_centre_that_does_not_follow_the_drift_is_seen() -> None:
    points = measured_shares({}, {CENTRED: BandRule(METHODS["fspo"], DRIFTING[CENTRED].edges)})
    # At L = 1024 and sigma .035 the drift is .56 spreads of S: a share of .46 where .39 is expected, 6 errors away.
    assert select(points, sigma=0.035, length=1024)["z"].iloc[0] > 3


def made_points() -> pd.DataFrame:
    """Every dot of the figure, on its curve."""
    rows = [
        {
            "rule": rule,
            "sigma": sigma,
            "drift": drift,
            "length": length,
            "responses": 100,
            "standard_error": 0.01,
            "measured": tail(rule, sigma, drift, length),
            "expected": tail(rule, sigma, drift, length),
            "z": 0.5,
        }
        for sigma in theory.SIGMAS
        for drift, rules in ((0.0, STILL), (theory.drift_of(sigma), DRIFTING))
        for rule in rules
        for length in theory.LENGTHS
    ]
    return pd.DataFrame(rows)


def test_the_sentence_counts_and_names_the_farthest_point() -> None:
    points = made_points()
    points.loc[[3, 7], "z"] = 3.0, -3.01
    assert theory_sentence(points).startswith("79 of 80 points lie within 3 standard errors")
    far = points.loc[7]
    assert f"|z| is 3.01 ({far['rule']}, sigma {far['sigma']:g}, drift 0, {far['length']} tokens)" in theory_sentence(
        points
    )
    points.loc[70, "z"] = math.inf
    assert theory_sentence(points).startswith("78 of 80")
    assert "|z| is inf (" in theory_sentence(points)


def test_the_table_has_a_row_for_every_bank_and_rule() -> None:
    shown = table(made_points())
    assert len(shown) == 4 * 5
    row = shown[(shown["sigma"] == "0.02") & (shown["drift"] == "0") & (shown["rule"] == "fspo")].iloc[0]
    assert [row[f"L = {length}"] for length in theory.LENGTHS] == ["13.4 ± 3.0 (13.4)"] * 4


def test_panels_hold_the_marks_on_their_curves_and_texts_apart() -> None:
    points = made_points()
    figure = theory_figure(points)
    panels = figure.axes[:5]
    assert [axes.get_title("left") for axes in panels[:4]] == [f"σ = {sigma:g}" for sigma in theory.SIGMAS]
    drawn = []
    for axes in panels:
        curves = [line for line in axes.lines if len(line.get_xdata()) > len(theory.LENGTHS)]
        bars = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
        assert len(curves) == len(bars) == (8 if axes is panels[4] else 3)
        for curve, bar in zip(curves, bars, strict=True):
            x, y = (np.asarray(values, float) for values in bar.lines[0].get_data())
            drawn += y.tolist()
            assert x.tolist() == list(theory.LENGTHS)
            assert bar.lines[0].get_color() == curve.get_color()
            # Linear between 80 points of a smooth curve: well below a thousandth.
            assert np.interp(np.log(x), np.log(curve.get_xdata()), curve.get_ydata()) == pytest.approx(y, abs=1e-3)
            (segments,) = (lines.get_segments() for lines in bar.lines[2])
            assert [(s[1][1] - s[0][1]) / 2 for s in segments] == pytest.approx([0.03] * 4)
    assert sorted(drawn) == sorted(points["measured"])
    figure.draw_without_rendering()
    texts = [t for axes in figure.axes for t in axes.texts] + [axes.title for axes in panels]
    boxes = [t.get_window_extent() for t in texts] + [figure.axes[5].get_legend().get_window_extent()]
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :])
    assert all(figure.bbox.x0 <= b.x0 and b.x1 <= figure.bbox.x1 for b in boxes)


@pytest.mark.usefixtures("small")
def test_the_command_writes_the_same_bytes_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(theory, "STEPS", 1)
    monkeypatch.setattr(theory, "PER_STEP", 100)
    for name, seed in (("a", "5"), ("b", "5"), ("c", "6")):
        monkeypatch.setattr(sys, "argv", ["fspo", "bank", "theory", "--out", str(tmp_path / name), "--seed", seed])
        main.main()
    files = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "abc"]
    made = [json.loads(of.pop("made.json")) for of in files]
    assert [one["seed"] for one in made] == [5, 5, 6]
    assert set(made[0]["cards"]) == {"rloo", "gspo", "fspo_zero_drift"}
    assert files[0].keys() == {"theory.csv", "theory.svg", "theory.png"}
    assert files[0] == files[1]
    assert files[0]["theory.csv"] != files[2]["theory.csv"]
    written = pd.read_csv(tmp_path / "a" / "theory.csv")
    assert list(written.columns) == COLUMNS
    assert theory_sentence(written) in capsys.readouterr().out


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(UserError, match="--seed -1"):
        measured_shares(seed=-1)
