"""GRPO with off-policy sequence masking: a bad response that the policy has left behind is dropped as a whole."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Self

import torch

from baselines.hyper import RatioBand, require
from baselines.rewards import CENTRED, centred
from suite.arithmetic import (
    per_token,
    pessimistic_clip,
    sequence_log_ratio,
    token_log_ratio,
    token_surrogate,
    weighted,
)
from suite.types import Clip, Divisor, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class GRPOOPSMHyper(RatioBand):
    """Hyper-parameters of GRPO with off-policy sequence masking, with their provenance."""

    clip_low: float = knob(0.2, "not stated; default (TRL, verl)")
    clip_high: float = knob(0.2, "not stated; default (TRL, verl)")
    delta: float = knob(
        0.1,
        "ours: not stated, and no value is agreed; TRL's example has 0.5, Trinity-RFT finds 0.05 to 0.2 reasonable, "
        "slime has 1e-4",
    )

    def check(self) -> None:
        """A positive bound."""
        require(0 < self.delta < math.inf, self, "delta", "positive (nats per token)")

    def scaled(self, factor: float) -> Self:
        """The band and the bound, multiplied by `factor` in log space."""
        return dataclasses.replace(super().scaled(factor), delta=self.delta * factor)


def surrogate(batch: PolicyBatch, hyper: GRPOOPSMHyper, state: State) -> Surrogate:
    """J_i = M_i 1/L sum_t min(r_t A, clip(r_t, 1 - low, 1 + high) A), mean over responses.

    M_i = 0 where A < 0 and -S / L > delta, else 1. Source: arXiv 2512.02556 sec. 3.1.
    """
    log_ratio, advantages = token_log_ratio(batch), batch.advantages.detach()
    lost = -per_token(sequence_log_ratio(batch).detach(), batch.lengths[:, None])
    dropped = (advantages < 0) & (lost > hyper.delta)
    kept = torch.where(dropped, torch.zeros_like(advantages), advantages)
    tokens = pessimistic_clip(log_ratio, hyper.log_low, hyper.log_high, kept)
    tokens = tokens._replace(
        unclipped=weighted(log_ratio, advantages),
        outside_band=tokens.outside_band | dropped,
        clipped=tokens.clipped | dropped,
    )
    return token_surrogate(log_ratio, tokens, batch, Divisor.RESPONSES, mean=True)


GRPO_OPSM = Method(
    name="grpo_opsm",
    title="GRPO with DeepSeek-V3.2's off-policy sequence masking",
    source="arXiv 2512.02556v1",
    hyper=GRPOOPSMHyper(),
    credit=centred,
    surrogate=surrogate,
    level=Level.TOKEN,
    clip=Clip.MASK,
    growth=Growth.CONSTANT,
    elsewhere={
        "TRL": 'GRPOConfig(loss_type="grpo", scale_rewards="none", epsilon=0.2, off_policy_mask_threshold=0.1); with '
        "vLLM the mask reads the sampler's log-probs",
        "verl": "algorithm.{adv_estimator=grpo,norm_adv_by_std_in_grpo=False} and fspo.plugins.verl with "
        "actor_rollout_ref.actor.policy_loss.loss_mode=grpo_opsm; its own rollout correction drops responses of either "
        "sign, by the sampler's log-probs",
        "OpenRLHF": "not possible: no mask by the sign of the advantage",
    },
    facts={
        "ratio": "token, r_t",
        "band": "ratio in [1 - clip_low, 1 + clip_high]; a response with A < 0 is dropped where its mean log ratio is "
        "below -delta",
        "aggregation": "mean over the tokens of a response, then over responses",
        "advantage": CENTRED,
        "kl": "none; the report has a KL term with an importance-weighted k3, which is not part of this method; "
        "train.kl_coefficient adds k3 to the start for every method alike",
        "dual clip": "none",
        "departures": "the report takes the sampler's own log-probs for the mask, we pi_old as the trainer scores it; "
        "its value of delta is not public; kept routing and kept sampling masks belong to the sampler, not to the loss",
    },
)
