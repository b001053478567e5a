"""GRPO: token ratios, group-standardised rewards, every response divided by its own length."""

from __future__ import annotations

import math
from dataclasses import dataclass

from baselines.ranges import RatioBand, require
from suite.advantages import group_standardised
from suite.arithmetic import masked, pessimistic_clip, token_log_ratio
from suite.types import Credit, CreditInput, Divisor, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class GRPOHyper(RatioBand):
    """Hyper-parameters of GRPO with their provenance."""

    clip_low: float = knob(0.2, "default (TRL, verl)")
    clip_high: float = knob(0.2, "default (TRL, verl); GSPO's tuned baseline uses 0.27")
    dual_clip: float | None = knob(None, "off; 3 is verl's default")
    std_ddof: int = knob(1, "not stated; torch's default in TRL and verl")
    std_eps: float = knob(1e-4, "not stated; TRL")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.dual_clip is None or self.dual_clip > 1 + self.clip_high, self, "dual_clip", "above 1 + clip_high")
        require(self.std_ddof in (0, 1), self, "std_ddof", "0 or 1")
        require(self.std_eps >= 0, self, "std_eps", "0 or more")


def credit(seen: CreditInput, hyper: GRPOHyper) -> Credit:
    """Reward standardised within its group, [N, 1]."""
    advantages = group_standardised(seen.rewards, seen.group_ids, ddof=hyper.std_ddof, eps=hyper.std_eps)
    return Credit(advantages[:, None])


def surrogate(batch: PolicyBatch, hyper: GRPOHyper, state: State) -> Surrogate:
    """J_i = 1/L sum_t min(r_t A, clip(r_t, 1 - low, 1 + high) A), mean over responses.

    Source: arXiv 2402.03300v3 eq. 3.
    """
    log_ratio, mask = token_log_ratio(batch), batch.response_mask
    dual = None if hyper.dual_clip is None else math.log(hyper.dual_clip)
    tokens = pessimistic_clip(log_ratio, hyper.log_low, hyper.log_high, batch.advantages, dual)
    return Surrogate(
        objective=masked(tokens.objective, mask).sum(dim=1) / batch.lengths,
        unclipped=masked(tokens.unclipped, mask).sum(dim=1) / batch.lengths,
        log_weight=log_ratio,
        outside_band=tokens.outside_band & mask,
        clipped=tokens.clipped & mask,
        divisor=Divisor.RESPONSES,
    )


GRPO = Method(
    name="grpo",
    title="GRPO, token ratio with group-standardised rewards",
    source="arXiv 2402.03300v3",
    hyper=GRPOHyper(),
    credit=credit,
    surrogate=surrogate,
    facts={
        "ratio": "token, r_t",
        "band": "ratio in [1 - clip_low, 1 + clip_high]",
        "aggregation": "mean over the tokens of a response, then over responses",
        "advantage": "(reward - group mean) / (group std + eps)",
        "departures": "no KL term by default; add it with kl_coefficient for every method alike",
    },
)
