"""RLOO with the sequence-level importance ratio and a fixed band, as in TRL's RLOOTrainer."""

from __future__ import annotations

from dataclasses import dataclass

from baselines.hyper import RatioBand
from baselines.rewards import LEAVE_ONE_OUT, leave_one_out
from suite.arithmetic import pessimistic_clip, sequence_log_ratio, sequence_surrogate
from suite.types import Clip, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class RLOOHyper(RatioBand):
    """Hyper-parameters of sequence-level RLOO with their provenance."""

    clip_low: float = knob(0.2, "default (TRL RLOOTrainer)")
    clip_high: float = knob(0.2, "default (TRL RLOOTrainer)")


def surrogate(batch: PolicyBatch, hyper: RLOOHyper, state: State) -> Surrogate:
    """J_i = min(e^S A, clip(e^S, 1 - low, 1 + high) A), mean over responses. The band on S is constant in length.

    Source: arXiv 2402.14740 sec. 3 for the estimator; the ratio and its clip follow TRL's RLOOTrainer.
    """
    log_ratio = sequence_log_ratio(batch)
    return sequence_surrogate(log_ratio, pessimistic_clip(log_ratio, hyper.log_low, hyper.log_high, batch.advantages))


RLOO = Method(
    name="rloo",
    title="RLOO, sequence ratio with a fixed band",
    source="arXiv 2402.14740v2 (advantage); ratio and clip of TRL's RLOOTrainer",
    hyper=RLOOHyper(),
    credit=leave_one_out,
    surrogate=surrogate,
    level=Level.SEQUENCE,
    clip=Clip.MIN,
    growth=Growth.CONSTANT,
    elsewhere={
        "TRL": "RLOOConfig(beta=0.0, epsilon=0.2)",
        "verl": "not possible: adv_estimator=rloo is only the advantage, no clipped ratio e^S; add it with "
        "register_policy_loss, as fspo.plugins.verl does",
        "OpenRLHF": "not possible: --algo.advantage.estimator rloo is only the advantage; no ratio e^S in PolicyLoss",
    },
    facts={
        "ratio": "sequence, e^S",
        "band": "ratio in [1 - clip_low, 1 + clip_high], constant in length",
        "aggregation": "mean over responses, no division by length",
        "advantage": LEAVE_ONE_OUT,
        "kl": "none in the reward; train.kl_coefficient adds k3 to the start for every method alike",
        "dual clip": "none",
        "departures": "the paper has neither ratio nor clip; TRL's trainer has, and a KL term in the reward besides",
    },
)
