"""SAPO: a smooth gate in place of the clip; far from ratio 1 the gradient fades instead of ending."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from baselines.hyper import GroupStd, require
from baselines.rewards import STANDARDISED, standardised
from suite.arithmetic import by_sign, token_log_ratio, token_surrogate, unclipped_only, weighted
from suite.types import Clip, Divisor, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class SAPOHyper(GroupStd):
    """Hyper-parameters of SAPO with their provenance."""

    tau_pos: float = knob(1.0, "stated (arXiv 2511.20347), for A > 0")
    tau_neg: float = knob(1.05, "stated (arXiv 2511.20347), for A <= 0: fades faster")

    def check(self) -> None:
        """Both temperatures positive."""
        require(0 < self.tau_pos < math.inf, self, "tau_pos", "positive")
        require(0 < self.tau_neg < math.inf, self, "tau_neg", "positive")


def surrogate(batch: PolicyBatch, hyper: SAPOHyper, state: State) -> Surrogate:
    """J_i = 1/L sum_t (4 / tau) sigmoid(tau (r_t - 1)) A, tau = tau_pos for A > 0 else tau_neg; mean over responses.

    The gate has slope 1 at r_t = 1. Source: arXiv 2511.20347 eq. 5 and 6.
    """
    advantages, log_ratio = batch.advantages.detach(), token_log_ratio(batch)
    tau = by_sign(advantages, hyper.tau_pos, hyper.tau_neg, log_ratio.dtype)
    # Beyond e^40 the gate is flat to the last bit; the clamp keeps its gradient at 0 instead of 0 times infinity.
    gate = 4 / tau * torch.sigmoid(tau * torch.expm1(log_ratio.clamp(max=40)))
    tokens = unclipped_only(weighted(log_ratio, advantages), objective=gate * advantages)
    return token_surrogate(log_ratio, tokens, batch, Divisor.RESPONSES, mean=True)


SAPO = Method(
    name="sapo",
    title="SAPO, a smooth gate on the token ratio",
    source="arXiv 2511.20347",
    hyper=SAPOHyper(),
    credit=standardised,
    surrogate=surrogate,
    level=Level.TOKEN,
    clip=Clip.GATE,
    growth=Growth.NONE,
    elsewhere={
        "TRL": 'GRPOConfig(loss_type="sapo", sapo_temperature_pos=1.0, sapo_temperature_neg=1.05); departs: '
        "temperatures in float32",
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{policy_loss.loss_mode=sapo,tau_pos=1.0,"
        "tau_neg=1.05}",
        "OpenRLHF": "not possible: PolicyLoss has only ppo and gspo",
    },
    facts={
        "ratio": "token, r_t",
        "band": "none: the gradient of a token carries 4 sigmoid' of tau (r_t - 1), which fades on both sides",
        "aggregation": "mean over the tokens of a response, then over responses",
        "advantage": STANDARDISED,
        "kl": "none; train.kl_coefficient adds k3 to the start for every method alike",
        "dual clip": "none",
        "departures": "log r_t is cut at 40, where the gate is flat to the last bit; no share of it is ever "
        "clipped, so it has no matched range",
    },
)
