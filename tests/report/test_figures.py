"""Figures: the same bytes twice, the right numbers in the right panel, colours that follow the method."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from suite.experiments.names import METHODS
from suite.experiments.recipe_book import SEVEN
from suite.findings.bank_questions import DRAWN
from suite.report.accuracy_figures import accuracy_figure, difference_figure, reward_figure, spread_labels
from suite.report.growth_figures import growth_figure, predicted_figure, update_figure
from suite.report.length_figures import acceptance_figure, clip_figure
from suite.report.style import PALETTE, length_axis, line_styles, markers, method_colours, save_png, save_svg

PNG = b"\x89PNG\r\n\x1a\n"


def accuracies(tasks: tuple[str, ...] = ("add", "gcd", "mean")) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows, seeds = [], []
    for i, task in enumerate(tasks):
        for j, method in enumerate(("base", "gspo", "fspo")):
            value = 0.3 + 0.05 * i + 0.1 * j
            rows.append({"method": method, "task": task, "accuracy": value, "low": value - 0.02, "high": value + 0.03})
            seeds += [{"method": method, "task": task, "seed": s, "accuracy": value + s / 100} for s in (-1, 0, 1)]
    return pd.DataFrame(rows), pd.DataFrame(seeds)


def lengths(ranges: tuple[str, ...] = ("own", "matched"), top: float = 0.4) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows, summary = [], []
    for method in ("fspo", "rloo"):
        for span in ranges:
            for i, length in enumerate([4.0, 11.0, 40.0, 90.0]):
                share = top * (i + 1) / 4 if method == "rloo" else top / 2
                row = {"method": method, "range": span, "mean_length": length, "truncated": i == 3}
                for key, value in (("outside_band", 1.2 * share), ("clipped", share), ("relative_acceptance", share)):
                    row |= {key: value, f"{key}_low": 0.9 * value, f"{key}_high": 1.1 * value}
                rows.append(row)
            summary.append(
                {"method": method, "range": span, "lre_max": 0.123, "lre_noise": 0.04, "clipped_slope": -0.02}
            )
    return pd.DataFrame(rows), pd.DataFrame(summary)


def curves() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"method": m, "seed": s, "step": t, "reward": 0.1 * t + 0.01 * s + (m == "fspo")}
            for m in ("grpo", "fspo")
            for s in (0, 1)
            for t in range(6)
        ]
    )


def growth() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"sign": sign, "mean_length": length, "mean_s": -0.01 * length, "spread": 0.03}
            for sign in ("all", "A > 0", "A < 0")
            for length in (4.0, 20.0, 90.0)
        ]
    )


def quantiles() -> pd.DataFrame:
    lines = [("all", "all"), ("A > 0", "all"), ("all", "2–9"), ("all", "10–99")]
    return pd.concat(
        [
            pd.DataFrame({"sign": s, "bin": b, "normal": np.linspace(-2, 2, 9), "measured": np.linspace(-2.2, 2.1, 9)})
            for s, b in lines
        ]
    )


def updates() -> pd.DataFrame:
    frame = pd.DataFrame({"update": [1, 2, 3], "drift": [0.0, -1e-4, -3e-4], "sigma": [0.01, 0.015, 0.02]})
    return frame.assign(
        **{f"{n}_{end}": frame[n] * k for n in ("drift", "sigma") for end, k in (("low", 0.9), ("high", 1.1))}
    )


def predicted() -> pd.DataFrame:
    table, _ = lengths()
    return table.assign(predicted=table["outside_band"] * 0.8)


def declared(tasks: tuple[str, ...] = ("add", "gcd", "mean")) -> pd.DataFrame:
    rows = [("fspo", rival, task) for rival in ("rloo", "gspo") for task in tasks]
    frame = pd.DataFrame(rows, columns=["method", "reference", "task"])
    value = 0.01 * np.arange(len(rows)) - 0.02
    return frame.assign(difference=value, low=value - 0.015, high=value + 0.02)


FIGURES = {
    "accuracy": lambda: accuracy_figure(*accuracies()),
    "differences": lambda: difference_figure(declared(), colours=method_colours(["fspo", "rloo", "gspo"])),
    "reward": lambda: reward_figure(curves(), smooth=2),
    "clip": lambda: clip_figure(*lengths()),
    "acceptance": lambda: acceptance_figure(*lengths()),
    "growth": lambda: growth_figure(growth(), quantiles()),
    "updates": lambda: update_figure(updates()),
    "predicted": lambda: predicted_figure(predicted(), "matched"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_same_numbers_same_bytes(name: str, tmp_path: Path) -> None:
    for file in ("a", "b"):
        save_png(FIGURES[name](), tmp_path / f"{file}.png")
        save_svg(FIGURES[name](), tmp_path / f"{file}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    data = (tmp_path / "a.png").read_bytes()
    assert data == (tmp_path / "b.png").read_bytes()
    assert data.startswith(PNG)
    assert b"Software" not in data
    width = int.from_bytes(data[16:20], "big")
    assert 700 <= width <= 1600


def test_a_method_without_a_matched_range_has_an_empty_panel(tmp_path: Path) -> None:
    table, summary = lengths()
    mine = (table["method"] == "fspo") & (table["range"] == "matched")
    figure = clip_figure(table[~mine], summary, rows=("own", "matched"))
    save_png(figure, tmp_path / "a.png")
    assert [len(axes.lines) for axes in figure.axes] == [3, 3, 0, 3]


def test_colours_follow_the_name() -> None:
    colours = method_colours(["rloo", "fspo", "base", "fspo"])
    assert colours == {"fspo": PALETTE[0], "rloo": PALETTE[6], "base": colours["base"]}
    assert len(set(method_colours(f"m{i:02}" for i in range(len(PALETTE))).values())) == len(PALETTE) + 1


@pytest.mark.parametrize("names", [DRAWN, SEVEN, ("a_loss:OF_MINE", "fspo", "ctpo", "no_clip"), tuple(METHODS)])
def test_a_method_has_one_colour_on_every_page(names: tuple[str, ...]) -> None:
    found, whole = method_colours(names), method_colours(METHODS)
    assert found["fspo"] == PALETTE[0]
    assert all(found[name] == whole[name] for name in SEVEN if name in found)
    looks = {(found[name], str(line_styles(names)[name]), markers(names)[name]) for name in names}
    assert len(looks) == len(names), "two methods look alike"


def test_accuracy_panels_show_interval_estimate_and_every_seed() -> None:
    table, by_seed = accuracies()
    colours = method_colours(["fspo", "gspo"])
    figure = accuracy_figure(table, by_seed, colours=colours)
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in panels] == ["add", "gcd", "mean of sets"]
    order = ["gspo", "fspo", "base"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == order
    for axes, task in zip(panels, ("add", "gcd", "mean"), strict=True):
        bars = [c for c in axes.collections if isinstance(c, LineCollection)]
        assert len(bars) == 3
        for place, (method, bar) in enumerate(zip(order, bars, strict=True)):
            (row,) = table[(table["method"] == method) & (table["task"] == task)].to_dict("records")
            np.testing.assert_allclose(
                bar.get_segments()[0], [[100 * row["low"], place], [100 * row["high"], place]], rtol=1e-12
            )
            assert to_hex(bar.get_color()[0]) == colours[method].lower()
        dots = [line for line in axes.lines if len(line.get_xdata()) == 3]
        assert len(dots) == 2, "the base model has no seeds to show"
        seeds = by_seed[(by_seed["method"] == "gspo") & (by_seed["task"] == task)]["accuracy"]
        np.testing.assert_allclose(dots[0].get_xdata(), 100 * seeds, rtol=1e-12)


def test_difference_panels_have_a_line_a_pair_and_the_mean_of_sets_last() -> None:
    table = declared()
    figure = difference_figure(table, colours=method_colours(["fspo", "rloo", "gspo"]))
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in panels] == ["add", "gcd", "mean of sets"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["fspo − rloo", "fspo − gspo"]
    for axes, task in zip(panels, ("add", "gcd", "mean"), strict=True):
        bars = [c for c in axes.collections if isinstance(c, LineCollection)]
        rows = table[table["task"] == task].to_dict("records")
        assert len(bars) == len(rows) == 2
        for place, (row, bar) in enumerate(zip(rows, bars, strict=True)):
            ends = [[100 * row["low"], place], [100 * row["high"], place]]
            np.testing.assert_allclose(bar.get_segments()[0], ends, rtol=1e-12)


def test_one_set_makes_one_panel() -> None:
    figure = accuracy_figure(*accuracies(("add",)))
    assert len(figure.axes) == 1


def test_reward_curves_are_running_means_of_every_seed() -> None:
    axes = reward_figure(curves(), smooth=2).axes[0]
    thin = [line for line in axes.lines if line.get_linewidth() < 1]
    thick = [line for line in axes.lines if line.get_linewidth() > 2]
    assert (len(thin), len(thick)) == (4, 2)
    np.testing.assert_allclose(thin[1].get_ydata(), [0.01, 0.06, 0.16, 0.26, 0.36, 0.46])
    np.testing.assert_allclose(thick[1].get_ydata(), np.array([0.005, 0.055, 0.155, 0.255, 0.355, 0.455]) + 1)
    assert [text.get_text() for text in axes.texts] == ["grpo", "fspo"]
    assert "last 2 steps" in axes.get_title(loc="left")


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(-5, 5), min_size=1, max_size=7), st.floats(0.1, 2))
def test_labels_keep_their_order_and_their_distance(heights: dict[str, float], gap: float) -> None:
    placed = spread_labels(heights, gap)
    order = sorted(heights, key=lambda name: heights[name])
    assert all(placed[b] - placed[a] >= gap - 1e-9 for a, b in itertools.pairwise(order))
    assert np.mean(list(placed.values())) == pytest.approx(np.mean(list(heights.values())), abs=1e-9)
    far = {name: 10.0 * gap * i for i, name in enumerate(order)}
    assert spread_labels(far, gap) == pytest.approx(far)


def test_clip_panels_show_their_own_method_and_range() -> None:
    by_length, summary = lengths()
    figure = clip_figure(by_length, summary, rows=["matched", "own"])
    assert len(figure.axes) == 4
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["fspo", "rloo", "", ""]
    assert [axes.get_ylabel() for axes in figure.axes] == ["matched range", "", "own range", ""]
    solid, dashed, truncated = figure.axes[1].lines
    np.testing.assert_allclose(solid.get_ydata(), [0.1, 0.2, 0.3])
    np.testing.assert_allclose(solid.get_xdata(), [4, 11, 40])
    np.testing.assert_allclose(dashed.get_ydata(), [0.12, 0.24, 0.36])
    assert (truncated.get_xdata().tolist(), truncated.get_ydata().tolist()) == ([90], [0.4])
    assert figure.axes[1].texts[0].get_text() == "LRE 0.12 (chance 0.04)\nclip rate −2.0 pts / doubling"


@pytest.mark.parametrize("top", [0.0, 0.02, 1.0])
def test_clip_axis_never_labels_more_than_all(top: float) -> None:
    axes = clip_figure(*lengths(top=top)).axes[0]
    ticks = axes.get_yticks()
    assert ticks[0] == 0
    assert 0 < ticks[-1] <= 1
    assert axes.get_ylim()[1] >= 1.1 * top


def test_acceptance_legend_carries_the_lre() -> None:
    figure = acceptance_figure(*lengths())
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["own range", "matched range"]
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["fspo  0.12", "rloo  0.12"]


def test_one_range_and_one_method_still_draw(tmp_path: Path) -> None:
    by_length, summary = lengths(("own",))
    for maker in (clip_figure, acceptance_figure):
        save_png(maker(by_length[by_length["method"] == "fspo"], summary), tmp_path / "a.png")


@pytest.mark.parametrize(
    ("lengths", "ticks"),
    [
        ([20.0, 130.0], [32, 64, 128]),
        ([17.0, 23.0], [17, 23]),
        ([16.0, 16.0], [16]),
        ([1.0, 4096.0], [1, 8, 64, 512, 4096]),
    ],
)
def test_lengths_have_ticks_at_powers_of_two_or_at_their_ends(lengths: list[float], ticks: list[int]) -> None:
    axes = Figure().subplots()
    length_axis(axes, lengths)
    assert list(axes.xaxis.get_major_locator().locs) == ticks


def test_no_lengths_are_no_fault() -> None:
    length_axis(Figure().subplots(), [])
