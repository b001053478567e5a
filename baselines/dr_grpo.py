"""Dr. GRPO: GRPO without the division by the group's std and without the division by the own length."""

from __future__ import annotations

from dataclasses import dataclass

from baselines.hyper import DualRatioBand
from baselines.rewards import CENTRED, centred
from suite.arithmetic import pessimistic_clip, token_log_ratio, token_surrogate
from suite.types import Clip, Divisor, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class DrGRPOHyper(DualRatioBand):
    """Hyper-parameters of Dr. GRPO with their provenance."""

    clip_low: float = knob(0.2, "default (TRL, verl)")
    clip_high: float = knob(0.2, "default (TRL, verl)")
    dual_clip: float | None = knob(None, "off; the paper has none", also=lambda hyper: (1.25 * (1 + hyper.clip_high),))


def surrogate(batch: PolicyBatch, hyper: DrGRPOHyper, state: State) -> Surrogate:
    """J_i = sum_t min(r_t A, clip(r_t, 1 - low, 1 + high) A), divided by responses x token limit.

    Source: arXiv 2503.20783v2 sec. 3.2.
    """
    log_ratio = token_log_ratio(batch)
    tokens = pessimistic_clip(log_ratio, hyper.log_low, hyper.log_high, batch.advantages, hyper.log_dual)
    return token_surrogate(log_ratio, tokens, batch, Divisor.CONSTANT)


DR_GRPO = Method(
    name="dr_grpo",
    title="Dr. GRPO, GRPO without its length and difficulty biases",
    source="arXiv 2503.20783v2",
    hyper=DrGRPOHyper(),
    credit=centred,
    surrogate=surrogate,
    level=Level.TOKEN,
    clip=Clip.MIN,
    growth=Growth.CONSTANT,
    elsewhere={
        "TRL": 'GRPOConfig(loss_type="dr_grpo", scale_rewards="none", epsilon=0.2)',
        "verl": "algorithm.{adv_estimator=grpo,norm_adv_by_std_in_grpo=False} "
        "actor_rollout_ref.actor.{loss_agg_mode=seq-mean-token-sum-norm,loss_scale_factor=MAX_NEW_TOKENS,"
        "clip_ratio_c=1e9}; departs: log ratios are clamped at +-20",
        "OpenRLHF": "not possible: no constant divisor; --algo.advantage.estimator dr_grpo is the advantage, "
        "divided by tokens",
    },
    facts={
        "ratio": "token, r_t",
        "band": "ratio in [1 - clip_low, 1 + clip_high]",
        "aggregation": "sum over tokens, divided by responses x the run's token limit (never by padding)",
        "advantage": CENTRED,
        "kl": "none; train.kl_coefficient adds k3 to the start for every method alike",
        "dual clip": "off unless dual_clip is set",
        "departures": "none known",
    },
)
