"""The figures this project is about: who is clipped by response length, and how the log ratio grows with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from suite.figure_style import INK, SOFT, Colours, method_colours, names_of, numbers_of, select, style


def clip_figure(
    by_length: pd.DataFrame, summary: pd.DataFrame, *, colours: Colours | None = None, rows: Sequence[str] | None = None
) -> Figure:
    """Who is clipped, by response length: one column per method, one row per range.

    Solid: share outside the band, with its 95 % interval. Dashed: clipped share (the side that the min makes active).
    The open mark at the right is the truncated responses' own bin. Frames as `fspo.fairness.clip_by_length` and
    `fairness_summary` return them; LRE stands in every panel with the level that chance alone would reach.
    """
    methods, ranges = names_of(by_length, "method"), list(rows or names_of(by_length, "range"))
    colours = colours or method_colours(methods)
    with style():
        figure = Figure(figsize=(max(1.72 * len(methods) + 0.4, 5.0), 2.05 * len(ranges) + 0.75), layout="constrained")
        grid = figure.subplots(len(ranges), len(methods), squeeze=False, sharex=True, sharey="row")
        for i, span in enumerate(ranges):
            for axes, method in zip(grid[i], methods, strict=True):
                part = select(by_length, method=method, range=span)
                numbers = select(summary, method=method, range=span)
                _clip_panel(axes, part, colours[method])
                if not numbers.empty:
                    _write_numbers(axes, {str(k): v for k, v in numbers.iloc[0].items()})
                if i == 0:
                    axes.set_title(method, color=colours[method], fontsize=11)
            grid[i, 0].set_ylabel(f"{span} range", color=INK, fontweight="bold")
            _share_axis(grid[i, 0], select(by_length, range=span))
        _length_axis(grid[0, 0], _length_ticks(numbers_of(by_length, "mean_length")))
        figure.supxlabel(
            "response length in tokens (log scale).   Solid: share outside the band, with 95 % interval.   "
            "Dashed: clipped.   Open marks: truncated.",
            fontsize=8.5, color=SOFT,
        )  # fmt: skip
    return figure


def _share_axis(axes: Axes, part: pd.DataFrame) -> None:
    """A row's common axis from 0 to its largest share, in per cent, with head-room for the numbers."""
    tops = np.concatenate([numbers_of(part, "outside_band_high"), numbers_of(part, "outside_band")])
    highest = max(0.05, float(np.nanmax(tops)))
    axes.set_ylim(0, 1.35 * highest)
    ticks = MaxNLocator(4, steps=[1, 2, 5, 10]).tick_values(0, highest)
    axes.yaxis.set_major_locator(FixedLocator([tick for tick in ticks if tick <= min(1.0, 1.1 * highest)]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f} %"))


def _clip_panel(axes: Axes, part: pd.DataFrame, colour: str) -> None:
    line, cut = select(part, truncated=False), select(part, truncated=True)
    x = line["mean_length"]
    axes.fill_between(x, line["outside_band_low"], line["outside_band_high"], color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, line["outside_band"], "-o", color=colour, linewidth=2, markersize=3.6, clip_on=False)
    axes.plot(x, line["clipped"], color=colour, linewidth=1.3, linestyle=(0, (3, 2)), clip_on=False)
    if len(cut):
        axes.plot(cut["mean_length"], cut["outside_band"], "s", color=colour, markersize=4.5, markerfacecolor="white",
                  clip_on=False, zorder=4)  # fmt: skip


def _write_numbers(axes: Axes, row: Mapping[str, Any]) -> None:
    """LRE, its noise level and the slope, small, in the head-room of a panel."""
    slope = f"{100 * row['outside_slope']:+.1f} pts / doubling".replace("-", "−")
    text = f"LRE {row['lre_max']:.2f} (chance {row['lre_noise']:.2f})\n{slope}"
    label = axes.text(0.04, 0.97, text, transform=axes.transAxes, va="top", fontsize=7, color=INK, linespacing=1.35)
    label.set_in_layout(False)


def acceptance_figure(
    by_length: pd.DataFrame, summary: pd.DataFrame, *, colours: Colours | None = None, rows: Sequence[str] | None = None
) -> Figure:
    """Acceptance by length relative to its mean, a(l) / abar: one panel per range, all methods, LRE in the legend.

    A method that treats all lengths alike lies on 1; the largest distance from 1 is its LRE.
    """
    methods, ranges = names_of(by_length, "method"), list(rows or names_of(by_length, "range"))
    colours = colours or method_colours(methods)
    lines = select(by_length, truncated=False)
    with style():
        figure = Figure(figsize=(8.6, 3.9), layout="constrained")
        grid = figure.subplots(1, len(ranges), squeeze=False, sharex=True, sharey=True)[0]
        for axes, span in zip(grid, ranges, strict=True):
            axes.axhline(1, color=SOFT, linewidth=1)
            for method in methods:
                part = select(lines, method=method, range=span)
                found = select(summary, method=method, range=span)
                if part.empty or found.empty:
                    continue
                x, low, high = (
                    part[key] for key in ("mean_length", "relative_acceptance_low", "relative_acceptance_high")
                )
                lre = numbers_of(found, "lre_max")[0]
                axes.fill_between(x, low, high, color=colours[method], alpha=0.13, linewidth=0)
                axes.plot(
                    x, part["relative_acceptance"], "-o", color=colours[method], linewidth=2, markersize=3.6,
                    label=f"{method}  {lre:.2f}",
                )  # fmt: skip
            axes.set_title(f"{span} range")
            axes.set_xlabel("response length in tokens (log scale)")
            axes.legend(
                title="LRE", ncols=3, fontsize=8, title_fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18)
            )
        _length_axis(grid[0], _length_ticks(numbers_of(lines, "mean_length")))
        grid[0].set_ylabel("acceptance / mean acceptance")
    return figure


