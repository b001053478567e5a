"""PPO: token ratios, a critic, generalised advantages and a clipped value loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from baselines.hyper import DualRatioBand, require
from suite.advantages import gae, whiten
from suite.arithmetic import masked, pessimistic_clip, token_log_ratio, token_surrogate
from suite.types import (
    Clip,
    Credit,
    CreditInput,
    Divisor,
    Growth,
    Level,
    Method,
    PolicyBatch,
    State,
    Surrogate,
    knob,
)


@dataclass(frozen=True)
class PPOHyper(DualRatioBand):
    """Hyper-parameters of PPO with their provenance."""

    clip_low: float = knob(0.2, "default (arXiv 1707.06347 table 1: best of those tried)")
    clip_high: float = knob(0.2, "default (arXiv 1707.06347 table 1: best of those tried)")
    dual_clip: float | None = knob(
        None, "off; 3 is verl's default (arXiv 1912.09729)", also=lambda hyper: (1.25 * (1 + hyper.clip_high),)
    )
    gamma: float = knob(1.0, "Open-Reasoner-Zero and verl")
    gae_lambda: float = knob(1.0, "Open-Reasoner-Zero and verl; TRL uses 0.95")
    whiten: bool = knob(True, "default in verl and TRL: advantages standardised over the step's tokens")
    value_clip: float = knob(0.2, "default (OpenAI baselines)")
    critic_learning_rate_ratio: float = knob(5.0, "ours: the critic learns at this multiple of the actor's rate")
    critic_warmup_epochs: int = knob(4, "ours: passes over the first rollout before the actor's first update")

    def check(self) -> None:
        """Discounts between 0 and 1, a positive value band and critic rate."""
        require(0 <= self.gamma <= 1, self, "gamma", "between 0 and 1")
        require(0 <= self.gae_lambda <= 1, self, "gae_lambda", "between 0 and 1")
        require(self.value_clip > 0, self, "value_clip", "positive")
        require(self.critic_learning_rate_ratio > 0, self, "critic_learning_rate_ratio", "positive")
        require(self.critic_warmup_epochs >= 0, self, "critic_warmup_epochs", "0 or more")


def credit(seen: CreditInput, hyper: PPOHyper) -> Credit:
    """Advantages [N, T] by GAE, whitened over the step's tokens; returns = raw advantages + values."""
    assert seen.values is not None, "PPO needs the critic's values"
    mask = seen.response_mask
    advantages = gae(seen.rewards, seen.values, mask, gamma=hyper.gamma, lam=hyper.gae_lambda)
    returns = advantages + masked(seen.values, mask)
    return Credit(whiten(advantages, mask, ddof=0, eps=1e-8) if hyper.whiten else advantages, returns)


def surrogate(batch: PolicyBatch, hyper: PPOHyper, state: State) -> Surrogate:
    """J_i = sum_t min(r_t A_t, clip(r_t, 1 - low, 1 + high) A_t), divided by the step's tokens.

    With dual clip d, a token with A_t < 0 contributes at least d A_t. Source: arXiv 1707.06347 eq. 7.
    """
    log_ratio, advantages = token_log_ratio(batch), masked(batch.advantages, batch.response_mask)
    tokens = pessimistic_clip(log_ratio, hyper.log_low, hyper.log_high, advantages, hyper.log_dual)
    return token_surrogate(log_ratio, tokens, batch, Divisor.TOKENS)


def value_loss(batch: PolicyBatch, hyper: PPOHyper) -> Tensor:
    """Summed squared value error of each response, [N], divided by the step's tokens.

    sum_t 1/2 max((V_t - G_t)^2, (V_old,t + clip(V_t - V_old,t, -c, c) - G_t)^2), c = value_clip
    """
    assert batch.values is not None, "PPO needs the critic's values"
    assert batch.old_values is not None, "PPO needs the values before the first update"
    assert batch.returns is not None, "PPO needs returns"
    mask = batch.response_mask
    values, old, returns = (masked(x, mask) for x in (batch.values, batch.old_values.detach(), batch.returns.detach()))
    near_old = old + torch.clamp(values - old, -hyper.value_clip, hyper.value_clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (near_old - returns) ** 2).sum(dim=1)


PPO = Method(
    name="ppo",
    title="PPO, token ratio with a critic",
    source="arXiv 1707.06347v2",
    hyper=PPOHyper(),
    credit=credit,
    surrogate=surrogate,
    value_loss=value_loss,
    needs=frozenset({"values"}),
    level=Level.TOKEN,
    clip=Clip.MIN,
    growth=Growth.CONSTANT,
    elsewhere={
        "TRL": "not possible: 1.16 has no PPO trainer (its experimental one was removed)",
        "verl": "algorithm.adv_estimator=gae critic.cliprange_value=0.2 actor_rollout_ref.actor.clip_ratio_c=1e9; "
        "departs: log ratios are clamped at +-20",
        "OpenRLHF": "--algo.advantage.estimator gae --actor.eps_clip 0.2 --critic.value_clip 0.2 --algo.kl.init_coef 0",
    },
    facts={
        "ratio": "token, r_t",
        "band": "ratio in [1 - clip_low, 1 + clip_high]",
        "aggregation": "sum over tokens, divided by the tokens of the optimizer step",
        "advantage": "GAE, whitened over the step's tokens (ddof 0, eps 1e-8)",
        "kl": "none in the reward; train.kl_coefficient adds k3 to the start for every method alike",
        "dual clip": "off unless dual_clip is set",
        "departures": "critic is a copy of the policy's body with its own head and optimizer; no entropy bonus",
    },
)
