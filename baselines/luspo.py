"""LUSPO: GSPO's objective times the length, which takes the 1/L out of its gradient."""

from __future__ import annotations

from dataclasses import dataclass

from baselines.gspo import GSPO
from baselines.hyper import GroupStd, RatioBand
from baselines.rewards import standardised
from suite.arithmetic import per_token, pessimistic_clip, sequence_log_ratio, sequence_surrogate
from suite.types import Clip, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class LUSPOHyper(GroupStd, RatioBand):
    """Hyper-parameters of LUSPO with their provenance."""

    clip_low: float = knob(2e-3, "stated (arXiv 2602.05261)")
    clip_high: float = knob(2.5e-3, "stated (arXiv 2602.05261)")


def surrogate(batch: PolicyBatch, hyper: LUSPOHyper, state: State) -> Surrogate:
    """J_i = L min(s A, clip(s, 1 - low, 1 + high) A) with s = e^(S/L), mean over responses.

    Source: arXiv 2602.05261.
    """
    lengths = batch.lengths[:, None]
    log_ratio = per_token(sequence_log_ratio(batch), lengths)
    clip = pessimistic_clip(log_ratio, hyper.log_low, hyper.log_high, batch.advantages)
    longer = clip._replace(objective=lengths * clip.objective, unclipped=lengths * clip.unclipped)
    return sequence_surrogate(log_ratio, longer)


LUSPO = Method(
    name="luspo",
    title="LUSPO, GSPO times the length",
    source="arXiv 2602.05261",
    hyper=LUSPOHyper(),
    credit=standardised,
    surrogate=surrogate,
    level=Level.SEQUENCE,
    clip=Clip.MIN,
    growth=Growth.LINEAR,
    elsewhere={
        "TRL": 'GRPOConfig(loss_type="luspo", importance_sampling_level="sequence", epsilon=2e-3, epsilon_high=2.5e-3)',
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{policy_loss.loss_mode=gspo,"
        "clip_ratio_low=2e-3,clip_ratio_high=2.5e-3,loss_agg_mode=seq-mean-token-sum}; departs: S/L is clamped at "
        "10 from above",
        "OpenRLHF": "not possible: policy_loss_type gspo always divides each response by its length",
    },
    facts={
        **GSPO.facts,
        "aggregation": "L times the response's objective, mean over responses",
        "departures": "the advantage rule is TRL's recipe for it; none is stated in what we read",
    },
)
