"""CTPO: at every token the ratio of the whole prefix, in a band that grows as the root of the position."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Self

from baselines.hyper import GroupStd, RootBand, require
from baselines.rewards import STANDARDISED, standardised
from suite.arithmetic import exact_root, pessimistic_clip, token_log_ratio, token_surrogate, with_gradient_of
from suite.types import Clip, Divisor, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class CTPOHyper(GroupStd, RootBand):
    """Hyper-parameters of CTPO with their provenance."""

    c_low: float = knob(0.025, "stated (arXiv 2605.07331 and its code)")
    c_high: float = knob(0.05, "stated (arXiv 2605.07331 and its code)")
    c_dual: float | None = knob(0.05, "stated in its code: bounds the weight of A < 0 at e^(c_dual sqrt(t))")

    def check(self) -> None:
        """The dual bound is positive."""
        require(self.c_dual is None or 0 < self.c_dual < math.inf, self, "c_dual", "positive, or none")

    def scaled(self, factor: float) -> Self:
        """The band and the dual bound, multiplied by `factor`."""
        dual = None if self.c_dual is None else self.c_dual * factor
        return dataclasses.replace(super().scaled(factor), c_dual=dual)


def surrogate(batch: PolicyBatch, hyper: CTPOHyper, state: State) -> Surrogate:
    """J_i = 1/L sum_t min(w_t A, e^clip(log w_t, -c_low sqrt(t), c_high sqrt(t)) A), mean over responses.

    w_t = sg[rho_t] r_t / sg[r_t] with rho_t = r_1 ... r_t: the prefix's value, the token's gradient. t counts tokens of
    the response. For A < 0 the weight is at most e^(c_dual sqrt(t)). Source: arXiv 2605.07331 and its code.
    """
    log_ratio = token_log_ratio(batch)
    log_weight = with_gradient_of(log_ratio.cumsum(dim=1), log_ratio)
    root = exact_root(batch.response_mask.to(log_ratio.dtype).cumsum(dim=1))
    dual = None if hyper.c_dual is None else hyper.c_dual * root
    tokens = pessimistic_clip(log_weight, -hyper.c_low * root, hyper.c_high * root, batch.advantages, dual)
    return token_surrogate(log_weight, tokens, batch, Divisor.RESPONSES, mean=True)


CTPO = Method(
    name="ctpo",
    title="CTPO, prefix ratio in a band that grows as sqrt(t)",
    source="arXiv 2605.07331",
    hyper=CTPOHyper(),
    credit=standardised,
    surrogate=surrogate,
    level=Level.TOKEN,
    clip=Clip.MIN,
    growth=Growth.ROOT,
    detached=True,
    elsewhere={
        "TRL": "no prefix ratio of its own: fspo.plugins.trl.SuiteTrainer with SuiteConfig(method='ctpo')",
        "verl": "not possible: no prefix ratio; add it with register_policy_loss, as fspo.plugins.verl does",
        "OpenRLHF": "not possible: PolicyLoss has only ppo and gspo",
    },
    facts={
        "ratio": "prefix, rho_t = r_1 ... r_t, with the gradient of its last token",
        "band": "log rho_t in [-c_low sqrt(t), c_high sqrt(t)]",
        "aggregation": "mean over the tokens of a response, then over responses",
        "advantage": STANDARDISED,
        "kl": "none; train.kl_coefficient adds k3 to the start for every method alike",
        "dual clip": "weight at most e^(c_dual sqrt(t)) for A < 0",
        "departures": "with c_dual = c_high, as in the authors' code, A < 0 is cut on both sides; no clamp of log "
        "rho_t (the authors' code cuts it at 10)",
    },
)
