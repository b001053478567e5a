"""The figure of performance profiles: how many (seed, set) scores lie above each accuracy."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from suite.figure_style import Colours, line_styles, method_colours, names_of, numbers_of, select, style
from suite.statistics import BASE


def profile_figure(frame: pd.DataFrame, *, colours: Colours | None = None) -> Figure:
    """Share of (seed, set) scores above an accuracy, by accuracy: a line and a 95 % band per model, base dashed.

    `frame` as `suite.profiles.profiles` returns it. A curve that lies above another everywhere is the better model.
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
        axes.set_xlim(max(0.0, float(shown.min()) - 2), min(100.0, float(shown.max()) + 2))
        axes.set_ylim(0, 102)
        axes.legend(loc="lower left", fontsize=8)
    return figure
