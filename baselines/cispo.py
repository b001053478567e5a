"""CISPO: the policy gradient with a capped token ratio as a constant weight; no token loses its gradient."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Self

from baselines.hyper import LARGEST_LOG, GroupStd, require
from baselines.rewards import STANDARDISED, standardised
from suite.arithmetic import capped_policy_gradient, token_log_ratio, token_surrogate
from suite.types import Clip, Divisor, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class CISPOHyper(GroupStd):
    """Hyper-parameters of CISPO with their provenance."""

    max_weight: float = knob(5.0, "ScaleRL (arXiv 2510.13786); an absolute maximum as in TRL, verl's is 1 + eps")

    def check(self) -> None:
        """The cap leaves the ratio 1 alone."""
        require(1 < self.max_weight < math.inf, self, "max_weight", "above 1 (an absolute maximum of the ratio)")

    def scaled(self, factor: float) -> Self:
        """The cap with its logarithm multiplied by `factor`."""
        return dataclasses.replace(self, max_weight=math.exp(min(factor * math.log(self.max_weight), LARGEST_LOG)))


def surrogate(batch: PolicyBatch, hyper: CISPOHyper, state: State) -> Surrogate:
    """J_i = sum_t sg[min(r_t, max_weight)] A log pi_t, divided by the step's tokens. No lower bound.

    Source: arXiv 2506.13585 eq. 4 and 5.
    """
    log_ratio = token_log_ratio(batch)
    tokens = capped_policy_gradient(log_ratio, math.log(hyper.max_weight), batch)
    return token_surrogate(log_ratio, tokens, batch, Divisor.TOKENS)


CISPO = Method(
    name="cispo",
    title="CISPO, policy gradient with a capped token weight",
    source="arXiv 2506.13585",
    hyper=CISPOHyper(),
    credit=standardised,
    surrogate=surrogate,
    level=Level.TOKEN,
    clip=Clip.CAP,
    growth=Growth.CONSTANT,
    detached=True,
    elsewhere={
        "TRL": 'GRPOConfig(loss_type="cispo", epsilon_high=5.0)',
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{policy_loss.loss_mode=cispo,"
        "clip_ratio_low=1.0,clip_ratio_high=4.0,loss_agg_mode=token-mean}",
        "OpenRLHF": "not possible: PolicyLoss has only ppo and gspo",
    },
    facts={
        "ratio": "token, r_t, as a constant weight on log pi_t",
        "band": "ratio at most max_weight, no lower bound; a capped token keeps its gradient",
        "aggregation": "sum over tokens, divided by the tokens of the optimizer step",
        "advantage": STANDARDISED,
        "kl": "none (stated)",
        "dual clip": "none",
        "departures": "the paper does not state the maximum: 5 is ScaleRL's, which standardises over the batch, not "
        "the group; the equation divides by the tokens of a group, we by those of the optimizer step",
    },
)
