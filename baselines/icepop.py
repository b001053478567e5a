"""IcePop: a token whose ratio leaves a band on either side is dropped, whatever its advantage, instead of clipped."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Self

import torch

from baselines.hyper import LARGEST_LOG, Hyper, require
from baselines.rewards import CENTRED, centred
from suite.arithmetic import Clipped, token_log_ratio, token_surrogate, weighted
from suite.types import Clip, Divisor, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class IcePopHyper(Hyper):
    """Hyper-parameters of IcePop with their provenance."""

    alpha: float = knob(
        0.5, "stated (arXiv 2512.16144 p. 17, read in notes on it); prime-rl has 0.2, open-instruct quotes 1/beta"
    )
    beta: float = knob(5.0, "stated (arXiv 2512.16144 p. 17, read in notes on it)")

    def check(self) -> None:
        """The band lies around the ratio 1."""
        require(0 < self.alpha < 1, self, "alpha", "between 0 and 1 (the lowest ratio that is kept)")
        require(1 < self.beta < math.inf, self, "beta", "above 1 (the highest ratio that is kept)")

    def scaled(self, factor: float) -> Self:
        """The band with both edges multiplied by `factor` in log space."""
        low, high = (factor * math.log(edge) for edge in (self.alpha, self.beta))
        low, high = math.exp(max(low, -LARGEST_LOG)), math.exp(min(high, LARGEST_LOG))
        return dataclasses.replace(self, alpha=min(low, math.nextafter(1.0, 0.0)), beta=high)


def surrogate(batch: PolicyBatch, hyper: IcePopHyper, state: State) -> Surrogate:
    """J_i = sum_t M(r_t) A, M(k) = k where alpha <= k <= beta, else 0; divided by the step's tokens.

    Source: arXiv 2512.16144 eq. 1; the mask is that of arXiv 2510.18855.
    """
    log_ratio, advantages = token_log_ratio(batch), batch.advantages.detach()
    outside = (log_ratio < math.log(hyper.alpha)) | (log_ratio > math.log(hyper.beta))
    # Dropped by a zero advantage: then a ratio that overflows has no gradient either, not 0 times infinity.
    kept = torch.where(outside, torch.zeros_like(advantages), advantages)
    tokens = Clipped(
        objective=weighted(log_ratio, kept),
        unclipped=weighted(log_ratio, advantages),
        outside_band=outside,
        clipped=outside & (advantages != 0),
    )
    return token_surrogate(log_ratio, tokens, batch, Divisor.TOKENS)


ICEPOP = Method(
    name="icepop",
    title="IcePop, tokens dropped on both sides of a ratio band",
    source="arXiv 2512.16144 (objective), 2510.18855 (mask)",
    hyper=IcePopHyper(),
    credit=centred,
    surrogate=surrogate,
    level=Level.TOKEN,
    clip=Clip.MASK,
    growth=Growth.CONSTANT,
    elsewhere={
        "TRL": "not possible: vllm_importance_sampling_mode='token_mask' compares the sampler with the old policy; "
        "fspo.plugins.trl.SuiteTrainer with SuiteConfig(method='icepop')",
        "verl": "algorithm.{adv_estimator=grpo,norm_adv_by_std_in_grpo=False} and fspo.plugins.verl with "
        "actor_rollout_ref.actor.policy_loss.loss_mode=icepop; its own rollout correction compares the sampler with "
        "the old policy",
        "OpenRLHF": "not possible: is_correction_gating compares the sampler with the old policy",
    },
    facts={
        "ratio": "token, r_t",
        "band": "ratio in [alpha, beta]; outside a token is dropped for both signs of A",
        "aggregation": "sum over tokens, divided by the tokens of the optimizer step",
        "advantage": CENTRED,
        "kl": "none, as prime-rl says of arXiv 2512.16144; 2510.18855 has -gamma KL, with gamma = 0 in its run (says a "
        "note); train.kl_coefficient adds k3 to the start for every method alike",
        "dual clip": "none; beta bounds the weight of A < 0, too",
        "departures": "the papers have the sampler's own probabilities below the ratio, we pi_old as the trainer "
        "scores it; arXiv 2512.16144 also drops a whole rollout in which any ratio is below 1e-5, we do not; its "
        "equation divides by the tokens of N rollouts, which are not clearly one group: we by those of the optimizer "
        "step; arXiv 2510.18855 masks by the ratio of the two engines under the old weights, which is 1 here, and "
        "keeps PPO's clip",
    },
)
