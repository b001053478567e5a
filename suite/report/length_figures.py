"""The figures this project is about: who is clipped by response length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from suite.report.style import (
    INK,
    NARROW,
    SOFT,
    WIDTH,
    Colours,
    below,
    leave_out,
    length_axis,
    line_styles,
    markers,
    method_colours,
    says,
    style,
)
from suite.statistics.frames import Number, names_of, numbers_of, percent, records, select

WIDEST = 7
"""Most methods of a clip figure that stand side by side."""


def clip_figure(
    by_length: pd.DataFrame,
    summary: pd.DataFrame,
    *,
    colours: Colours | None = None,
    rows: Sequence[str] | None = None,
    columns: int = WIDEST,
) -> Figure:
    """Who is clipped, by response length: one column per method, one row per range; from `columns` methods on, the
    next ones stand below.

    Solid: clip rate (the side of the band that the min makes active, among responses with a gradient), with its 95 %
    interval. Dashed: share outside the band, either side.
    The open mark at the right is the truncated responses' own bin. Frames as `suite.replay.fairness.clip_by_length` and
    `fairness_summary` return them; LRE stands in every panel with the level that chance alone would reach.
    """
    methods, ranges = names_of(by_length, "method"), list(rows or names_of(by_length, "range"))
    colours = colours or method_colours(methods)
    least = 5.0 if columns > 2 else NARROW
    columns = min(columns, len(methods))
    places = [(i // columns, i % columns) for i in range(len(methods))]
    lines = len(ranges) * (1 + places[-1][0])
    with style():
        figure = Figure(figsize=(max(1.72 * columns + 0.4, least), 2.05 * lines + 0.75), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey="row")
        leave_out(grid, lines - len(ranges), len(methods) % columns)
        for (block, column), method in zip(places, methods, strict=True):
            for i, span in enumerate(ranges):
                axes = grid[block * len(ranges) + i, column]
                part = select(by_length, method=method, range=span)
                numbers = select(summary, method=method, range=span)
                if not part.empty:
                    _clip_panel(axes, part, colours[method])
                    _say_shares(axes, part)
                if not numbers.empty:
                    _write_numbers(axes, {str(k): v for k, v in numbers.iloc[0].items()})
                if i == 0:
                    axes.set_title(method, color=colours[method], fontsize=11)
                if column == 0:
                    axes.set_ylabel(f"{span} range", color=INK, fontweight="bold")
                    _share_axis(axes, select(by_length, range=span))
        length_axis(grid[0, 0], numbers_of(by_length, "mean_length"))
        below(
            figure,
            "response length in tokens (log scale). Solid: clip rate, with 95 % interval. Dashed: share outside the "
            "band. Open marks: clip rate of truncated responses.",
        )
    return figure


def _say_shares(axes: Axes, part: pd.DataFrame) -> None:
    for row in records(part):
        shares = (row[f"clipped{end}"] for end in ("", "_low", "_high"))
        cut = ", truncated" if row["truncated"] else ""
        text = (
            f"{row['method']}, {row['range']} range, {row['mean_length']:.0f} tokens{cut}: {percent(*shares)} % clipped"
        )
        says(axes, row["mean_length"], row["clipped"], f"{text}, {percent(row['outside_band'])} % outside the band")


def _share_axis(axes: Axes, part: pd.DataFrame) -> None:
    """A row's common axis from 0 to its largest share, in per cent, with head-room for the numbers."""
    shown = ("clipped_high", "clipped", "outside_band")
    tops = np.concatenate([numbers_of(part, name) for name in shown])
    highest = max(0.05, float(np.nanmax(tops)))
    axes.set_ylim(0, 1.35 * highest)
    ticks = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(0, highest)
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if tick <= min(1.0, 1.1 * highest)]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f} %"))


