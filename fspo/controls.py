"""Controls [ours]: what of FSPO's effect is the clip, and what is the weight of long responses."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from fspo.band import FSPOHyper
from fspo.objective import FSPO
from fspo.objective import surrogate as fspo_surrogate
from suite.arithmetic import per_token, sequence_log_ratio, sequence_surrogate, unclipped_only, weighted
from suite.types import Clip, Growth, Method, PolicyBatch, State, Surrogate, knob, require


@dataclass(frozen=True)
class NoClipHyper:
    """How rewards are standardised; nothing is clipped."""

    std_ddof: int = knob(1, "not stated; torch's default in TRL and verl")
    std_eps: float = knob(1e-4, "not stated; TRL")

    def __post_init__(self) -> None:
        require(self.std_ddof in (0, 1), self, "std_ddof", "0 or 1")
        require(self.std_eps >= 0, self, "std_eps", "0 or more")


def surrogate_per_token(batch: PolicyBatch, hyper: FSPOHyper, state: State) -> Surrogate:
    """J_i = 1/L min(e^S A, e^clip(S, m - c_low sqrt(L), m + c_high sqrt(L)) A), mean over responses.

    FSPO's band with GSPO's weight of a response: its gradient is divided by L. Source: ours.
    """
    whole = fspo_surrogate(batch, hyper, state)
    parts = {name: per_token(getattr(whole, name), batch.lengths) for name in ("objective", "unclipped")}
    return dataclasses.replace(whole, **parts)


def surrogate_no_clip(batch: PolicyBatch, hyper: NoClipHyper, state: State) -> Surrogate:
    """J_i = e^S A, mean over responses: what every band of a sequence ratio is a correction of. Source: ours."""
    log_ratio = sequence_log_ratio(batch)
    return sequence_surrogate(log_ratio, unclipped_only(weighted(log_ratio, batch.advantages.detach())))


FSPO_PER_TOKEN = dataclasses.replace(
    FSPO,
    name="fspo_per_token",
    title="control: FSPO divided by the length",
    source="ours, after arXiv 2509.09177",
    hyper=FSPOHyper(c_low=0.03, c_high=0.03),
    surrogate=surrogate_per_token,
    elsewhere=dict.fromkeys(FSPO.elsewhere, "not possible: a control of ours"),
    facts={
        **FSPO.facts,
        "aggregation": "a response's objective divided by its length, mean over responses",
        "departures": "a control, in no paper [ours]",
    },
)
NO_CLIP = Method(
    name="no_clip",
    title="control: the sequence ratio without any clip",
    source="ours",
    hyper=NoClipHyper(),
    credit=FSPO.credit,
    surrogate=surrogate_no_clip,
    level=FSPO.level,
    clip=Clip.NONE,
    growth=Growth.NONE,
    elsewhere={
        "TRL": "RLOOConfig(beta=0.0, epsilon=1.0, epsilon_high=1e9), with the mean of the others for a baseline",
        "verl": "as reinforce with loss_mode=bypass_mode, and "
        "+actor_rollout_ref.actor.policy_loss.rollout_correction.{loss_type=reinforce,rollout_is=sequence,"
        "rollout_is_threshold=1e9}",
        "OpenRLHF": "not possible: no ratio e^S in PolicyLoss",
    },
    facts={
        **FSPO.facts,
        "band": "none",
        "dual clip": "none",
        "departures": "a control, in no paper [ours]",
    },
)
