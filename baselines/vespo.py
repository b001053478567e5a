"""VESPO: the policy gradient of a response with a smooth weight of its sequence ratio."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from baselines.hyper import GroupStd, require
from baselines.rewards import STANDARDISED, standardised
from suite.arithmetic import (
    by_sign,
    response_log_prob,
    sequence_log_ratio,
    sequence_surrogate,
    unclipped_only,
    weighted,
)
from suite.types import Clip, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class VESPOHyper(GroupStd):
    """Hyper-parameters of VESPO with their provenance."""

    k_pos: float = knob(2.0, "stated (arXiv 2602.10693), for A > 0")
    lambda_pos: float = knob(3.0, "stated (arXiv 2602.10693), for A > 0")
    k_neg: float = knob(3.0, "stated (arXiv 2602.10693), for A < 0")
    lambda_neg: float = knob(2.0, "stated (arXiv 2602.10693), for A < 0")

    def check(self) -> None:
        """All four positive: else the weight has no bound on one side."""
        for field in ("k_pos", "lambda_pos", "k_neg", "lambda_neg"):
            require(0 < getattr(self, field) < math.inf, self, field, "positive")


def surrogate(batch: PolicyBatch, hyper: VESPOHyper, state: State) -> Surrogate:
    """J_i = sg[phi(W)] A log pi(y), phi(W) = W^k e^(lambda (1 - W)), W = e^S; mean over responses, no 1/L.

    phi(1) = 1, and phi fades on both sides. Source: arXiv 2602.10693.
    """
    log_ratio, advantages = sequence_log_ratio(batch).detach(), batch.advantages.detach()
    k = by_sign(advantages, hyper.k_pos, hyper.k_neg, log_ratio.dtype)
    fade = by_sign(advantages, hyper.lambda_pos, hyper.lambda_neg, log_ratio.dtype)
    log_phi = k * log_ratio - fade * torch.expm1(log_ratio)
    log_prob = response_log_prob(batch)
    unclipped = weighted(log_ratio, advantages) * log_prob
    return sequence_surrogate(log_ratio, unclipped_only(unclipped, weighted(log_phi, advantages) * log_prob))


VESPO = Method(
    name="vespo",
    title="VESPO, policy gradient with a smooth sequence weight",
    source="arXiv 2602.10693",
    hyper=VESPOHyper(),
    credit=standardised,
    surrogate=surrogate,
    level=Level.SEQUENCE,
    clip=Clip.GATE,
    growth=Growth.NONE,
    detached=True,
    elsewhere={
        "TRL": 'departs: GRPOConfig(loss_type="vespo") divides by tokens, not responses, and clamps S from below at '
        "log 1e-8",
        "verl": "not possible: no vespo in 0.9.1; add it with register_policy_loss, as fspo.plugins.verl does",
        "OpenRLHF": "not possible: PolicyLoss has only ppo and gspo",
    },
    facts={
        "ratio": "sequence, W = e^S, through phi(W) = W^k e^(lambda (1 - W)) as a constant weight on log pi(y)",
        "band": "none: phi fades on both sides of W = 1",
        "aggregation": "mean over responses, no division by length",
        "advantage": STANDARDISED,
        "kl": "none; train.kl_coefficient adds k3 to the start for every method alike",
        "dual clip": "none",
        "departures": "no clamp of S before phi; divided by responses [ours], the authors' recipe by tokens; no share "
        "of it is ever clipped, so it has no matched range",
    },
)
