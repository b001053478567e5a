"""GRPO: token ratios, group-standardised rewards, every response divided by its own length."""

from __future__ import annotations

from dataclasses import dataclass

from baselines.hyper import DualRatioBand, GroupStd
from baselines.rewards import STANDARDISED, standardised
from suite.arithmetic import pessimistic_clip, token_log_ratio, token_surrogate
from suite.types import Clip, Divisor, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class GRPOHyper(GroupStd, DualRatioBand):
    """Hyper-parameters of GRPO with their provenance."""

    clip_low: float = knob(0.2, "default (TRL, verl)")
    clip_high: float = knob(0.2, "default (TRL, verl); GSPO's tuned baseline uses 0.27, R1 uses 10")
    dual_clip: float | None = knob(None, "off; 3 is verl's default", also=lambda hyper: (1.25 * (1 + hyper.clip_high),))


def surrogate(batch: PolicyBatch, hyper: GRPOHyper, state: State) -> Surrogate:
    """J_i = 1/L sum_t min(r_t A, clip(r_t, 1 - low, 1 + high) A), mean over responses.

    Source: arXiv 2402.03300v3 eq. 3.
    """
    log_ratio = token_log_ratio(batch)
    tokens = pessimistic_clip(log_ratio, hyper.log_low, hyper.log_high, batch.advantages, hyper.log_dual)
    return token_surrogate(log_ratio, tokens, batch, Divisor.RESPONSES, mean=True)


GRPO = Method(
    name="grpo",
    title="GRPO, token ratio with group-standardised rewards",
    source="arXiv 2402.03300v3",
    hyper=GRPOHyper(),
    credit=standardised,
    surrogate=surrogate,
    level=Level.TOKEN,
    clip=Clip.MIN,
    growth=Growth.CONSTANT,
    elsewhere={
        "TRL": 'GRPOConfig(loss_type="grpo", epsilon=0.2)',
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{loss_agg_mode=seq-mean-token-mean,"
        "clip_ratio_c=1e9}; departs: log ratios are clamped at +-20",
        "OpenRLHF": "--algo.advantage.estimator group_norm --actor.loss_agg_mode seq-mean-token-mean "
        "--actor.eps_clip 0.2 --algo.kl.init_coef 0",
    },
    facts={
        "ratio": "token, r_t",
        "band": "ratio in [1 - clip_low, 1 + clip_high]",
        "aggregation": "mean over the tokens of a response, then over responses",
        "advantage": STANDARDISED,
        "kl": "none by default; train.kl_coefficient adds k3 to the start for every method alike (the paper: .04)",
        "dual clip": "off unless dual_clip is set",
        "departures": "no KL term by default",
    },
)
