"""DAPO: GRPO with a higher upper range and a token mean over the whole step."""

from __future__ import annotations

from dataclasses import dataclass

from baselines.hyper import DualRatioBand, GroupStd
from baselines.rewards import STANDARDISED, standardised
from suite.arithmetic import pessimistic_clip, token_log_ratio, token_surrogate
from suite.types import Clip, Divisor, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class DAPOHyper(GroupStd, DualRatioBand):
    """Hyper-parameters of DAPO with their provenance."""

    clip_low: float = knob(0.2, "stated (arXiv 2503.14476 sec. 4.1)")
    clip_high: float = knob(0.28, "stated (arXiv 2503.14476 sec. 4.1)")
    dual_clip: float | None = knob(10.0, "stated in the authors' recipe, not in the paper's equation")


def surrogate(batch: PolicyBatch, hyper: DAPOHyper, state: State) -> Surrogate:
    """J_i = sum_t min(r_t A, clip(r_t, 1 - low, 1 + high) A), divided by the step's tokens.

    With dual clip d, a token with A < 0 contributes at least d A. Source: arXiv 2503.14476v2 eq. 8.
    """
    log_ratio = token_log_ratio(batch)
    tokens = pessimistic_clip(log_ratio, hyper.log_low, hyper.log_high, batch.advantages, hyper.log_dual)
    return token_surrogate(log_ratio, tokens, batch, Divisor.TOKENS)


DAPO = Method(
    name="dapo",
    title="DAPO, token mean with a higher upper range",
    source="arXiv 2503.14476v2",
    hyper=DAPOHyper(),
    credit=standardised,
    surrogate=surrogate,
    level=Level.TOKEN,
    clip=Clip.MIN,
    growth=Growth.CONSTANT,
    elsewhere={
        "TRL": 'GRPOConfig(loss_type="dapo", epsilon=0.2, epsilon_high=0.28, delta=10.0)',
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{clip_ratio_low=0.2,clip_ratio_high=0.28,"
        "clip_ratio_c=10.0,loss_agg_mode=token-mean}; departs: log ratios are clamped at +-20",
        "OpenRLHF": "--algo.advantage.estimator group_norm --actor.eps_clip_low_high 0.2 0.28 --actor.dual_clip 10 "
        "--algo.kl.init_coef 0",
    },
    facts={
        "ratio": "token, r_t",
        "band": "ratio in [1 - clip_low, 1 + clip_high]",
        "aggregation": "sum over tokens, divided by the tokens of the optimizer step",
        "advantage": STANDARDISED,
        "kl": "none (stated)",
        "dual clip": "ratio at most dual_clip for A < 0",
        "departures": "the equation divides by the tokens of a group, we by those of the optimizer step; dynamic "
        "sampling and the overlong penalty change the rollouts, so they are settings of the run for every method "
        "alike: train.dynamic_sampling, train.overlong_buffer",
    },
)
