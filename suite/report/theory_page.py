"""The theory in a figure and a table: measured shares outside the band on the normal tail."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from suite.findings.theory import (
    CENTRED,
    DRIFTING,
    ERRORS,
    LENGTHS,
    SHOWN_ERRORS,
    SIGMAS,
    STILL,
    BandRule,
    drift_of,
    measured_shares,
)
from suite.replay.simulation import Simulation, expected_share
from suite.report.markdown import write_csv
from suite.report.style import SOFT, length_axis, method_colours, save_figure, style
from suite.statistics.frames import names_of, numbers_of, select

MARKS = {"rloo": "^", "gspo": "s", "fspo": "o", CENTRED: "D"}
MARK: dict[str, Any] = {"markersize": 2.8, "markeredgewidth": 0.8}


def table(points: pd.DataFrame) -> pd.DataFrame:
    """Measured share, three standard errors and the normal tail in per cent; one row per bank and rule, for people."""
    rows = []
    for _, part in points.groupby(["sigma", "drift", "rule"], sort=False):
        first = part.iloc[0]
        row = {"sigma": f"{first['sigma']:g}", "drift": f"{first['drift']:.3g}", "rule": first["rule"]}
        for point in part.to_dict("records"):
            measured, errors, expected = (100 * point[key] for key in ("measured", "standard_error", "expected"))
            row[f"L = {point['length']}"] = f"{measured:.1f} ± {ERRORS * errors:.1f} ({expected:.1f})"
        rows.append(row | {"largest |z|": f"{np.abs(numbers_of(part, 'z')).max():.2f}"})
    return pd.DataFrame(rows)


# --- the figure -----------------------------------------------------------------------------------


def theory_figure(points: pd.DataFrame) -> Figure:
    """Share outside the band by length: one panel per sigma without drift, and one for FSPO with drift.

    Curves are the normal tail, marks what the replay of the methods measured, with three standard errors.
    """
    colours = method_colours([*STILL, CENTRED])
    with style():
        figure = Figure(figsize=(4.8, 5.6), layout="constrained")
        grid = figure.subplots(3, 2, sharex=True, sharey=True)
        for axes, sigma in zip(grid.flat, SIGMAS, strict=False):
            for name, rule in STILL.items():
                _draw(axes, select(points, rule=name, sigma=sigma, drift=0.0), rule, colours[name])
            axes.set_title(f"σ = {sigma:g}", fontsize=9)
        _draw_drift(grid[2, 0], points, colours)
        _legend(grid[2, 1], colours)
        for axes in grid[:, 0]:
            axes.set_ylabel("outside the band")
        grid[1, 1].tick_params(labelbottom=True)
        length_axis(grid[0, 0], LENGTHS)
        grid[0, 0].set_ylim(0, 1)
        grid[0, 0].yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
        figure.supxlabel("response length in tokens (log scale)", fontsize=9, color=SOFT)
    return figure


def _draw(axes: Axes, part: pd.DataFrame, rule: BandRule, colour: str) -> None:
    name, sigma, drift = names_of(part, "rule")[0], numbers_of(part, "sigma")[0], numbers_of(part, "drift")[0]
    length = np.geomspace(LENGTHS[0] / 1.4, LENGTHS[-1] * 1.4, 80)
    tail = expected_share(Simulation(sigma, drift, ((1, 2),)), rule.edges(length, drift), length)
    axes.plot(length, tail, color=colour, linewidth=1.1, alpha=0.75)
    axes.errorbar(
        numbers_of(part, "length"),
        numbers_of(part, "measured"),
        ERRORS * numbers_of(part, "standard_error"),
        fmt=MARKS[name],
        color=colour,
        elinewidth=0.8,
        capsize=2.8,
        clip_on=False,
        zorder=3,
        **MARK,
    )


def _draw_drift(axes: Axes, points: pd.DataFrame, colours: Mapping[str, str]) -> None:
    """FSPO with both centres at every sigma, which is written where its two curves begin; those on 0 share a text."""
    for sigma in SIGMAS:
        for name, rule in DRIFTING.items():
            _draw(axes, select(points, rule=name, drift=drift_of(sigma)), rule, colours[name])
    flat = select(points, rule=CENTRED, length=LENGTHS[0])
    starts = dict(zip(numbers_of(flat, "sigma"), numbers_of(flat, "expected"), strict=True))
    on_zero = [sigma for sigma, start in starts.items() if start < 0.05]
    texts = {f"σ = {sigma:g}": start for sigma, start in starts.items() if sigma not in on_zero}
    if on_zero:
        texts[f"σ ≤ {max(on_zero):g}"] = 0.0
    for text, start in texts.items():
        axes.text(LENGTHS[0] * 1.08, start + (0.06 if start else 0.02), text, fontsize=7.5, va="bottom")
    axes.set_title("drift −σ²/2 per token", fontsize=9)


def _legend(axes: Axes, colours: Mapping[str, str]) -> None:
    """What colours and marks mean, in the panel that is left over."""
    texts = {
        "rloo": "RLOO: constant band",
        "gspo": "GSPO: band ~ L",
        "fspo": "FSPO: band ~ √L, μ = 0",
        CENTRED: "FSPO, μ of the batch",
    }
    lines = [Line2D([], [], color=colours[name], marker=MARKS[name], **MARK, linewidth=1.1) for name in texts]
    axes.set_axis_off()
    axes.legend(
        lines,
        texts.values(),
        loc="upper left",
        bbox_to_anchor=(-0.02, 1.0),
        fontsize=8,
        borderaxespad=0,
        handlelength=1.8,
    )
    notes = f"lines: normal tail\nmarks: methods replayed on\nsimulated responses,\n± {SHOWN_ERRORS}"
    axes.text(0.0, 0.4, notes, transform=axes.transAxes, fontsize=8, va="top", color=SOFT, linespacing=1.3)


def write_theory(out: Path, seed: int = 0) -> pd.DataFrame:
    """Write theory.csv, theory.svg and theory.png into a folder; returns the points. Same seed, same bytes."""
    points = measured_shares(seed=seed)
    figure = theory_figure(points)
    write_csv(out / "theory.csv", points)
    save_figure(figure, out, "theory")
    return points
