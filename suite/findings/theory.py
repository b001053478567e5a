"""The theory figure: who leaves the band at which length if S is Gaussian, and what the real methods do to such S.

It replays RLOO, GSPO and FSPO on simulated banks and draws them on the normal tail.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from suite.experiments.names import METHODS
from suite.methods.trial_batches import with_hyper
from suite.records.update_log import UpdateLog
from suite.replay.growth import Band, sqrt_band
from suite.replay.one_method import replay
from suite.replay.simulation import RULES, Simulation, expected_share
from suite.statistics.frames import numbers_of
from suite.types import Method, UserError

SIGMAS = (0.003, 0.01, 0.02, 0.035)
"""Spreads of S in nats per square root of a token."""
LENGTHS = (128, 512, 2048, 8192)
STEPS, PER_STEP = 8, 500
"""Optimizer steps of a bank, and responses of every length in each: 4,000 behind a dot."""
CENTRED = "fspo mu=batch"
ERRORS = 3
SHOWN_ERRORS = f"{ERRORS} standard errors"


@dataclass(frozen=True)
class BandRule:
    """A method, and the edges on S in nats that the theory gives it: edges(length, drift)."""

    method: Method
    edges: Callable[[np.ndarray, float], Band]


def _without_drift(shape: str, length: np.ndarray, drift: float) -> Band:
    return RULES[shape](length)


def _around_drift(length: np.ndarray, drift: float) -> Band:
    hyper = METHODS["fspo_zero_drift"].hyper
    return sqrt_band(length, hyper.c_low, hyper.c_high, drift)


SHAPES = {"rloo": "constant", "gspo": "linear", "fspo": "sqrt"}
"""How the band of each method grows with length."""
METHOD_OF = {"fspo": "fspo_zero_drift"}
"""The method behind a rule of another name: without a drift of S, FSPO's centre is 0."""
STILL: Mapping[str, BandRule] = {
    name: BandRule(METHODS[METHOD_OF.get(name, name)], partial(_without_drift, shape)) for name, shape in SHAPES.items()
}
"""The rules that are compared where S has no drift."""
DRIFTING: Mapping[str, BandRule] = {
    "fspo": STILL["fspo"],
    CENTRED: BandRule(with_hyper(METHODS["fspo"], drift="batch"), _around_drift),
}
"""FSPO with mu = 0 and with mu from the batch, for S with drift."""


def drift_of(sigma: float) -> float:
    """Mean log ratio per token of samples of the old policy if S is Gaussian: -sigma^2 / 2, so that E[e^S] = 1."""
    return -(sigma**2) / 2


# --- numbers --------------------------------------------------------------------------------------


def measured_shares(
    still: Mapping[str, BandRule] = STILL, drifting: Mapping[str, BandRule] = DRIFTING, seed: int = 0
) -> pd.DataFrame:
    """Share of simulated responses outside the band against the normal tail, one row per rule, bank and length.

        expected = P(S < low or S > high),  S ~ N(L drift, L sigma^2)
        standard_error = sqrt(expected (1 - expected) / responses),  z = (measured - expected) / standard_error

    Columns: rule, sigma, drift, length, responses, measured (outside_band of `suite.replay.one_method.replay`),
    standard_error, expected, z. The rules of one bank see the same responses, so their z are not independent; below
    about five expected responses a z is far from normal. mu = batch is compared with the tail around the true drift:
    with 500 responses of a length the batch's own mean moves a share by less than a tenth of a standard error.
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
    rules: Mapping[str, BandRule], sigma: float, drift: float, rng: np.random.Generator
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


def theory_sentence(points: pd.DataFrame) -> str:
    """How many of the points lie within three standard errors of the normal tail, and the farthest one."""
    z = numbers_of(points, "z")
    worst = points.iloc[int(np.argmax(np.abs(z)))]
    where = f"{worst['rule']}, sigma {worst['sigma']:g}, drift {worst['drift']:.3g}, {worst['length']} tokens"
    within = int(np.sum(np.abs(z) <= ERRORS))
    return (
        f"{within} of {len(z)} points lie within {SHOWN_ERRORS} of the normal tail; "
        f"the largest |z| is {np.max(np.abs(z)):.2f} ({where})"
    )
