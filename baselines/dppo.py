"""DPPO: a token's gradient is dropped once the policy has moved too far in the advantage's direction (TV or KL)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from baselines.hyper import LARGEST_LOG, Hyper, require
from baselines.rewards import CENTRED, centred
from suite.arithmetic import capped_policy_gradient, masked, token_log_ratio, token_surrogate
from suite.types import Clip, Divisor, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class DPPOHyper(Hyper):
    """What both divergences share."""

    delta: float
    max_weight: float = knob(20.0, "stated: 20 or more (arXiv 2602.04879 sec. 5.4); an absolute maximum of the ratio")

    def check(self) -> None:
        """A positive bound, and a cap that leaves the ratio 1 alone."""
        require(0 < self.delta < math.inf, self, "delta", "positive")
        require(1 < self.max_weight < math.inf, self, "max_weight", "above 1 (an absolute maximum of the ratio)")

    def scaled(self, factor: float) -> Self:
        """The bound, and the logarithm of the cap, multiplied by `factor`."""
        cap = math.exp(min(factor * math.log(self.max_weight), LARGEST_LOG)) if factor > 1 else self.max_weight
        return dataclasses.replace(self, delta=self.delta * factor, max_weight=cap)


@dataclass(frozen=True)
class DPPOTVHyper(DPPOHyper):
    """Hyper-parameters of DPPO-TV with their provenance."""

    delta: float = knob(0.15, "stated (arXiv 2602.04879), a difference of probabilities")


@dataclass(frozen=True)
class DPPOKLHyper(DPPOHyper):
    """Hyper-parameters of DPPO-KL with their provenance."""

    delta: float = knob(0.05, "stated (arXiv 2602.04879), in nats")


def total_variation(new: Tensor, old: Tensor) -> Tensor:
    """|p - q| for the sampled token's probabilities p = e^new, q = e^old: TV of "this token or another one"."""
    return (new.exp() - old.exp()).abs()


def binary_kl(new: Tensor, old: Tensor) -> Tensor:
    """q log(q/p) + (1-q) log((1-q)/(1-p)), KL(old || new) of "this token or another one"; 0 log 0 = 0."""
    others = (-torch.expm1(old)) * (torch.log(-torch.expm1(old)) - torch.log(-torch.expm1(new)))
    return old.exp() * (old - new) + torch.where(old == 0, torch.zeros_like(old), others)


def _surrogate(batch: PolicyBatch, hyper: DPPOHyper, divergence: Callable[[Tensor, Tensor], Tensor]) -> Surrogate:
    mask, advantages = batch.response_mask, batch.advantages.detach()
    log_ratio, old = token_log_ratio(batch), masked(batch.old_log_probs.detach(), mask)
    far = divergence(masked(batch.log_probs.detach(), mask), old) > hyper.delta
    dropped = far & (((advantages > 0) & (log_ratio > 0)) | ((advantages < 0) & (log_ratio < 0)))
    free = capped_policy_gradient(log_ratio, math.log(hyper.max_weight), batch)
    tokens = free._replace(
        objective=masked(free.objective, ~dropped), outside_band=far | free.outside_band, clipped=dropped
    )
    return token_surrogate(log_ratio, tokens, batch, Divisor.CONSTANT)


def surrogate_tv(batch: PolicyBatch, hyper: DPPOHyper, state: State) -> Surrogate:
    """J_i = sum_t M_t sg[min(r_t, max_weight)] A log pi_t, divided by responses x token limit.

    M_t = 0 where p_t - q_t > delta and A > 0, or q_t - p_t > delta and A < 0, else 1 (p new, q old probability of the
    sampled token). Source: arXiv 2602.04879, binary TV.
    """
    return _surrogate(batch, hyper, total_variation)


def surrogate_kl(batch: PolicyBatch, hyper: DPPOHyper, state: State) -> Surrogate:
    """J_i = sum_t M_t sg[min(r_t, max_weight)] A log pi_t, divided by responses x token limit.

    M_t = 0 where D_t > delta and p_t moved away from q_t in A's direction, else 1, with
    D_t = q log(q/p) + (1-q) log((1-q)/(1-p)). Source: arXiv 2602.04879, binary KL.
    """
    return _surrogate(batch, hyper, binary_kl)


DPPO_TV = Method(
    name="dppo_tv",
    title="DPPO-TV, tokens masked by total variation",
    source="arXiv 2602.04879",
    hyper=DPPOTVHyper(),
    credit=centred,
    surrogate=surrogate_tv,
    level=Level.TOKEN,
    clip=Clip.MASK,
    growth=Growth.CONSTANT,
    detached=True,
    elsewhere={
        "TRL": "1.16 masks no token by divergence (its DPPO trainer was removed): fspo.plugins.trl.SuiteTrainer with "
        "SuiteConfig(method='dppo_tv')",
        "verl": "as dr_grpo with clip_ratio_c=20, and actor_rollout_ref.actor.{policy_loss.loss_mode=dppo_tv,"
        "clip_ratio_low=0.15,clip_ratio_high=0.15}",
        "OpenRLHF": "not possible: is_correction_gating tv compares the sampler with the old policy, not the old "
        "with the new",
    },
    facts={
        "ratio": "token, r_t, as a constant weight on log pi_t",
        "band": "|p_t - q_t| at most delta in the advantage's direction; the ratio at most max_weight",
        "aggregation": "sum over tokens, divided by responses x the run's token limit",
        "advantage": CENTRED,
        "kl": "none; train.kl_coefficient adds k3 to the start for every method alike",
        "dual clip": "none",
        "departures": "the divergence is taken from pi_old as the trainer scores it, where the paper takes the "
        "sampler's own probabilities; binary form of the paper; the advantage rule is ours (verl's example for it "
        "centres too, and sets the cap to 10000)",
    },
)
DPPO_KL = dataclasses.replace(
    DPPO_TV,
    name="dppo_kl",
    title="DPPO-KL, tokens masked by a binary KL",
    hyper=DPPOKLHyper(),
    surrogate=surrogate_kl,
    elsewhere={
        "TRL": "1.16 masks no token by divergence (its DPPO trainer was removed): fspo.plugins.trl.SuiteTrainer with "
        "SuiteConfig(method='dppo_kl')",
        "verl": "as dr_grpo with clip_ratio_c=20, and actor_rollout_ref.actor.{policy_loss.loss_mode=dppo_kl,"
        "clip_ratio_low=0.05,clip_ratio_high=0.05}; departs: 1e-8 inside the divergence",
        "OpenRLHF": "not possible: is_correction_gating binary_kl compares the sampler with the old policy, not the "
        "old with the new",
    },
    facts={
        **DPPO_TV.facts,
        "band": "binary KL at most delta nats in the advantage's direction; ratio at most max_weight",
    },
)