def growth_figure(by_length: pd.DataFrame, quantiles: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> Figure:
    """How S grows with length: its mean, its spread per square root of a token, and its quantiles against the normal.

    `by_length` as `fspo.growth.growth_by_length` returns it, `quantiles` as `quantiles_by_sign` does. A flat middle
    panel and a straight right one are what the theory says.
    """
    colours = {"all": INK, "A > 0": "#009E73", "A < 0": "#D55E00"}
    panels = (("mean_s", "mean of S in nats"), ("spread", "std of S / √L"))
    with style():
        figure = Figure(figsize=(8.6, 3.0), layout="constrained")
        grid = figure.subplots(1, 3)
        for axes, (column, title) in zip(grid, panels, strict=False):
            for sign in names_of(by_length, "sign"):
                part = select(by_length, sign=sign)
                x, y = numbers_of(part, "mean_length"), numbers_of(part, column)
                axes.plot(x, y, "-o", color=colours[sign], linewidth=1.8, markersize=3.6, label=sign)
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("response length in tokens (log scale)")
            _length_axis(axes, _length_ticks(numbers_of(by_length, "mean_length")))
        grid[0].legend(title="advantage", fontsize=8, title_fontsize=8)
        grid[1].set_ylim(0, 1.2 * float(np.nanmax(numbers_of(by_length, "spread"))))
        for sign, (normal, measured) in quantiles.items():
            grid[2].plot(normal, measured, "-", color=colours[sign], linewidth=1.8)
        grid[2].plot([-2.6, 2.6], [-2.6, 2.6], color=SOFT, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
        grid[2].set_title("(S − Lμ) / σ√L against the normal", fontsize=9)
        grid[2].set_xlabel("normal quantile")
    return figure


def _length_ticks(lengths: Iterable[float]) -> list[float]:
    """Powers of two within the lengths: every one, or every second or third where they would crowd."""
    values = np.asarray(list(lengths), float)
    first, last = int(np.ceil(np.log2(values.min()))), int(np.floor(np.log2(values.max())))
    step = 1 + (last - first) // 5
    return [float(2**e) for e in range(first, last + 1, step)]


def _length_axis(axes: Axes, ticks: Sequence[float]) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
