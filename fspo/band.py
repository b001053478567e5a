"""FSPO's band on the sequence log ratio: its centre (drift), its widths, and the running estimates of both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

from torch import Tensor

from suite.arithmetic import drift_per_token, sequence_log_ratio, spread_per_root_token
from suite.types import PolicyBatch, State, knob, require

DRIFTS = ("zero", "batch", "ema")


@dataclass(frozen=True)
class FSPOHyper:
    """Hyper-parameters of FSPO with their provenance. The paper's own widths are not public."""

    c_low: float = knob(0.03, "third party (c about .03); the paper's lower and upper widths are not public")
    c_high: float = knob(0.03, "third party (c about .03); the paper's lower and upper widths are not public")
    c_dual: float | None = knob(None, "off; the paper lists a dual clip, its form is not public: this form is ours")
    drift: str | float = knob("zero", "paper v3 sets mu ~ 0; `batch`, `ema` and numbers are ours")
    ema_decay: float = knob(0.9, "ours")
    target_clip_rate: float | None = knob(None, "ours: width from the running sigma instead of c")
    sigma_decay: float = knob(0.9, "ours")

    def __post_init__(self) -> None:
        require(0 < self.c_low < math.inf, self, "c_low", "positive")
        require(0 < self.c_high < math.inf, self, "c_high", "positive")
        require(self.c_dual is None or self.c_dual > self.c_high, self, "c_dual", "above c_high")
        finite = isinstance(self.drift, int | float) and math.isfinite(self.drift)
        require(self.drift in DRIFTS or finite, self, "drift", "zero, batch, ema or a number (nats per token)")
        require(0 <= self.ema_decay < 1, self, "ema_decay", "at least 0 and below 1")
        require(0 <= self.sigma_decay < 1, self, "sigma_decay", "at least 0 and below 1")
        rate = self.target_clip_rate
        require(rate is None or 0 < rate < 1, self, "target_clip_rate", "between 0 and 1")

    def scaled(self, factor: float) -> Self:
        """The band with its widths multiplied by `factor`; a width from a target clip rate is switched off."""
        dual = None if self.c_dual is None else self.c_dual * factor
        widths = {"c_low": self.c_low * factor, "c_high": self.c_high * factor, "c_dual": dual}
        return type(self)(**{**self.__dict__, **widths, "target_clip_rate": None})


def centre(hyper: FSPOHyper, state: State) -> float:
    """mu, the band's centre in nats per token: 0, a fixed number, or the running estimate (0 before the first)."""
    if hyper.drift == "zero":
        return 0.0
    if isinstance(hyper.drift, int | float):
        return float(hyper.drift)
    return state.get("drift", 0.0)


def widths(hyper: FSPOHyper, state: State) -> tuple[float, float]:
    """(c_low, c_high) in nats per square root of a token.

    With a target clip rate p and a known sigma: c = sigma Phi^-1(1 - p/2) on both sides [ours]; otherwise the fixed c.
    """
    if hyper.target_clip_rate is None or "sigma" not in state:
        return hyper.c_low, hyper.c_high
    c = state["sigma"] * NormalDist().inv_cdf(1 - hyper.target_clip_rate / 2)
    return c, c


def band(lengths: Tensor, hyper: FSPOHyper, state: State) -> tuple[Tensor, Tensor, Tensor | None]:
    """Lower edge, upper edge and dual ceiling (or None) on S, shaped like `lengths`, in nats.

    L mu - c_low sqrt(L),   L mu + c_high sqrt(L),   L mu + c_dual sqrt(L)
    """
    middle, root = lengths * centre(hyper, state), lengths.sqrt()
    c_low, c_high = widths(hyper, state)
    ceiling = None if hyper.c_dual is None else middle + hyper.c_dual * root
    return middle - c_low * root, middle + c_high * root, ceiling


def observe(batch: PolicyBatch, hyper: FSPOHyper, state: State) -> State:
    """New running estimates from the mini-batch of one optimizer step.

    drift = sum S / sum L of this mini-batch (`ema`: decayed by ema_decay), an estimate of -KL(pi_old || pi_theta) per
    token; sigma^2 = running mean (sigma_decay) of mean_i (S_i - L_i mu)^2 / L_i. A first observation is taken as it is;
    responses without tokens say nothing.
    """
    if not batch.lengths.any():
        return state
    s = sequence_log_ratio(batch)[:, 0].detach()
    drift = float(drift_per_token(s, batch.lengths))
    if hyper.drift == "ema" and "drift" in state:
        drift = hyper.ema_decay * state["drift"] + (1 - hyper.ema_decay) * drift
    variance = float(spread_per_root_token(s, batch.lengths, centre(hyper, {"drift": drift}))) ** 2
    if "sigma" in state:
        variance = hyper.sigma_decay * state["sigma"] ** 2 + (1 - hyper.sigma_decay) * variance
    return {"drift": drift, "sigma": math.sqrt(variance)}
