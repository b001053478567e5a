"""Figures of training: how runs go step by step, and how their ends depend on the learning rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from suite.findings.stability import CURVES
from suite.report.style import SOFT, Colours, below, leave_out, line_styles, style
from suite.statistics.frames import names_of, numbers_of, select


def training_figure(curves: pd.DataFrame, *, colours: Colours, columns: int = 3) -> Figure:
    """One panel a logged number: every method's mean over seeds by step. `curves`: method, seed, step, numbers."""
    shown = [name for name in CURVES if name in curves]
    methods = names_of(curves, "method")
    lines = line_styles(methods)
    rows = -(-len(shown) // columns)
    with style():
        figure = Figure(figsize=(8.6, 0.5 + 2.1 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True)
        for axes, name in zip(grid.flat, shown, strict=False):
            for method in methods:
                by_seed = select(curves, method=method).pivot(index="step", columns="seed", values=name).astype(float)
                mean = by_seed.mean(axis=1).dropna()  # a probe is logged every few steps
                axes.plot(
                    mean.index,
                    mean,
                    color=colours[method],
                    linestyle=lines[method],
                    linewidth=1.6,
                    label=method,
                )
            axes.set_title(CURVES[name], fontsize=9, fontweight="normal", color=SOFT)
            axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        leave_out(grid, *divmod(len(shown), columns))
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=7, fontsize=8)
    return figure


def sweep_figure(gain: pd.DataFrame, runs: pd.DataFrame, *, colours: Colours, columns: int = 4) -> Figure:
    """One panel a method: points gained on the base model by learning rate with 95 % intervals, and collapsed runs.

    Frames as `stability.gains` and `stability.stability` return them. The share of collapsed runs stands under a point.
    """
    methods, rates = names_of(gain, "method"), sorted(set(numbers_of(gain, "learning_rate")))
    columns = min(columns, len(methods))
    rows = -(-len(methods) // columns)
    with style():
        figure = Figure(figsize=(8.6, 0.6 + 1.9 * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes, method in zip(grid.flat, methods, strict=False):
            part = select(gain, method=method).sort_values("learning_rate")
            x, y, low, high = (numbers_of(part, name) for name in ("learning_rate", "difference", "low", "high"))
            axes.axhline(0, color=SOFT, linewidth=1, linestyle=(0, (3, 3)))
            axes.vlines(x, 100 * low, 100 * high, color=colours[method], linewidth=2)
            axes.plot(x, 100 * y, "-o", color=colours[method], linewidth=1.6, markersize=4.5)
            for rate, height in zip(x, 100 * low, strict=True):
                share = numbers_of(select(runs, method=method, learning_rate=rate), "collapsed").mean()
                if share > 0:
                    axes.annotate(
                        f"{100 * share:.0f} % collapsed",
                        (rate, height),
                        (0, -9),
                        fontsize=7,
                        textcoords="offset points",
                        ha="center",
                    )
            axes.set_title(method, color=colours[method])
        leave_out(grid, *divmod(len(methods), columns))
        _rate_axis(grid, rates)
        below(figure, "learning rate (dashes: base model; line: 95 % interval)")
        figure.supylabel("points above the base model", fontsize=9, color=SOFT)
    return figure


def _rate_axis(grid: np.ndarray, rates: Sequence[float]) -> None:
    axes = grid[0, 0]
    axes.set_xscale("log")
    axes.set_xlim(min(rates) / 1.8, max(rates) * 1.8)
    axes.xaxis.set_major_locator(FixedLocator(list(rates)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
