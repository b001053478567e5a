"""FSPO's band on the sequence log ratio: its centre (drift), its widths, and the running estimates of both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import torch
from torch import Tensor

from suite.arithmetic import (
    drift_per_token,
    exact_root,
    kl_k3,
    masked,
    sequence_log_ratio,
    spread_per_root_token,
    token_log_ratio,
)
from suite.types import PolicyBatch, State, knob, require

DRIFTS = ("kl", "zero", "batch", "ema")


@dataclass(frozen=True)
class FSPOHyper:
    """Hyper-parameters of FSPO with their provenance. The paper's own widths are not public."""

    c_low: float = knob(0.03, "third party (c about .03); the paper's lower and upper widths are not public")
    c_high: float = knob(0.03, "third party (c about .03); the paper's lower and upper widths are not public")
    c_dual: float | None = knob(
        None,
        "off; the paper lists a dual clip, its form is not public: this form is ours",
        also=lambda hyper: (2 * hyper.c_high,),
    )
    drift: str | float = knob(
        "kl", "ours: v1's abstract names a KL-corrected drift, its form is not public", also=lambda hyper: DRIFTS
    )
    drift_decay: float = knob(0.9, "ours")
    drift_cap: float = knob(0.5, "ours: in half-widths of the narrower side; below 1, S = 0 lies inside the band")
    target_clip_rate: float | None = knob(
        None, "ours: width from the running sigma instead of c", also=lambda hyper: (0.1,)
    )
    sigma_decay: float = knob(0.9, "ours")
    std_ddof: int = knob(1, "not stated; torch's default in TRL and verl")
    std_eps: float = knob(1e-4, "not stated; TRL")

    def __post_init__(self) -> None:
        require(0 < self.c_low < math.inf, self, "c_low", "positive")
        require(0 < self.c_high < math.inf, self, "c_high", "positive")
        require(self.c_dual is None or self.c_dual > self.c_high, self, "c_dual", "above c_high")
        finite = isinstance(self.drift, int | float) and math.isfinite(self.drift)
        require(self.drift in DRIFTS or finite, self, "drift", "kl, zero, batch, ema or a number (nats per token)")
        require(0 <= self.drift_decay < 1, self, "drift_decay", "at least 0 and below 1")
        require(0 <= self.drift_cap < 1, self, "drift_cap", "at least 0 and below 1")
        require(0 <= self.sigma_decay < 1, self, "sigma_decay", "at least 0 and below 1")
        rate = self.target_clip_rate
        require(rate is None or 0 < rate < 1, self, "target_clip_rate", "between 0 and 1")
        require(self.std_ddof in (0, 1), self, "std_ddof", "0 or 1")
        require(self.std_eps >= 0, self, "std_eps", "0 or more")

    def scaled(self, factor: float) -> Self:
        """The band with its widths multiplied by `factor`; a width from a target clip rate is switched off."""
        dual = None if self.c_dual is None else self.c_dual * factor
        widths = {"c_low": self.c_low * factor, "c_high": self.c_high * factor, "c_dual": dual}
        return type(self)(**{**self.__dict__, **widths, "target_clip_rate": None})


def centre(hyper: FSPOHyper, state: State) -> float:
    """mu, the band's centre in nats per token before its cap: 0, a number, or the running estimate (0 before any)."""
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

        m - c_low sqrt(L),   m + c_high sqrt(L),   m + c_dual sqrt(L)
        m = L mu, with drift "kl" not below -drift_cap min(c_low, c_high) sqrt(L)

    The cap anchors the band: however far the estimate runs, a response that did not change (S = 0) is not clipped.
    """
    root = exact_root(lengths)
    c_low, c_high = widths(hyper, state)
    middle = lengths * centre(hyper, state)
    if hyper.drift == "kl":
        middle = torch.maximum(middle, -hyper.drift_cap * min(c_low, c_high) * root)
    ceiling = None if hyper.c_dual is None else middle + hyper.c_dual * root
    return middle - c_low * root, middle + c_high * root, ceiling


def observe(batch: PolicyBatch, hyper: FSPOHyper, state: State) -> State:
    """New running estimates from the mini-batch of one optimizer step; the updates after it use them."""
    return estimates(*read_of(batch), hyper, state)


def read_of(batch: PolicyBatch) -> tuple[Tensor, Tensor, Tensor]:
    """What the estimates read of every response, detached: S, the sum of k3 over its tokens, and L, each [N]."""
    kl = masked(kl_k3(token_log_ratio(batch).detach()), batch.response_mask).sum(1)
    return sequence_log_ratio(batch)[:, 0].detach(), kl, batch.lengths


def estimates(s: Tensor, kl: Tensor, lengths: Tensor, hyper: FSPOHyper, state: State) -> State:
    """The running estimates after one more optimizer step, from what `read_of` gives of its responses.

    drift = -sum_i sum_t (r_t - 1 - log r_t) / sum_i L_i over the responses i inside the band of that step: minus the
    estimator k3 of KL(pi_old || pi_theta) per token, of what the band accepts, decayed by drift_decay. It is never
    positive. A few responses outside move so far that a mean over all would hold the band at its cap. (`batch`:
    sum S / sum L over all responses of this very mini-batch, an estimate that follows the policy; `ema`: that,
    decayed.) sigma^2 = running mean (sigma_decay) of mean_i (S_i - L_i mu)^2 / L_i over all. A first observation is
    taken as it is; responses without tokens say nothing, nor does an estimate that is not finite, nor, where the width
    comes from sigma, a step in which no response has moved: its band would close.
    """
    if not lengths.any() or (hyper.target_clip_rate is not None and not s.any()):
        return state
    drift = observed_drift(s, kl, lengths, hyper, state)
    if hyper.drift != "batch" and "drift" in state:
        drift = hyper.drift_decay * state["drift"] + (1 - hyper.drift_decay) * drift
    variance = float(spread_per_root_token(s, lengths, centre(hyper, {"drift": drift}))) ** 2
    if "sigma" in state:
        variance = hyper.sigma_decay * state["sigma"] ** 2 + (1 - hyper.sigma_decay) * variance
    if not (math.isfinite(drift) and math.isfinite(variance)):
        return state
    return {"drift": drift, "sigma": math.sqrt(variance)}


def observed_drift(s: Tensor, kl: Tensor, lengths: Tensor, hyper: FSPOHyper, state: State) -> float:
    """What one optimizer step says of the drift, in nats per token; where the band accepts nothing, what was known."""
    if hyper.drift in ("batch", "ema"):
        return float(drift_per_token(s, lengths))
    low, high, _ = band(lengths, hyper, state)
    accepted = (low <= s) & (s <= high)
    if not lengths[accepted].any():
        return state.get("drift", 0.0)
    return float(drift_per_token(-kl[accepted], lengths[accepted]))
