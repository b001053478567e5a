"""GMPO: the geometric mean of token ratios that are clipped one by one first."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Self

import torch

from baselines.hyper import GroupStd, require
from baselines.rewards import STANDARDISED, standardised
from suite.arithmetic import masked, per_token, pessimistic_clip, token_log_ratio, weighted
from suite.types import Clip, Divisor, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class GMPOHyper(GroupStd):
    """Hyper-parameters of GMPO with their provenance."""

    log_low: float = knob(0.4, "stated (arXiv 2507.20673): ratio above e^-0.4")
    log_high: float = knob(0.4, "stated (arXiv 2507.20673): ratio below e^0.4")

    def check(self) -> None:
        """Both widths positive."""
        require(0 < self.log_low < math.inf, self, "log_low", "positive (nats)")
        require(0 < self.log_high < math.inf, self, "log_high", "positive (nats)")

    def scaled(self, factor: float) -> Self:
        """The band with both widths multiplied by `factor`."""
        return dataclasses.replace(self, log_low=self.log_low * factor, log_high=self.log_high * factor)


def surrogate(batch: PolicyBatch, hyper: GMPOHyper, state: State) -> Surrogate:
    """J_i = A exp(1/L sum_t x_t), x_t = min(log r_t, high) for A > 0, max(log r_t, -low) for A < 0; mean of responses.

    Every token is clipped on the side that would make J_i larger, before the mean. Source: arXiv 2507.20673 eq. 4.
    """
    log_ratio, lengths = token_log_ratio(batch), batch.lengths[:, None]
    good = batch.advantages > 0
    held = torch.where(good, log_ratio.clamp(max=hyper.log_high), log_ratio.clamp(min=-hyper.log_low))
    flags = pessimistic_clip(log_ratio, -hyper.log_low, hyper.log_high, batch.advantages)

    def geometric(x: torch.Tensor) -> torch.Tensor:
        mean = per_token(masked(x, batch.response_mask).sum(dim=1, keepdim=True), lengths)
        return weighted(mean, batch.advantages.detach())[:, 0]

    return Surrogate(
        objective=geometric(held),
        unclipped=geometric(log_ratio),
        log_weight=log_ratio,
        outside_band=flags.outside_band & batch.response_mask,
        clipped=flags.clipped & batch.response_mask,
        divisor=Divisor.RESPONSES,
    )


GMPO = Method(
    name="gmpo",
    title="GMPO, geometric mean of clipped token ratios",
    source="arXiv 2507.20673",
    hyper=GMPOHyper(),
    credit=standardised,
    surrogate=surrogate,
    level=Level.TOKEN,
    clip=Clip.MIN,
    growth=Growth.CONSTANT,
    elsewhere={
        "TRL": "trl.experimental.gmpo.GMPOConfig(epsilon=0.4), with GMPOTrainer",
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{policy_loss.loss_mode=geo_mean,"
        "clip_ratio_low=0.4,clip_ratio_high=0.4}, one micro batch per update",
        "OpenRLHF": "not possible: PolicyLoss has only ppo and gspo",
    },
    facts={
        "ratio": "token, r_t, joined to a geometric mean over the response",
        "band": "log ratio in [-log_low, log_high], before the mean",
        "aggregation": "geometric mean over the tokens of a response, then mean over responses",
        "advantage": STANDARDISED,
        "kl": "none; train.kl_coefficient adds k3 to the start for every method alike",
        "dual clip": "none",
        "departures": "none known",
    },
)
