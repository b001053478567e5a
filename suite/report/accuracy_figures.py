"""Figures of accuracy: intervals by set, reward by step, performance profiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from suite.records.result import BASE
from suite.report.style import (
    GRID,
    INK,
    SOFT,
    WIDTH,
    Colours,
    below,
    leave_out,
    line_styles,
    method_colours,
    saying,
    says,
    style,
    wrapped,
)
from suite.statistics.frames import heading, names_of, numbers_of, percent, records, select
from suite.statistics.verdicts import MARGIN

# --- accuracies -----------------------------------------------------------------------------------


def accuracy_figure(
    accuracies: pd.DataFrame,
    by_seed: pd.DataFrame,
    *,
    colours: Colours | None = None,
    columns: int = 3,
    width: float = WIDTH,
) -> Figure:
    """One panel per set: the accuracy of every method with its 95 % interval, every seed a dot, the base a dashed line.

    Frames as `compare.compare` returns them. Methods stand in the order of their rows, the base model last. `width` is
    in inches, here and below.
    """
    methods = sorted(names_of(accuracies, "method"), key=lambda name: name == BASE)
    colours = colours or method_colours(methods)
    tasks = names_of(accuracies, "task")
    columns = min(columns, len(tasks))
    lines = -(-len(tasks) // columns)
    with style():
        figure = Figure(figsize=(width, 0.55 + lines * (0.75 + 0.27 * len(methods))), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False, sharey=True)
        for axes, task in zip(grid.flat, tasks, strict=False):
            _accuracy_panel(axes, accuracies, by_seed, task, methods, colours)
        leave_out(grid, *divmod(len(tasks), columns))
        grid[0, 0].set_ylim(len(methods) - 0.5, -0.5)
        grid[0, 0].set_yticks(range(len(methods)), methods)
        for axes in grid[:, 0]:
            axes.tick_params(axis="y", labelcolor=INK)
        below(figure, "accuracy in % (line: 95 % interval, dot: one seed, dashes: base model)")
    return figure


def _accuracy_panel(
    axes: Axes, accuracies: pd.DataFrame, by_seed: pd.DataFrame, task: str, methods: Sequence[str], colours: Colours
) -> None:
    axes.set_title(heading(task))
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    for place, method in enumerate(methods):
        rows = select(accuracies, method=method, task=task)
        if rows.empty:
            continue
        value, low, high = (100 * numbers_of(rows, name)[0] for name in ("accuracy", "low", "high"))
        colour = colours[method]
        axes.hlines(place, low, high, color=colour, linewidth=2.2, alpha=0.9, capstyle="round")
        axes.plot(value, place, "o", color=colour, markersize=6.5, markeredgecolor="white", markeredgewidth=1, zorder=4)
        share = percent(value / 100, low / 100, high / 100)
        says(axes, value, place, f"{method}, {heading(task)}: {share} %")
        if method == BASE:
            axes.axvline(value, color=colours[BASE], linewidth=1, linestyle=(0, (3, 3)), zorder=1)
            continue
        runs = records(select(by_seed, method=method, task=task))
        dots = [100 * run["accuracy"] for run in runs]
        axes.plot(dots, np.full(len(dots), place + 0.27), "o", color=colour, markersize=3, alpha=0.75, linestyle="none")
        for run, dot in zip(runs, dots, strict=True):
            says(axes, dot, place + 0.27, f"{method}, seed {run['seed']}, {heading(task)}: {percent(dot / 100)} %")


def difference_figure(
    differences: pd.DataFrame, *, colours: Colours, columns: int = 5, margin: float = MARGIN, width: float = WIDTH
) -> Figure:
    """One panel per set, their mean last: every difference in points with its 95 % interval, the equal region in grey.

    Rows of differences as `compare.compare` returns them; a panel has a line a pair, in the order of the rows.
    """
    tasks = names_of(differences, "task")
    pairs = list(dict.fromkeys(zip(differences["method"], differences["reference"], strict=True)))
    columns = min(columns, len(tasks))
    lines = -(-len(tasks) // columns)
    with style():
        figure = Figure(figsize=(width, 0.6 + lines * (0.65 + 0.27 * len(pairs))), layout="constrained")
        grid = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
        for axes, task in zip(grid.flat, tasks, strict=False):
            axes.set_title(heading(task))
            axes.grid(visible=False, axis="y")
            axes.axvspan(-100 * margin, 100 * margin, color=GRID, alpha=0.7, linewidth=0)
            axes.axvline(0, color=SOFT, linewidth=1)
            for place, (method, reference) in enumerate(pairs):
                rows = select(differences, method=method, reference=reference, task=task)
                value, low, high = (100 * numbers_of(rows, name)[0] for name in ("difference", "low", "high"))
                axes.hlines(place, low, high, color=colours[reference], linewidth=2.2)
                axes.plot(value, place, "o", color=colours[reference], markersize=6, markeredgecolor="white")
                points = percent(value / 100, low / 100, high / 100, sign=True)
                says(axes, value, place, f"{method} − {reference}, {heading(task)}: {points} points")
        leave_out(grid, *divmod(len(tasks), columns))
        grid[0, 0].set_ylim(len(pairs) - 0.5, -0.5)
        grid[0, 0].set_yticks(range(len(pairs)), [f"{method} − {reference}" for method, reference in pairs])
        below(figure, f"points (line: 95 % interval, uncorrected; grey: within {100 * margin:g} point)")
    return figure


# --- curves ---------------------------------------------------------------------------------------


def reward_figure(
    curves: pd.DataFrame, *, colours: Colours | None = None, smooth: int = 1, width: float = WIDTH
) -> Figure:
    """Mean reward by training step: thick the mean over seeds, thin every seed, names at the line ends.

    `curves` has method, seed, step, reward. `smooth` averages over that many steps up to each one (said on the axis).
    """
    methods = names_of(curves, "method")
    colours = colours or method_colours(methods)
    with style():
        figure = Figure(figsize=(width, 4.0), layout="constrained")
        axes = figure.subplots()
        ends: dict[str, float] = {}
        dashes = line_styles(methods)
        for method in methods:
            table = select(curves, method=method).pivot(index="step", columns="seed", values="reward").astype(float)
            seeds = np.asarray(table.rolling(smooth, min_periods=1).mean(), float)
            mean = seeds.mean(axis=1)
            thin = axes.plot(table.index, seeds, color=colours[method], linewidth=0.7, alpha=0.35)
            for line, seed in zip(thin, table.columns, strict=True):
                line.set_gid(saying(f"{method}, seed {seed}"))
            axes.plot(table.index, mean, color=colours[method], linewidth=2.4, linestyle=dashes[method])
            for step, reward in zip(table.index, mean, strict=True):
                says(axes, step, reward, f"{method}, step {step}: mean reward {reward:.3f}")
            ends[method] = float(mean[-1])
        last = float(numbers_of(curves, "step").max())
        low, high = axes.get_ylim()
        for method, height in spread_labels(ends, 0.052 * (high - low)).items():
            axes.annotate(
                method,
                (last, height),
                (8, 0),
                textcoords="offset points",
                va="center",
                color=colours[method],
                fontweight="bold",
                annotation_clip=False,
            )
        axes.margins(x=0.01)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("step (one rollout each)")
        note = f", mean of the last {smooth} steps" if smooth > 1 else ""
        title = wrapped(f"mean reward (thick: mean over seeds; thin: one seed{note})", width)
        axes.set_title(title, fontweight="normal", color=SOFT)
    return figure


def spread_labels(heights: Mapping[str, float], gap: float) -> dict[str, float]:
    """Heights moved apart as little as needed to be at least `gap` from one another, in the same order.

    >>> spread_labels({"a": 1.0, "b": 1.0, "c": 5.0}, 1.0)
    {'a': 0.5, 'b': 1.5, 'c': 5.0}
    """
    names = sorted(heights, key=lambda name: heights[name])
    groups: list[list[str]] = []
    for name in names:
        groups.append([name])
        while len(groups) > 1 and _span(groups[-1], heights, gap)[0] - _span(groups[-2], heights, gap)[1] < gap:
            groups[-2:] = [groups[-2] + groups[-1]]
    return {name: _span(g, heights, gap)[0] + gap * i for g in groups for i, name in enumerate(g)}


def _span(group: Sequence[str], heights: Mapping[str, float], gap: float) -> tuple[float, float]:
    """Lowest and highest label of a group centred on its mean height."""
    centre, half = float(np.mean([heights[name] for name in group])), gap * (len(group) - 1) / 2
    return centre - half, centre + half


def profile_figure(frame: pd.DataFrame, *, colours: Colours | None = None) -> Figure:
    """Share of (seed, set) scores above an accuracy, by accuracy: a line and a 95 % band per model, base dashed.

    `frame` as `suite.statistics.performance_profiles.profiles` returns it. A curve that lies above another everywhere
    is the better model.
    """
    methods = names_of(frame, "method")
    lines = line_styles(methods) | {BASE: (0, (3, 3))}
    colours = colours or method_colours(methods)
    with style():
        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title("Scores above an accuracy, over seeds and sets")
        axes.set_xlabel("accuracy, per cent")
        axes.set_ylabel("share of scores above, per cent")
        for method in methods:
            rows = select(frame, method=method)
            tau, share, low, high = (100 * numbers_of(rows, name) for name in ("tau", "share", "low", "high"))
            axes.fill_between(tau, low, high, step="post", color=colours[method], alpha=0.12, linewidth=0)
            axes.step(
                tau, share, where="post", color=colours[method], linestyle=lines[method], linewidth=1.8, label=method
            )
        varies = (numbers_of(frame, "high") > 0) & (numbers_of(frame, "low") < 1)
        shown = 100 * numbers_of(frame, "tau")[varies]
        if len(shown):
            axes.set_xlim(max(0.0, float(shown.min()) - 2), min(100.0, float(shown.max()) + 2))
        axes.set_ylim(0, 102)
        axes.legend(loc="lower left", fontsize=8)
    return figure
