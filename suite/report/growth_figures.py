"""Figures about the log ratio S itself: how it grows with length and updates, and what its normal tail predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from suite.report.style import (
    DASHES,
    INK,
    NARROW,
    SOFT,
    WIDTH,
    Colours,
    below,
    length_axis,
    method_colours,
    says,
    style,
)
from suite.statistics.frames import names_of, numbers_of, select

SIGN_LINES = {"all": "-", "A > 0": DASHES[1], "A < 0": DASHES[2]}
SIGN_COLOURS = {"all": INK, "A > 0": "#009E73", "A < 0": "#D55E00"}
SHADES = ("#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#084594")
"""Short to long, light to dark: an order that grey print keeps."""


def growth_figure(by_length: pd.DataFrame, quantiles: pd.DataFrame, *, width: float = WIDTH) -> Figure:
    """How S grows with length: its mean, its spread per square root of a token, its quantiles against the normal.

    Frames as `suite.replay.growth.growth_by_length` and `quantile_table` return them. A flat second panel and straight
    lines in the others are what the theory says; the last panel shows the length bins, light to dark.
    """
    with style():
        shape = (1, 4) if width > NARROW else (2, 2)
        figure = Figure(figsize=(width, 2.9 * shape[0]), layout="constrained")
        grid = figure.subplots(*shape, squeeze=False).ravel()
        for axes, column, title in ((grid[0], "mean_s", "mean of S in nats"), (grid[1], "spread", "std of S / √L")):
            for sign in names_of(by_length, "sign"):
                part = select(by_length, sign=sign)
                x, y = numbers_of(part, "mean_length"), numbers_of(part, column)
                look: dict[str, Any] = {"color": SIGN_COLOURS[sign], "linestyle": SIGN_LINES[sign], "label": sign}
                axes.plot(x, y, marker="o", linewidth=1.8, markersize=3.6, **look)
                for length, value in zip(x[~np.isnan(y)], y[~np.isnan(y)], strict=True):
                    says(axes, length, value, f"{sign}, {length:.0f} tokens: {title} {value:.3g}")
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("length in tokens (log scale)")
            length_axis(axes, numbers_of(by_length, "mean_length"))
        grid[0].legend(title="advantage", fontsize=7, title_fontsize=7)
        spread = numbers_of(by_length, "spread")
        grid[1].set_ylim(0, 1.2 * float(np.nan_to_num(spread).max(initial=0.0)) or 1.0)
        _quantile_panel(grid[2], select(quantiles, bin="all"), "sign", SIGN_COLOURS)
        grid[2].set_title("quantiles by sign of A", fontsize=9)
        bins = [label for label in names_of(quantiles, "bin") if label != "all"]
        shades = dict(zip(bins, SHADES[-len(bins) :], strict=False)) if bins else {}
        _quantile_panel(grid[3], select(quantiles, sign="all"), "bin", shades)
        grid[3].set_title("quantiles by length", fontsize=9)
        if bins:
            grid[3].legend(title="tokens", fontsize=6.5, title_fontsize=7, loc="lower right", handlelength=1.2)
    return figure


def _quantile_panel(axes: Axes, quantiles: pd.DataFrame, column: str, colours: Colours) -> None:
    """QQ lines on axes of equal scale; the dashed diagonal is the normal."""
    for name, colour in colours.items():
        part = select(quantiles, **{column: name})
        if len(part):
            line: Any = SIGN_LINES.get(name, "-")
            axes.plot(part["normal"], part["measured"], linestyle=line, color=colour, linewidth=1.6, label=name)
    axes.plot([-2.6, 2.6], [-2.6, 2.6], color=SOFT, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    axes.set_xlabel("normal quantile")


def update_figure(by_update: pd.DataFrame) -> Figure:
    """Drift and sigma at every optimizer step of a rollout, each with its 95 % interval.

    `by_update` as `suite.replay.growth.growth_by_update` returns it: how far later updates are from the policy that
    sampled.
    """
    panels = (("drift", "drift of S in nats per token"), ("sigma", "sigma in nats per √token"))
    with style():
        figure = Figure(figsize=(8.6, 2.6), layout="constrained")
        for axes, (column, title) in zip(figure.subplots(1, 2), panels, strict=True):
            x = numbers_of(by_update, "update")
            low, high = (numbers_of(by_update, f"{column}_{end}") for end in ("low", "high"))
            axes.fill_between(x, low, high, color=SIGN_COLOURS["A > 0"], alpha=0.2, linewidth=0)
            axes.plot(x, by_update[column], "-o", color=SIGN_COLOURS["A > 0"], linewidth=2, markersize=3.6)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.set_title(title, fontsize=9)
            axes.set_xlabel("update of the rollout (0: ratio 1)")
    return figure


def predicted_figure(predicted: pd.DataFrame, span: str, *, colours: Colours | None = None) -> Figure:
    """Outside-band share by length, measured (solid, 95 % interval) and predicted from the normal tail (dotted).

    `predicted` as `suite.replay.replays.Arena.predicted` returns it; one panel per method at one kind of range.
    """
    rows = select(predicted, range=span, truncated=False)
    methods: Sequence[str] = names_of(rows, "method")
    colours = colours or method_colours(methods)
    with style():
        figure = Figure(figsize=(max(2.1 * len(methods) + 0.4, 5.0), 2.8), layout="constrained")
        grid = figure.subplots(1, max(len(methods), 1), squeeze=False, sharex=True, sharey=True)[0]
        for axes, method in zip(grid, methods, strict=False):
            part = select(rows, method=method)
            x = part["mean_length"]
            axes.fill_between(
                x, part["outside_band_low"], part["outside_band_high"], color=colours[method], alpha=0.2, linewidth=0
            )
            axes.plot(x, part["outside_band"], "-o", color=colours[method], linewidth=2, markersize=3.6)
            axes.plot(x, part["predicted"], color=INK, linewidth=1.4, linestyle=(0, (1, 1.5)))
            axes.set_title(method, color=colours[method], fontsize=11)
        grid[0].yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:.0f} %"))
        grid[0].set_ylim(bottom=0)
        if len(rows):
            length_axis(grid[0], numbers_of(rows, "mean_length"))
        marks = "Solid: measured, with 95 % interval. Dotted: normal tail."
        below(figure, f"response length in tokens (log scale), {span} ranges. {marks}")
    return figure
