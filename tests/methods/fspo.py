"""FSPO, arXiv 2509.09177: min(e^S A, e^clip(S, m - c_low sqrt L, m + c_high sqrt L) A), mean over responses.

Ours: m = L mu with mu = -KL (k3 of the accepted responses of earlier updates, decayed), not below
-cap min(c_low, c_high) sqrt L; the dual bound e^(m + c_dual sqrt L) for A < 0; the estimator of the scale.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

from methods import Response, Row, State, clip_term, counted, log_ratio, log_ratio_sum, of_sequence
from methods.advantages import standardised_credit
from methods.facts import NAN, STD_MISTAKES, STD_VARIANTS, Mutant, slope_of_sum

DIVISOR = "responses"
credit = standardised_credit


def drift_in_use(hyper: Any, state: State) -> float:
    """mu: 0, a fixed number, or the running estimate (0 before any)."""
    if hyper.drift == "zero":
        return 0.0
    if hyper.drift in ("kl", "batch", "ema"):
        return state.get("drift", 0.0)
    return float(hyper.drift)


def widths(hyper: Any, state: State) -> tuple[float, float]:
    """(c_low, c_high): as set, or sigma Phi^-1(1 - p/2) on both sides once sigma is known."""
    if hyper.target_clip_rate is None or "sigma" not in state:
        return hyper.c_low, hyper.c_high
    c = state["sigma"] * NormalDist().inv_cdf(1 - hyper.target_clip_rate / 2)
    return c, c


def middle_of(length: int, hyper: Any, state: State) -> float:
    """m = L mu, the middle of the band of a response of that length."""
    middle = length * drift_in_use(hyper, state)
    furthest = -hyper.drift_cap * min(widths(hyper, state)) * math.sqrt(length)
    return furthest if hyper.drift == "kl" and middle < furthest else middle


def response(row: Row, hyper: Any, state: State) -> Response:
    """One number from the whole response."""
    total, advantage, length = log_ratio_sum(row), row.advantages[0], len(counted(row.mask))
    middle, root, (c_low, c_high) = middle_of(length, hyper, state), math.sqrt(length), widths(hyper, state)
    low, high = middle - c_low * root, middle + c_high * root
    dual = None if hyper.c_dual is None else middle + hyper.c_dual * root
    return of_sequence(row, clip_term(total, low, high, dual, advantage))


def is_accepted(row: Row, hyper: Any, state: State) -> bool:
    """Whether the response lies inside its band."""
    length, (c_low, c_high) = len(counted(row.mask)), widths(hyper, state)
    away = log_ratio_sum(row) - middle_of(length, hyper, state)
    return -c_low * math.sqrt(length) <= away <= c_high * math.sqrt(length)


def observe(rows: Sequence[Row], hyper: Any, state: State) -> dict[str, float]:
    """New running estimates: drift = -sum (r - 1 - log r) / sum L of what is accepted, sigma^2 = mean (S - L mu)^2 / L.

    Both decayed. Without an accepted response the drift stays. "batch": drift = sum S / sum L over all responses, as it
    is; "ema": the same, decayed.

    mu is the centre after this observation; for "zero" and a fixed number it stays what it is. A response
    without counted tokens says nothing about either; a step of such responses leaves the estimates alone.
    """
    rows = [row for row in rows if counted(row.mask)]
    if not rows:
        return dict(state)
    sums = [log_ratio_sum(row) for row in rows]
    if hyper.target_clip_rate is not None and not any(sums):
        return dict(state)
    lengths = [len(counted(row.mask)) for row in rows]
    ratios = [log_ratio(row, t) for row in rows if is_accepted(row, hyper, state) for t in counted(row.mask)]
    drift = state.get("drift", 0.0)
    if ratios:
        drift = -math.fsum(math.exp(x) - 1 - x for x in ratios) / len(ratios)
    if hyper.drift in ("batch", "ema"):
        drift = math.fsum(sums) / sum(lengths)
    if hyper.drift != "batch" and "drift" in state:
        drift = hyper.drift_decay * state["drift"] + (1 - hyper.drift_decay) * drift
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
    "drift": "kl",
    "drift_decay": 0.9,
    "drift_cap": 0.5,
    "target_clip_rate": None,
    "sigma_decay": 0.9,
    "std_ddof": 1,
    "std_eps": 1e-4,
}
MISTAKES = [
    {"c_low": -0.01},
    {"c_high": -0.01},
    {"c_high": NAN},
    {"c_dual": 0.02},
    {"drift": "banana"},
    {"drift": NAN},
    {"drift_decay": -0.1},
    {"drift_decay": 1.5},
    {"drift_cap": -0.1},
    {"drift_cap": 1.0},
    {"sigma_decay": -0.1},
    {"sigma_decay": 1.5},
    {"target_clip_rate": 0.0},
    {"target_clip_rate": 1.0},
    {"target_clip_rate": -0.1},
    {"target_clip_rate": 2.0},
    *STD_MISTAKES,
]
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = [
    ({}, {}),
    ({}, {"drift": -0.01, "sigma": 0.3}),
    ({"c_low": 0.01, "c_high": 0.2}, {"drift": -0.5, "sigma": 2.0}),
    ({"c_dual": 0.06}, {"drift": -0.004, "sigma": 0.1}),
    ({"drift_cap": 0.0}, {"drift": -0.03, "sigma": 0.4}),
    ({"drift_cap": 0.9, "drift_decay": 0.5, "c_dual": 0.1}, {"drift": -0.03, "sigma": 0.4}),
    ({"drift": "zero", "c_high": 0.05}, {"drift": -0.02, "sigma": 0.4}),
    ({"drift": 0.01}, {"drift": -0.9, "sigma": 0.4}),
    ({"drift": -0.05, "c_high": 0.06}, {}),
    ({"drift": "batch"}, {}),
    ({"drift": "batch", "c_dual": 0.1}, {"drift": 0.03, "sigma": 0.4}),
    ({"drift": "ema", "c_high": 0.05}, {"drift": -0.02, "sigma": 0.4}),
    ({"target_clip_rate": 0.1}, {}),
    ({"target_clip_rate": 0.3}, {"drift": -0.01, "sigma": 0.02}),
]
CREDIT_VARIANTS = STD_VARIANTS
WITHOUT_PEER = "neither TRL 1.16 nor verl 0.9.1 has it; our plug-ins bring it to both"
MUTANTS = [
    Mutant("L for sqrt L", "fspo/band.py", "root = exact_root(lengths)", "root = lengths"),
    Mutant("constant for sqrt L", "fspo/band.py", "root = exact_root(lengths)", "root = 0 * lengths + 1"),
    Mutant(
        "drift of the wrong sign",
        "fspo/band.py",
        "middle = lengths * centre(hyper, state)",
        "middle = -lengths * centre(hyper, state)",
    ),
    Mutant("drift not times L", "fspo/band.py", "middle = lengths * centre", "middle = 0 * lengths + centre"),
    Mutant("drift times sqrt L", "fspo/band.py", "middle = lengths * centre", "middle = root * centre"),
    Mutant("drift ignored", "fspo/band.py", "middle = lengths * centre", "middle = 0 * lengths * centre"),
    Mutant(
        "cap forgotten",
        "fspo/band.py",
        "torch.maximum(middle, -hyper.drift_cap",
        "torch.maximum(middle, -1e9 * hyper.drift_cap",
    ),
    Mutant("cap per token", "fspo/band.py", "min(c_low, c_high) * root)", "min(c_low, c_high) * lengths)"),
    Mutant("cap by the wider side", "fspo/band.py", "min(c_low, c_high) * root)", "max(c_low, c_high) * root)"),
    Mutant(
        "cap on a fixed drift too",
        "fspo/band.py",
        'if hyper.drift == "kl":\n        middle',
        "if True:\n        middle",
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
        "group_standardised(seen.rewards, seen.group_ids",
        "group_standardised(seen.rewards, 0 * seen.group_ids",
    ),
    Mutant(
        "KL of the first kind",
        "fspo/band.py",
        "kl = masked(kl_k3(token_log_ratio(batch).detach()), batch.response_mask)",
        "kl = masked(-token_log_ratio(batch).detach(), batch.response_mask)",
    ),
    Mutant(
        "a width of 0 from a step that moved nothing",
        "fspo/band.py",
        "if not lengths.any() or (hyper.target_clip_rate is not None and not s.any()):",
        "if not lengths.any():",
    ),
    Mutant("KL of all responses", "fspo/band.py", "accepted = (low <= s) & (s <= high)", "accepted = lengths > 0"),
    Mutant(
        "KL of what is outside",
        "fspo/band.py",
        "accepted = (low <= s) & (s <= high)",
        "accepted = (low > s) | (s > high)",
    ),
    Mutant(
        "tokens of all responses in the divisor",
        "fspo/band.py",
        "drift_per_token(-kl[accepted], lengths[accepted])",
        "drift_per_token(-kl * accepted, lengths)",
    ),
    Mutant(
        "no drift where nothing is accepted",
        "fspo/band.py",
        'return state.get("drift", 0.0)\n    return',
        "return 0.0\n    return",
    ),
    Mutant(
        "weights of the running drift exchanged",
        "fspo/band.py",
        'hyper.drift_decay * state["drift"] + (1 - hyper.drift_decay) * drift',
        '(1 - hyper.drift_decay) * state["drift"] + hyper.drift_decay * drift',
    ),
    Mutant(
        "weights of the running sigma exchanged",
        "fspo/band.py",
        'hyper.sigma_decay * state["sigma"] ** 2 + (1 - hyper.sigma_decay) * variance',
        '(1 - hyper.sigma_decay) * state["sigma"] ** 2 + hyper.sigma_decay * variance',
    ),
    Mutant(
        "dual ceiling growing with L", "fspo/band.py", "middle + hyper.c_dual * root", "middle + hyper.c_dual * lengths"
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
]
