"""REINFORCE without clip: no importance ratio at all, as if every update were on-policy."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from baselines.hyper import Hyper
from baselines.rewards import LEAVE_ONE_OUT, leave_one_out
from suite.arithmetic import response_log_prob, sequence_surrogate, unclipped_only
from suite.types import Clip, Growth, Level, Method, PolicyBatch, State, Surrogate


@dataclass(frozen=True)
class REINFORCEHyper(Hyper):
    """Nothing to set."""


def surrogate(batch: PolicyBatch, hyper: REINFORCEHyper, state: State) -> Surrogate:
    """J_i = A log pi(y), mean over responses. From the second update on a rollout it is biased; that is its point.

    Source: Williams 1992; arXiv 2402.14740 sec. 3 for language models.
    """
    log_prob = response_log_prob(batch)
    return sequence_surrogate(torch.zeros_like(log_prob), unclipped_only(batch.advantages.detach() * log_prob))


REINFORCE = Method(
    name="reinforce",
    title="REINFORCE, no ratio and no clip",
    source="Williams 1992, arXiv 2402.14740v2",
    hyper=REINFORCEHyper(),
    credit=leave_one_out,
    surrogate=surrogate,
    level=Level.SEQUENCE,
    clip=Clip.NONE,
    growth=Growth.NONE,
    detached=True,
    elsewhere={
        "TRL": "only while the policy still is the sampler: RLOOConfig(beta=0.0), num_iterations=1 and "
        "steps_per_generation unset",
        "verl": "algorithm.adv_estimator=rloo actor_rollout_ref.actor.{policy_loss.loss_mode=gpg,"
        "loss_agg_mode=seq-mean-token-sum}",
        "OpenRLHF": "not possible: every loss carries a ratio, and none sums a response's tokens",
    },
    facts={
        "ratio": "none: every response weighs 1",
        "band": "none",
        "aggregation": "mean over responses, no division by length",
        "advantage": LEAVE_ONE_OUT,
        "kl": "none; train.kl_coefficient adds k3 to the start for every method alike",
        "dual clip": "none",
        "departures": "none known",
    },
)
