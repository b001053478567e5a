"""MaxRL: rewards over the group's success rate, so that a rare success counts for more; a clipped token ratio."""

from __future__ import annotations

from dataclasses import dataclass

from baselines.hyper import DualRatioBand
from suite.advantages import group_over_mean
from suite.arithmetic import pessimistic_clip, token_log_ratio, token_surrogate
from suite.types import Clip, Credit, CreditInput, Divisor, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class MaxRLHyper(DualRatioBand):
    """Hyper-parameters of MaxRL with their provenance."""

    clip_low: float = knob(0.2, "stated in the authors' code; the paper has no ratio")
    clip_high: float = knob(0.2, "stated in the authors' code; the paper has no ratio")
    dual_clip: float | None = knob(
        None,
        "off; the authors' code runs on verl, whose default is 3",
        also=lambda hyper: (1.25 * (1 + hyper.clip_high),),
    )


def credit(seen: CreditInput, hyper: MaxRLHyper) -> Credit:
    """(R - group mean) / group mean, [N, 1]; 0 in a group without a success."""
    return Credit(group_over_mean(seen.rewards, seen.group_ids)[:, None])


def surrogate(batch: PolicyBatch, hyper: MaxRLHyper, state: State) -> Surrogate:
    """J_i = sum_t min(r_t A, clip(r_t, 1 - low, 1 + high) A), A = (R - group mean) / group mean; by the step's tokens.

    Source: arXiv 2602.02710 algorithm 1 (advantage); ratio, clip and divisor of its code.
    """
    log_ratio = token_log_ratio(batch)
    tokens = pessimistic_clip(log_ratio, hyper.log_low, hyper.log_high, batch.advantages, hyper.log_dual)
    return token_surrogate(log_ratio, tokens, batch, Divisor.TOKENS)


MAXRL = Method(
    name="maxrl",
    title="MaxRL, rewards over the group's success rate",
    source="arXiv 2602.02710v1 (advantage); ratio and clip of its code",
    hyper=MaxRLHyper(),
    credit=credit,
    surrogate=surrogate,
    level=Level.TOKEN,
    clip=Clip.MIN,
    growth=Growth.CONSTANT,
    keeps_credit=True,
    elsewhere={
        "TRL": "not possible: scale_rewards knows group, batch and none; fspo.plugins.trl.SuiteTrainer with "
        "SuiteConfig(method='maxrl')",
        "verl": "not possible: no advantage rule divides by the mean; the loss is actor_rollout_ref.actor."
        "{clip_ratio_low=0.2,clip_ratio_high=0.2,clip_ratio_c=1e9,loss_agg_mode=token-mean}",
        "OpenRLHF": "not possible: no estimator divides by the mean",
    },
    facts={
        "ratio": "token, r_t",
        "band": "ratio in [1 - clip_low, 1 + clip_high]",
        "aggregation": "sum over tokens, divided by the tokens of the optimizer step",
        "advantage": "(reward - group mean) / group mean; 0 where the mean is not above 0; comparisons leave it, too",
        "kl": "none (stated)",
        "dual clip": "off unless dual_clip is set",
        "departures": "algorithm 1 is REINFORCE on fresh samples, a sum over tokens and a mean over responses; here, "
        "as in the authors' code, the ratio is clipped and the sum divided by tokens: there by those of each "
        "micro-batch, then averaged over micro-batches, here by those of the optimizer step. Their code adds 1e-6 to "
        "the mean. The paper covers rewards of 0 and 1 alone: a group whose mean is below 0 teaches nothing (ours)",
    },
)
