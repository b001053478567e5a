"""FSPO, arXiv 2509.09177: min(e^S A, e^clip(S, L mu - c_low sqrt L, L mu + c_high sqrt L) A), mean over responses.

Ours: the dual bound e^(L mu + c_dual sqrt L) for A < 0, the estimators of mu and of the scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

from methods import Response, Row, State, clip_term, counted, log_ratio_sum, of_sequence
from methods.advantages import leave_one_out_credit
from methods.facts import NAN, NO_CREDIT_VARIANTS, Mutant, slope_of_sum

DIVISOR = "responses"
credit = leave_one_out_credit


def drift_in_use(hyper: Any, state: State) -> float:
    """mu: 0, a fixed number, or the running estimate (0 before any)."""
    if hyper.drift == "zero":
        return 0.0
    if hyper.drift in ("batch", "ema"):
        return state.get("drift", 0.0)
    return float(hyper.drift)


def widths(hyper: Any, state: State) -> tuple[float, float]:
    """(c_low, c_high): as set, or sigma Phi^-1(1 - p/2) on both sides once sigma is known."""
    if hyper.target_clip_rate is None or "sigma" not in state:
        return hyper.c_low, hyper.c_high
    c = state["sigma"] * NormalDist().inv_cdf(1 - hyper.target_clip_rate / 2)
    return c, c


def response(row: Row, hyper: Any, state: State) -> Response:
    """One number from the whole response."""
    total, advantage, length = log_ratio_sum(row), row.advantages[0], len(counted(row.mask))
    mu, (c_low, c_high) = drift_in_use(hyper, state), widths(hyper, state)
    low, high = length * mu - c_low * math.sqrt(length), length * mu + c_high * math.sqrt(length)
    dual = None if hyper.c_dual is None else length * mu + hyper.c_dual * math.sqrt(length)
    return of_sequence(row, clip_term(total, low, high, dual, advantage))


def observe(rows: Sequence[Row], hyper: Any, state: State) -> dict[str, float]:
    """New running estimates: drift = sum S / sum L (smoothed for "ema"), sigma^2 = mean (S - L mu)^2 / L, smoothed.

    mu is the centre after this observation; for "zero" and a fixed number it stays what it is. A response without
    counted tokens says nothing about either; a step of such responses leaves the estimates alone.
    """
    rows = [row for row in rows if counted(row.mask)]
    if not rows:
        return dict(state)
    sums = [log_ratio_sum(row) for row in rows]
    lengths = [len(counted(row.mask)) for row in rows]
    drift = math.fsum(sums) / sum(lengths)
    if hyper.drift == "ema" and "drift" in state:
        drift = hyper.ema_decay * state["drift"] + (1 - hyper.ema_decay) * drift
    mu = drift_in_use(hyper, {"drift": drift})
    variance = math.fsum((s - n * mu) ** 2 / n for s, n in zip(sums, lengths, strict=True)) / len(rows)
    if "sigma" in state:
        variance = hyper.sigma_decay * state["sigma"] ** 2 + (1 - hyper.sigma_decay) * variance
    return {"drift": drift, "sigma": math.sqrt(variance)}


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {
    "c_low": 0.03,
    "c_high": 0.03,
    "c_dual": None,
    "drift": "zero",
    "ema_decay": 0.9,
    "target_clip_rate": None,
    "sigma_decay": 0.9,
}
MISTAKES = [
    {"c_low": -0.01},
    {"c_high": -0.01},
    {"c_high": NAN},
    {"c_dual": 0.02},
    {"drift": "banana"},
    {"drift": NAN},
    {"ema_decay": -0.1},
    {"ema_decay": 1.5},
    {"sigma_decay": -0.1},
    {"sigma_decay": 1.5},
    {"target_clip_rate": 0.0},
    {"target_clip_rate": 1.0},
    {"target_clip_rate": -0.1},
    {"target_clip_rate": 2.0},
]
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = [
    ({}, {}),
    ({"c_low": 0.01, "c_high": 0.2}, {"drift": 0.5, "sigma": 2.0}),
    ({"c_dual": 0.06}, {}),
    ({"drift": "batch"}, {}),
    ({"drift": "batch", "c_dual": 0.1}, {"drift": 0.03, "sigma": 0.4}),
    ({"drift": "ema", "c_high": 0.05}, {"drift": -0.02, "sigma": 0.4}),
    ({"drift": 0.01}, {"drift": -0.9}),
    ({"target_clip_rate": 0.1}, {}),
    ({"target_clip_rate": 0.3, "drift": "ema"}, {"drift": 0.01, "sigma": 0.02}),
]
CREDIT_VARIANTS = NO_CREDIT_VARIANTS
WITHOUT_PEER = "neither TRL 1.16 nor verl 0.9.1 has it; our plug-ins bring it to both"
MUTANTS = [
    Mutant(
        "L for sqrt L",
        "fspo/band.py",
        "middle, root = lengths * centre(hyper, state), lengths.sqrt()",
        "middle, root = lengths * centre(hyper, state), lengths",
    ),
    Mutant(
        "drift of the wrong sign",
        "fspo/band.py",
        "middle, root = lengths * centre(hyper, state), lengths.sqrt()",
        "middle, root = -lengths * centre(hyper, state), lengths.sqrt()",
    ),
    Mutant(
        "low and high exchanged",
        "fspo/band.py",
        "return middle - c_low * root, middle + c_high * root, ceiling",
        "return middle - c_high * root, middle + c_low * root, ceiling",
    ),
    Mutant(
        "dual bound not moved with the drift", "fspo/band.py", "middle + hyper.c_dual * root", "hyper.c_dual * root"
    ),
    Mutant(
        "target rate on each side",
        "fspo/band.py",
        "inv_cdf(1 - hyper.target_clip_rate / 2)",
        "inv_cdf(1 - hyper.target_clip_rate)",
    ),
    Mutant(
        "padded width for L",
        "fspo/objective.py",
        "band(batch.lengths[:, None], hyper, state)",
        "band(0 * batch.lengths[:, None] + batch.response_mask.shape[1], hyper, state)",
    ),
    Mutant(
        "one group for all",
        "fspo/objective.py",
        "leave_one_out(seen.rewards, seen.group_ids)",
        "leave_one_out(seen.rewards, 0 * seen.group_ids)",
    ),
    Mutant(
        "weights of the running drift exchanged",
        "fspo/band.py",
        'hyper.ema_decay * state["drift"] + (1 - hyper.ema_decay) * drift',
        '(1 - hyper.ema_decay) * state["drift"] + hyper.ema_decay * drift',
    ),
    Mutant(
        "sigma around the drift of the step before",
        "fspo/band.py",
        'centre(hyper, {"drift": drift})',
        "centre(hyper, state)",
    ),
    Mutant(
        "length-normalised ratio",
        "fspo/objective.py",
        "log_ratio = sequence_log_ratio(batch)",
        "log_ratio = sequence_log_ratio(batch) / batch.lengths[:, None].clamp(min=1)",
    ),
    Mutant(
        "a loss of one column under a token sum",
        "fspo/objective.py",
        "batch.advantages, ceiling))",
        "batch.lengths[:, None] * batch.advantages, ceiling))",
    ),
    Mutant("dual clip forgotten", "fspo/objective.py", "batch.advantages, ceiling))", "batch.advantages))"),
    Mutant(
        "constant for sqrt L",
        "fspo/band.py",
        "middle, root = lengths * centre(hyper, state), lengths.sqrt()",
        "middle, root = lengths * centre(hyper, state), 0 * lengths + 1",
    ),
    Mutant(
        "drift not times L",
        "fspo/band.py",
        "middle, root = lengths * centre(hyper, state), lengths.sqrt()",
        "middle, root = 0 * lengths + centre(hyper, state), lengths.sqrt()",
    ),
    Mutant(
        "drift times sqrt L",
        "fspo/band.py",
        "middle, root = lengths * centre(hyper, state), lengths.sqrt()",
        "middle, root = lengths.sqrt() * centre(hyper, state), lengths.sqrt()",
    ),
    Mutant(
        "drift ignored",
        "fspo/band.py",
        "middle, root = lengths * centre(hyper, state), lengths.sqrt()",
        "middle, root = 0 * lengths, lengths.sqrt()",
    ),
]
