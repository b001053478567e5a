"""FSPO: the sequence ratio, clipped in a band that is centred on the drift and grows as sqrt(L)."""

from __future__ import annotations

from fspo.band import FSPOHyper, band, observe
from suite.advantages import leave_one_out
from suite.arithmetic import pessimistic_clip, sequence_log_ratio, sequence_surrogate
from suite.types import Clip, Credit, CreditInput, Growth, Level, Method, PolicyBatch, State, Surrogate


def credit(seen: CreditInput, hyper: FSPOHyper) -> Credit:
    """Reward minus the mean reward of the group's other samples, [N, 1] [ours; the paper's rule is not public]."""
    return Credit(leave_one_out(seen.rewards, seen.group_ids)[:, None])


def surrogate(batch: PolicyBatch, hyper: FSPOHyper, state: State) -> Surrogate:
    """J_i = min(e^S A, e^clip(S, L mu - c_low sqrt(L), L mu + c_high sqrt(L)) A), mean over responses.

    With c_dual, a response with A < 0 weighs at most e^(L mu + c_dual sqrt(L)) [ours].
    Source: arXiv 2509.09177 (mu = 0 by a third party that cites its eq. 3-5; every other drift is ours).
    """
    log_ratio = sequence_log_ratio(batch)
    low, high, ceiling = band(batch.lengths[:, None], hyper, state)
    return sequence_surrogate(log_ratio, pessimistic_clip(log_ratio, low, high, batch.advantages, ceiling))


FSPO = Method(
    name="fspo",
    title="FSPO, sequence ratio with a drift-centred sqrt(L) band",
    source="arXiv 2509.09177v1 and v3, reconstructed",
    hyper=FSPOHyper(),
    credit=credit,
    surrogate=surrogate,
    observe=observe,
    observe_first=lambda hyper: hyper.drift == "batch",
    level=Level.SEQUENCE,
    clip=Clip.MIN,
    growth=Growth.ROOT,
    reads_state=lambda hyper: hyper.drift in ("batch", "ema") or hyper.target_clip_rate is not None,
    elsewhere={
        "TRL": "fspo.plugins.trl.FSPOTrainer with FSPOConfig(fspo_c_low=0.03, fspo_c_high=0.03)",
        "verl": "algorithm.adv_estimator=rloo actor_rollout_ref.model.external_lib=fspo.plugins.verl "
        "actor_rollout_ref.actor.policy_loss.loss_mode=fspo",
        "OpenRLHF": "not possible: PolicyLoss has only ppo and gspo, with one eps_clip for every length",
    },
    facts={
        "ratio": "sequence, e^S",
        "band": "S in [L mu - c_low sqrt(L), L mu + c_high sqrt(L)]",
        "aggregation": "mean over responses, no division by length",
        "advantage": "reward minus the mean of the group's others [ours]",
        "kl": "none; train.kl_coefficient adds k3 to the start for every method alike",
        "dual clip": "off unless c_dual is set: weight at most e^(L mu + c_dual sqrt(L)) for A < 0 [ours]",
        "departures": "drift rules, dual clip and target clip rate are ours; the paper's body was not available",
    },
)
