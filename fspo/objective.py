"""FSPO: the sequence ratio, clipped in a band that grows as sqrt(L), with a KL-corrected drift or without one."""

from __future__ import annotations

import dataclasses

from fspo.band import FSPOHyper, band, observe
from suite.advantages import group_standardised
from suite.arithmetic import pessimistic_clip, sequence_log_ratio, sequence_surrogate
from suite.types import Clip, Credit, CreditInput, Growth, Level, Method, PolicyBatch, State, Surrogate


def credit(seen: CreditInput, hyper: FSPOHyper) -> Credit:
    """(R - group mean) / (group std + eps), [N, 1], as in GRPO and GSPO [ours; the paper's rule is not public]."""
    return Credit(group_standardised(seen.rewards, seen.group_ids, ddof=hyper.std_ddof, eps=hyper.std_eps)[:, None])


def surrogate(batch: PolicyBatch, hyper: FSPOHyper, state: State) -> Surrogate:
    """J_i = min(e^S A, e^clip(S, m - c_low sqrt(L), m + c_high sqrt(L)) A), mean over responses.

    m = L mu: mu = 0, a number, or minus the running KL(pi_old || pi_theta) per token of earlier updates (k3 of the
    responses inside their bands, decayed), then m >= -drift_cap min(c_low, c_high) sqrt(L). With c_dual, a response
    with A < 0 weighs at most e^(m + c_dual sqrt(L)) [ours].
    Source: arXiv 2509.09177 (mu = 0 by a third party that cites its eq. 3-5; every other drift is ours).
    """
    log_ratio = sequence_log_ratio(batch)
    low, high, ceiling = band(batch.lengths[:, None], hyper, state)
    return sequence_surrogate(log_ratio, pessimistic_clip(log_ratio, low, high, batch.advantages, ceiling))


FSPO = Method(
    name="fspo",
    title="FSPO, sequence ratio in a sqrt(L) band with a KL-corrected drift",
    source="arXiv 2509.09177v1, reconstructed",
    hyper=FSPOHyper(),
    credit=credit,
    surrogate=surrogate,
    observe=observe,
    level=Level.SEQUENCE,
    clip=Clip.MIN,
    growth=Growth.ROOT,
    observe_first=lambda hyper: hyper.drift == "batch",
    reads_state=lambda hyper: hyper.drift in ("kl", "batch", "ema") or hyper.target_clip_rate is not None,
    elsewhere={
        "TRL": "fspo.plugins.trl.FSPOTrainer with FSPOConfig(fspo_c_low=0.03, fspo_c_high=0.03)",
        "verl": "not possible: the running KL needs whole optimizer steps, verl's losses see micro-batches; "
        "fspo_zero_drift is",
        "OpenRLHF": "not possible: PolicyLoss has only ppo and gspo, with one eps_clip for every length",
    },
    facts={
        "ratio": "sequence, e^S",
        "band": "S in [m - c_low sqrt(L), m + c_high sqrt(L)], m = L mu >= -drift_cap min(c_low, c_high) sqrt(L)",
        "aggregation": "mean over responses, no division by length",
        "advantage": "(reward - group mean) / (group std + eps); ddof and eps are knobs [ours]",
        "kl": "none; train.kl_coefficient adds k3 to the start for every method alike",
        "dual clip": "off unless c_dual is set: weight at most e^(m + c_dual sqrt(L)) for A < 0 [ours]",
        "departures": "form of the drift, advantage, dual clip and target clip rate are ours: the paper's body was not "
        "available",
    },
)
FSPO_ZERO_DRIFT = dataclasses.replace(
    FSPO,
    name="fspo_zero_drift",
    title="FSPO without drift, as the paper's v3 simplifies it",
    source="arXiv 2509.09177v3, reconstructed",
    hyper=FSPOHyper(drift="zero"),
    elsewhere={
        **FSPO.elsewhere,
        "TRL": "fspo.plugins.trl.FSPOTrainer with FSPOConfig(fspo_drift='zero')",
        "verl": "algorithm.adv_estimator=grpo actor_rollout_ref.model.external_lib=fspo.plugins.verl "
        "actor_rollout_ref.actor.policy_loss.loss_mode=fspo_zero_drift",
    },
    facts={
        **FSPO.facts,
        "band": "S in [-c_low sqrt(L), c_high sqrt(L)]",
        "departures": "advantage, dual clip and target clip rate are ours: the paper's body was not available",
    },
)
FSPO_ASYMMETRIC = dataclasses.replace(
    FSPO,
    name="fspo_asymmetric",
    title="FSPO with a band twice as wide above as below",
    source="arXiv 2509.09177v1, reconstructed; widths of arXiv 2605.07331",
    hyper=FSPOHyper(c_low=0.025, c_high=0.05),
    elsewhere={
        **FSPO.elsewhere,
        "TRL": "fspo.plugins.trl.FSPOTrainer with FSPOConfig(fspo_c_low=0.025, fspo_c_high=0.05)",
    },
)
FSPO_DUAL_CLIP = dataclasses.replace(
    FSPO,
    name="fspo_dual_clip",
    title="FSPO with a dual clip at twice its upper width",
    source="arXiv 2509.09177v1, reconstructed; the form of the dual clip is ours",
    hyper=FSPOHyper(c_dual=0.06),
    elsewhere={**FSPO.elsewhere, "TRL": "fspo.plugins.trl.FSPOTrainer with FSPOConfig(fspo_c_dual=0.06)"},
    facts={**FSPO.facts, "dual clip": "weight at most e^(m + c_dual sqrt(L)) for A < 0 [ours]"},
)
