"""GSPO: one length-normalised ratio a response, at the paper's range and at the wide one that others use."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from baselines.hyper import GroupStd, RatioBand
from baselines.rewards import STANDARDISED, standardised
from suite.arithmetic import per_token, pessimistic_clip, sequence_log_ratio, sequence_surrogate
from suite.types import Clip, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class GSPOHyper(GroupStd, RatioBand):
    """Hyper-parameters of GSPO with their provenance."""

    clip_low: float = knob(3e-4, "stated (arXiv 2507.18071 sec. 5.1); disputed, see gspo_wide")
    clip_high: float = knob(4e-4, "stated (arXiv 2507.18071 sec. 5.1); disputed, see gspo_wide")


@dataclass(frozen=True)
class GSPOWideHyper(GroupStd, RatioBand):
    """Hyper-parameters of GSPO at the range that later work found."""

    clip_low: float = knob(3e-3, "stated for GSPO by ScaleRL (arXiv 2510.13786); LUSPO runs 2e-3")
    clip_high: float = knob(4e-3, "stated for GSPO by ScaleRL (arXiv 2510.13786); LUSPO runs 2.5e-3")


def surrogate(batch: PolicyBatch, hyper: RatioBand, state: State) -> Surrogate:
    """J_i = min(s A, clip(s, 1 - low, 1 + high) A) with s = e^(S/L), mean over responses.

    The band on S widens linearly with L. Source: arXiv 2507.18071v2 eq. 5 and 7.
    """
    log_ratio = per_token(sequence_log_ratio(batch), batch.lengths[:, None])
    return sequence_surrogate(log_ratio, pessimistic_clip(log_ratio, hyper.log_low, hyper.log_high, batch.advantages))


GSPO = Method(
    name="gspo",
    title="GSPO, length-normalised sequence ratio",
    source="arXiv 2507.18071v2",
    hyper=GSPOHyper(),
    credit=standardised,
    surrogate=surrogate,
    level=Level.SEQUENCE,
    clip=Clip.MIN,
    growth=Growth.LINEAR,
    elsewhere={
        "TRL": 'GRPOConfig(loss_type="grpo", importance_sampling_level="sequence", epsilon=3e-4, epsilon_high=4e-4)',
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{policy_loss.loss_mode=gspo,"
        "clip_ratio_low=3e-4,clip_ratio_high=4e-4,loss_agg_mode=seq-mean-token-mean}; departs: S/L is clamped at 10 "
        "from above",
        "OpenRLHF": "--algo.advantage.estimator group_norm --actor.policy_loss_type gspo --actor.eps_clip_low_high "
        "3e-4 4e-4 --algo.kl.init_coef 0",
    },
    facts={
        "ratio": "sequence, e^(S/L)",
        "band": "ratio in [1 - clip_low, 1 + clip_high], so S in about [-clip_low L, clip_high L]",
        "aggregation": "mean over responses; the gradient carries 1/L through the ratio",
        "advantage": STANDARDISED,
        "kl": "none; train.kl_coefficient adds k3 to the start for every method alike",
        "dual clip": "none",
        "departures": "none known",
    },
)
GSPO_WIDE = dataclasses.replace(
    GSPO,
    name="gspo_wide",
    title="GSPO at ten times the stated range",
    source="arXiv 2507.18071v2, range of arXiv 2510.13786",
    hyper=GSPOWideHyper(),
    elsewhere={
        "TRL": 'GRPOConfig(loss_type="grpo", importance_sampling_level="sequence", epsilon=3e-3, epsilon_high=4e-3)',
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{policy_loss.loss_mode=gspo,"
        "clip_ratio_low=3e-3,clip_ratio_high=4e-3,loss_agg_mode=seq-mean-token-mean}; departs: S/L is clamped at 10 "
        "from above",
        "OpenRLHF": "--algo.advantage.estimator group_norm --actor.policy_loss_type gspo --actor.eps_clip_low_high "
        "3e-3 4e-3 --algo.kl.init_coef 0",
    },
)
