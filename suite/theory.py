"""The theory figure: who leaves the band at which length if S is Gaussian, and what the real methods do to such S.

Part of the composition root: it replays RLOO, GSPO and FSPO on simulated banks and draws them on the normal tail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import PercentFormatter

from fspo.growth import Band, sqrt_band
from fspo.simulation import RULES, Simulation, expected_share
from suite import tables
from suite.figure_style import SOFT, length_axis, method_colours, names_of, numbers_of, save_figure, select, style
from suite.probes import with_hyper
from suite.recipes import METHODS
from suite.replay import UpdateLog, replay
from suite.types import Method, UserError

SIGMAS = (0.003, 0.01, 0.02, 0.035)
"""Spreads of S in nats per square root of a token."""
LENGTHS = (128, 512, 2048, 8192)
STEPS, PER_STEP = 8, 500
"""Optimizer steps of a bank, and responses of every length in each: 4,000 behind a dot."""
CENTRED = "fspo mu=batch"
MARKS = {"rloo": "^", "gspo": "s", "fspo": "o", CENTRED: "D"}
MARK: dict[str, Any] = {"markersize": 2.8, "markeredgewidth": 0.8}
ERRORS = 3
SHOWN_ERRORS = f"{ERRORS} standard errors"


@dataclass(frozen=True)
class Rule:
    """A method, and the edges on S in nats that the theory gives it: edges(length, drift)."""

    method: Method
    edges: Callable[[np.ndarray, float], Band]


def _without_drift(name: str, length: np.ndarray, drift: float) -> Band:
    return RULES[name](length)


def _around_drift(length: np.ndarray, drift: float) -> Band:
    hyper = METHODS["fspo"].hyper
    return sqrt_band(length, hyper.c_low, hyper.c_high, drift)


STILL: Mapping[str, Rule] = {name: Rule(METHODS[name], partial(_without_drift, name)) for name in RULES}
"""The rules that are compared where S has no drift."""
DRIFTING: Mapping[str, Rule] = {
    "fspo": STILL["fspo"],
    CENTRED: Rule(with_hyper(METHODS["fspo"], drift="batch"), _around_drift),
}
"""FSPO with mu = 0 and with mu from the batch, for S with drift."""


def drift_of(sigma: float) -> float:
    """Mean log ratio per token of samples of the old policy if S is Gaussian: -sigma^2 / 2, so that E[e^S] = 1."""
    return -(sigma**2) / 2


# --- numbers --------------------------------------------------------------------------------------


def measure(still: Mapping[str, Rule] = STILL, drifting: Mapping[str, Rule] = DRIFTING, seed: int = 0) -> pd.DataFrame:
    """Share of simulated responses outside the band against the normal tail, one row per rule, bank and length.

        expected = P(S < low or S > high),  S ~ N(L drift, L sigma^2)
        standard_error = sqrt(expected (1 - expected) / responses),  z = (measured - expected) / standard_error

    Columns: rule, sigma, drift, length, responses, measured (outside_band of `suite.replay.replay`), standard_error,
    expected, z. The rules of one bank see the same responses, so their z are not independent; below about five
    expected responses a z is far from normal. mu = batch is compared with the tail around the true drift: with 500
    responses of a length the batch's own mean moves a share by less than a tenth of a standard error.
    UserError for a negative seed. Source: ours (arXiv 2509.09177 for the Gaussian limit).
    """
    if seed < 0:
        raise UserError(f"--seed {seed}: must be 0 or more")
    banks = [(sigma, 0.0, still) for sigma in SIGMAS] + [(sigma, drift_of(sigma), drifting) for sigma in SIGMAS]
    rows = [
        row
        for number, (sigma, drift, rules) in enumerate(banks)
        for row in _points(rules, sigma, drift, np.random.default_rng([seed, number]))
    ]
    return pd.DataFrame(rows)


def _points(
    rules: Mapping[str, Rule], sigma: float, drift: float, rng: np.random.Generator
) -> Iterator[dict[str, str | float]]:
    lengths = np.array(LENGTHS)
    # All of S on the last token: the same law of S, in a fraction of the time that drawing every token takes.
    simulation = Simulation(sigma, drift, tuple((length, PER_STEP) for length in LENGTHS), tokens="last")
    outside = {name: np.zeros(len(lengths)) for name in rules}
    for _ in range(STEPS):
        log = UpdateLog(**simulation.columns(rng))
        for name, rule in rules.items():
            frame = replay(rule.method, log, {})
            length, flags = numbers_of(frame, "length"), numbers_of(frame, "outside_band")
            outside[name] += [flags[length == one].sum() for one in LENGTHS]
    count = STEPS * PER_STEP
    for name, rule in rules.items():
        tail = expected_share(simulation, rule.edges(lengths, drift), lengths)
        for length, measured, expected in zip(LENGTHS, outside[name] / count, tail, strict=True):
            error = math.sqrt(expected * (1 - expected) / count)
            yield {
                "rule": name,
                "sigma": sigma,
                "drift": drift,
                "length": length,
                "responses": count,
                "measured": float(measured),
                "standard_error": error,
                "expected": float(expected),
                "z": z_score(float(measured - expected), error),
            }


def z_score(difference: float, error: float) -> float:
    """difference / error; where nothing can vary, 0 for no difference and infinity for any.

    >>> z_score(0.02, 0.01), z_score(0.0, 0.0), z_score(-0.1, 0.0)
    (2.0, 0.0, -inf)
    """
    if error > 0:
        return difference / error
    return 0.0 if difference == 0 else math.copysign(math.inf, difference)


def sentence(points: pd.DataFrame) -> str:
    """How many of the points lie within three standard errors of the normal tail, and the farthest one."""
    z = numbers_of(points, "z")
    worst = points.iloc[int(np.argmax(np.abs(z)))]
    where = f"{worst['rule']}, sigma {worst['sigma']:g}, drift {worst['drift']:.3g}, {worst['length']} tokens"
    within = int(np.sum(np.abs(z) <= ERRORS))
    return (
        f"{within} of {len(z)} points lie within {SHOWN_ERRORS} of the normal tail; "
        f"the largest |z| is {np.max(np.abs(z)):.2f} ({where})"
    )


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


def _draw(axes: Axes, part: pd.DataFrame, rule: Rule, colour: str) -> None:
    name, sigma, drift = names_of(part, "rule")[0], numbers_of(part, "sigma")[0], numbers_of(part, "drift")[0]
    length = np.geomspace(LENGTHS[0] / 1.4, LENGTHS[-1] * 1.4, 80)
    tail = expected_share(Simulation(sigma, drift, ((1, 2),)), rule.edges(length, drift), length)
    axes.plot(length, tail, color=colour, linewidth=1.1, alpha=0.75)
    axes.errorbar(
        numbers_of(part, "length"), numbers_of(part, "measured"), ERRORS * numbers_of(part, "standard_error"),
        fmt=MARKS[name], color=colour, elinewidth=0.8, capsize=2.8, clip_on=False, zorder=3, **MARK,
    )  # fmt: skip


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
    texts = {"rloo": "RLOO: constant band", "gspo": "GSPO: band ~ L", "fspo": "FSPO: band ~ √L, μ = 0",
             CENTRED: "FSPO, μ of the batch"}  # fmt: skip
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
    points = measure(seed=seed)
    figure = theory_figure(points)
    tables.write_csv(out / "theory.csv", points)
    save_figure(figure, out, "theory")
    return points
