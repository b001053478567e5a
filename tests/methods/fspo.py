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