def _clip_panel(axes: Axes, part: pd.DataFrame, colour: str) -> None:
    line, cut = select(part, truncated=False), select(part, truncated=True)
    x = line["mean_length"]
    axes.fill_between(x, line["clipped_low"], line["clipped_high"], color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, line["clipped"], "-o", color=colour, linewidth=2, markersize=3.6, clip_on=False)
    axes.plot(x, line["outside_band"], color=colour, linewidth=1.3, linestyle=(0, (3, 2)), clip_on=False)
    if len(cut):
        axes.plot(
            cut["mean_length"],
            cut["clipped"],
            "s",
            color=colour,
            markersize=4.5,
            markerfacecolor="white",
            clip_on=False,
            zorder=4,
        )


def _write_numbers(axes: Axes, row: Mapping[str, Any]) -> None:
    """LRE, its noise level and the slope, small, in the head-room of a panel."""
    slope = f"clip rate {Number.of(100 * row['clipped_slope'], '+.1f')} pts / doubling".replace("-", "−")
    largest, chance = (Number.of(row[name], ".2f") for name in ("lre_max", "lre_noise"))
    text = f"LRE {largest} (chance {chance})\n{slope}"
    label = axes.text(0.04, 0.97, text, transform=axes.transAxes, va="top", fontsize=7, color=INK, linespacing=1.35)
    label.set_in_layout(False)


def acceptance_figure(
    by_length: pd.DataFrame,
    summary: pd.DataFrame,
    *,
    colours: Colours | None = None,
    rows: Sequence[str] | None = None,
    width: float = WIDTH,
) -> Figure:
    """Acceptance by length relative to its mean, a(l) / abar: one panel per range, all methods, LRE in the legend.

    A method that treats all lengths alike lies on 1; the largest distance from 1 is its LRE.
    """
    methods, ranges = names_of(by_length, "method"), list(rows or names_of(by_length, "range"))
    colours = colours or method_colours(methods)
    lines, marks, dashes = select(by_length, truncated=False), markers(methods), line_styles(methods)
    with style():
        shape = (1, len(ranges)) if width > NARROW else (len(ranges), 1)
        figure = Figure(figsize=(width, 3.9 * shape[0]), layout="constrained")
        grid = figure.subplots(*shape, squeeze=False, sharex=True, sharey=True).ravel()
        for axes, span in zip(grid, ranges, strict=True):
            axes.axhline(1, color=SOFT, linewidth=1)
            for method in methods:
                part = select(lines, method=method, range=span).dropna(subset="relative_acceptance")
                found = select(summary, method=method, range=span)
                if part.empty or found.empty:
                    continue
                x, low, high = (
                    part[key] for key in ("mean_length", "relative_acceptance_low", "relative_acceptance_high")
                )
                lre = numbers_of(found, "lre_max")[0]
                axes.fill_between(x, low, high, color=colours[method], alpha=0.13, linewidth=0)
                axes.plot(
                    x,
                    part["relative_acceptance"],
                    linestyle=dashes[method],
                    marker=marks[method],
                    color=colours[method],
                    linewidth=2,
                    markersize=4.5,
                    label=f"{method}  {lre:.2f}",
                )
                for row in records(part):
                    shares = (Number.of(row[f"relative_acceptance{end}"], ".2f") for end in ("", "_low", "_high"))
                    value = "{} [{}, {}]".format(*shares)
                    text = f"{method}, {span} range, {row['mean_length']:.0f} tokens: {value} times the mean acceptance"
                    says(axes, row["mean_length"], row["relative_acceptance"], text)
            axes.set_title(f"{span} range")
            axes.set_xlabel("response length in tokens (log scale)")
            if not axes.lines[1:]:
                axes.text(0.5, 0.5, "no response is accepted", transform=axes.transAxes, ha="center", va="bottom")
            if axes.get_legend_handles_labels()[0]:
                place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.18)}
                axes.legend(title="LRE", ncols=3 if width > NARROW else 2, fontsize=8, title_fontsize=8, **place)
        length_axis(grid[0], numbers_of(lines, "mean_length"))
        grid[0].set_ylabel("acceptance / mean acceptance")
    return figure
