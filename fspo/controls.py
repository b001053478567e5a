"""Controls [ours]: what of FSPO's effect is the clip, and what is the weight of long responses."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from fspo.band import FSPOHyper
from fspo.objective import FSPO
from fspo.objective import surrogate as fspo_surrogate
from suite.arithmetic import per_token, sequence_log_ratio, sequence_surrogate, unclipped_only, weighted
from suite.types import Clip, Growth, Method, PolicyBatch, State, Surrogate


@dataclass(frozen=True)
class NoClipHyper:
    """Nothing to set."""


def surrogate_per_token(batch: PolicyBatch, hyper: FSPOHyper, state: State) -> Surrogate:
    """J_i = 1/L min(e^S A, e^clip(S, L mu - c_low sqrt(L), L mu + c_high sqrt(L)) A), mean over responses.

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
        "TRL": "RLOOConfig(beta=0.0, epsilon=1.0, epsilon_high=1e9)",
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
