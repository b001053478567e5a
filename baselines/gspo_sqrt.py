"""A control [ours]: GSPO's length-normalised ratio in FSPO's band, to tell the clip's shape from the normalisation."""

from __future__ import annotations

from dataclasses import dataclass

from baselines.gspo import GSPO
from baselines.hyper import GroupStd, RootBand
from baselines.rewards import standardised
from suite.arithmetic import exact_root, per_token, pessimistic_clip, sequence_log_ratio, sequence_surrogate
from suite.types import Clip, Growth, Level, Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class GSPOSqrtHyper(GroupStd, RootBand):
    """Hyper-parameters of the control."""

    c_low: float = knob(0.03, "ours: FSPO's width")
    c_high: float = knob(0.03, "ours: FSPO's width")


def surrogate(batch: PolicyBatch, hyper: GSPOSqrtHyper, state: State) -> Surrogate:
    """J_i = min(s A, e^clip(S/L, -c_low / sqrt(L), c_high / sqrt(L)) A) with s = e^(S/L), mean over responses.

    S leaves the same band as FSPO's with drift 0; the weight and the gradient are GSPO's. Source: ours.
    """
    lengths = batch.lengths[:, None]
    root = exact_root(lengths.clamp(min=1))
    log_ratio = per_token(sequence_log_ratio(batch), lengths)
    clip = pessimistic_clip(log_ratio, -hyper.c_low / root, hyper.c_high / root, batch.advantages)
    return sequence_surrogate(log_ratio, clip)


GSPO_SQRT = Method(
    name="gspo_sqrt",
    title="control: GSPO in a band that grows as sqrt(L)",
    source="ours, after arXiv 2507.18071 and 2509.09177",
    hyper=GSPOSqrtHyper(),
    credit=standardised,
    surrogate=surrogate,
    level=Level.SEQUENCE,
    clip=Clip.MIN,
    growth=Growth.ROOT,
    elsewhere={
        "TRL": "its epsilon is one number for every length: fspo.plugins.trl.SuiteTrainer with "
        "SuiteConfig(method='gspo_sqrt')",
        "verl": "not possible: clip_ratio_low and clip_ratio_high are one number for every length; add it with "
        "register_policy_loss, as fspo.plugins.verl does",
        "OpenRLHF": "not possible: --actor.eps_clip_low_high is one pair for every length",
    },
    facts={
        **GSPO.facts,
        "band": "S/L in [-c_low / sqrt(L), c_high / sqrt(L)]",
        "departures": "a control, in no paper [ours]",
    },
)
