"""GSPO-token: GSPO's weight at every token, with the token's own gradient, so that advantages may differ by token."""

from __future__ import annotations

from dataclasses import dataclass

from baselines.gspo import GSPO
from baselines.hyper import GroupStd, RatioBand
from baselines.rewards import standardised
from suite.arithmetic import (
    per_token,
    pessimistic_clip,
    sequence_log_ratio,
    token_log_ratio,
    token_surrogate,
    with_gradient_of,
)
from suite.types import Clip, Divisor, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class GSPOTokenHyper(GroupStd, RatioBand):
    """Hyper-parameters of GSPO-token with their provenance."""

    clip_low: float = knob(3e-4, "as GSPO, stated (arXiv 2507.18071 sec. 5.1)")
    clip_high: float = knob(4e-4, "as GSPO, stated (arXiv 2507.18071 sec. 5.1)")


def surrogate(batch: PolicyBatch, hyper: GSPOTokenHyper, state: State) -> Surrogate:
    """J_i = 1/L sum_t min(s_t A, clip(s_t, 1 - low, 1 + high) A), s_t = sg[s] r_t / sg[r_t], s = e^(S/L).

    With one advantage a response, value and gradient are GSPO's. Source: arXiv 2507.18071v2 eq. 13 and 14.
    """
    mean = per_token(sequence_log_ratio(batch), batch.lengths[:, None])
    log_weight = with_gradient_of(mean, token_log_ratio(batch))
    tokens = pessimistic_clip(log_weight, hyper.log_low, hyper.log_high, batch.advantages)
    return token_surrogate(log_weight, tokens, batch, Divisor.RESPONSES, mean=True)


GSPO_TOKEN = Method(
    name="gspo_token",
    title="GSPO-token, the sequence ratio with token gradients",
    source="arXiv 2507.18071v2",
    hyper=GSPOTokenHyper(),
    credit=standardised,
    surrogate=surrogate,
    level=Level.TOKEN,
    clip=Clip.MIN,
    growth=Growth.LINEAR,
    detached=True,
    elsewhere={
        "TRL": 'the same gradient: GRPOConfig(loss_type="grpo", importance_sampling_level="sequence", epsilon=3e-4, '
        "epsilon_high=4e-4)",
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.actor.{policy_loss.loss_mode=gspo,"
        "clip_ratio_low=3e-4,clip_ratio_high=4e-4,loss_agg_mode=seq-mean-token-mean}; departs: S/L is clamped at 10 "
        "from above",
        "OpenRLHF": "the same gradient: --algo.advantage.estimator group_norm --actor.policy_loss_type gspo "
        "--actor.eps_clip_low_high 3e-4 4e-4 --algo.kl.init_coef 0",
    },
    facts={
        **GSPO.facts,
        "ratio": "token, sg[e^(S/L)] r_t / sg[r_t]: the sequence's value, the token's gradient",
        "aggregation": "mean over the tokens of a response, then over responses",
    },
)
