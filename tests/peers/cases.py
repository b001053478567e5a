"""Which method of ours is compared with which function of which peer, with which settings, and where peers depart.

Standard library only: this file is read in our environment and in the peers' own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from peers.batches import MAX_NEW_TOKENS, REGULAR

ORDINARY = tuple(REGULAR)
POLICY, VALUE, ADVANTAGE = "policy", "value", "advantage"


@dataclass(frozen=True)
class Departure:
    """What a peer does otherwise, in one sentence, and the one change of ours that makes the numbers agree again.

    method: another method of ours in place of this one; hyper: hyper-parameters of ours; divisor: what the summed
    objectives are divided by; weights: what each objective is multiplied by first; inputs, outputs: a correction of
    `peers.ours` applied to the batch or to the advantages.
    """

    sentence: str
    method: str | None = None
    hyper: Mapping[str, Any] = field(default_factory=dict)
    divisor: str | None = None
    weights: str | None = None
    inputs: str | None = None
    outputs: str | None = None


@dataclass(frozen=True)
class Pairing:
    """One method of ours with its hyper-parameters changed, and one function of a peer with its settings."""

    method: str
    peer: str
    entry: str
    settings: Mapping[str, Any]
    hyper: Mapping[str, Any] = field(default_factory=dict)
    target: str = POLICY
    per_token: bool = False
    variant: str = ""
    batches: tuple[str, ...] = ORDINARY
    departure: Departure | None = None

    @property
    def id(self) -> str:
        """Names the comparison in the fixtures and in the tests."""
        kind = "" if self.target == POLICY else f"-{self.target}"
        return f"{self.method}{kind}-{self.peer}" + (f"-{self.variant}" if self.variant else "")


def _trl(method: str, settings: Mapping[str, Any], entry: str = "GRPOTrainer", **rest: Any) -> Pairing:
    return Pairing(method, "trl", entry, settings, **rest)


def _band(low: float, high: float) -> dict[str, float]:
    return {"epsilon": low, "epsilon_high": high}


SEQUENCE = {"importance_sampling_level": "sequence"}
GSPO_BAND, GSPO_WIDE_BAND, LUSPO_BAND = _band(3e-4, 4e-4), _band(3e-3, 4e-3), _band(2e-3, 2.5e-3)
TRL_GSPO = {"loss_type": "grpo", **SEQUENCE}

TRL: tuple[Pairing, ...] = (
    _trl("ppo", {"loss_type": "dapo", **_band(0.2, 0.2)}, hyper={"dual_clip": None}, per_token=True),
    _trl("rloo", _band(0.2, 0.2), "RLOOTrainer"),
    _trl("no_clip", _band(1e12, 1e12), "RLOOTrainer"),
    _trl("grpo", {"loss_type": "grpo", **_band(0.2, 0.2)}, batches=(*ORDINARY, "far", "empty")),
    _trl(
        "grpo",
        {"loss_type": "grpo", **_band(0.2, 0.28), "delta": 3.0},
        variant="delta",
        hyper={"clip_high": 0.28, "dual_clip": 3.0},
    ),
    _trl(
        "grpo",
        {"loss_type": "grpo", **_band(0.2, 0.2), "delta": 1.1},
        variant="low-delta",
        departure=Departure(
            "`delta` caps the ratio for both signs of A: below 1 + epsilon_high it also lowers the band for A > 0, "
            "and A < 0 is cut at 1 + epsilon_high (our dual_clip refuses such a value)",
            hyper={"clip_high": 0.1, "dual_clip": 1.2},
        ),
    ),
    _trl("dr_grpo", {"loss_type": "dr_grpo", "max_completion_length": MAX_NEW_TOKENS, **_band(0.2, 0.2)}),
    _trl("dapo", {"loss_type": "dapo", **_band(0.2, 0.28), "delta": 10.0}),
    _trl("dapo", {"loss_type": "bnpo", **_band(0.2, 0.28), "delta": 10.0}, variant="bnpo"),
    _trl("gspo", {**TRL_GSPO, **GSPO_BAND}),
    _trl("gspo_wide", {**TRL_GSPO, **GSPO_WIDE_BAND}),
    _trl("gspo_token", {**TRL_GSPO, **GSPO_BAND}),
    _trl("luspo", {"loss_type": "luspo", **SEQUENCE, **LUSPO_BAND}),
    _trl(
        "luspo",
        {"loss_type": "luspo", **LUSPO_BAND},
        variant="token-level",
        departure=Departure(
            "loss_type 'luspo' keeps the config's default importance_sampling_level 'token', which is another method: "
            "dr_grpo's sum, over responses; 'sequence' must be set beside it",
            method="dr_grpo",
            hyper={"clip_low": 2e-3, "clip_high": 2.5e-3},
            divisor="responses",
        ),
    ),
    _trl("gmpo", _band(0.4, 0.4), "GMPOTrainer"),
    _trl("cispo", {"loss_type": "cispo", "epsilon_high": 5.0}),
    _trl(
        "sapo",
        {"loss_type": "sapo", "sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.0625},
        hyper={"tau_neg": 1.0625},
    ),
    _trl(
        "sapo",
        {"loss_type": "sapo", "sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05},
        variant="rounded",
        departure=Departure(
            "temperatures pass through float32: 1.05 becomes 1.0499999523", hyper={"tau_neg": 1.0499999523162842}
        ),
    ),
    _trl(
        "vespo",
        {"loss_type": "vespo"},
        departure=Departure("the sum is divided by the tokens of the step, not by its responses", divisor="tokens"),
    ),
    _trl(
        "vespo",
        {"loss_type": "vespo"},
        variant="sunk",
        batches=("sunk",),
        departure=Departure(
            "S is clamped from below at log 1e-8 before phi is taken, and the sum is divided by tokens (from above, S "
            "is clamped at 20, where phi is 0 either way)",
            divisor="tokens",
            inputs="sequence_floor",
        ),
    ),
)


def _verl(method: str, entry: str, settings: Mapping[str, Any], **rest: Any) -> Pairing:
    return Pairing(method, "verl", entry, settings, **rest)


def _clip(low: float, high: float) -> dict[str, float]:
    return {"clip_ratio_low": low, "clip_ratio_high": high}


TOKEN_MEAN, PER_RESPONSE = {"loss_agg_mode": "token-mean"}, {"loss_agg_mode": "seq-mean-token-mean"}
RESPONSE_SUM = {"loss_agg_mode": "seq-mean-token-sum"}
CONSTANT = {"loss_agg_mode": "seq-mean-token-sum-norm", "loss_scale_factor": MAX_NEW_TOKENS}
NO_DUAL = {"clip_ratio_c": 1e12}
CLAMPED = "token log ratios are clamped to [-20, 20], which bounds A < 0 at e^20 A with no gradient beyond"
PLAIN_GRPO = {**PER_RESPONSE, **_clip(0.2, 0.2), **NO_DUAL}

VERL_POLICY: tuple[Pairing, ...] = (
    _verl(
        "ppo",
        "vanilla",
        {**TOKEN_MEAN, **_clip(0.2, 0.2), "clip_ratio_c": 3.0},
        per_token=True,
        hyper={"dual_clip": 3.0},
    ),
    _verl("grpo", "vanilla", PLAIN_GRPO),
    _verl(
        "grpo",
        "vanilla",
        {**PER_RESPONSE, **_clip(0.2, 0.2)},
        variant="default",
        departure=Departure(
            "dual clip cannot be turned off and is 3 by default (clip_ratio_c); ours is off by default",
            hyper={"dual_clip": 3.0},
        ),
    ),
    _verl(
        "grpo",
        "vanilla",
        PLAIN_GRPO,
        variant="far",
        batches=("far",),
        departure=Departure(CLAMPED, inputs="token_clamp"),
    ),
    _verl("grpo", "vanilla", {**PLAIN_GRPO, "global_batch_size": 6}, variant="counted", batches=("empty",)),
    _verl(
        "grpo",
        "vanilla",
        PLAIN_GRPO,
        variant="empty",
        batches=("empty",),
        departure=Departure(
            "without global_batch_size the seq-mean modes leave responses without tokens out of the count of responses",
            divisor="nonempty",
        ),
    ),
    _verl("dr_grpo", "vanilla", {**CONSTANT, **_clip(0.2, 0.2), **NO_DUAL}),
    _verl(
        "dr_grpo",
        "vanilla",
        {**CONSTANT, "loss_scale_factor": None, **_clip(0.2, 0.2), **NO_DUAL},
        variant="width",
        departure=Departure(
            "without loss_scale_factor seq-mean-token-sum-norm divides by the batch's padded width", divisor="width"
        ),
    ),
    _verl("dapo", "vanilla", {**TOKEN_MEAN, **_clip(0.2, 0.28), "clip_ratio_c": 10.0}),
    _verl("gspo", "gspo", {**PER_RESPONSE, **_clip(3e-4, 4e-4)}),
    _verl(
        "gspo",
        "gspo",
        {**TOKEN_MEAN, **_clip(3e-4, 4e-4)},
        variant="default",
        departure=Departure(
            "the config's default loss_agg_mode 'token-mean' weighs every response by its length",
            divisor="tokens",
            weights="lengths",
        ),
    ),
    _verl(
        "gspo",
        "gspo",
        {**PER_RESPONSE, **_clip(3e-4, 4e-4)},
        variant="far",
        batches=("far",),
        departure=Departure(
            "the mean log ratio is clamped from above at 10, which bounds A < 0 at e^10 A with no gradient beyond",
            inputs="mean_ceiling",
        ),
    ),
    _verl("gspo_wide", "gspo", {**PER_RESPONSE, **_clip(3e-3, 4e-3)}),
    _verl("gspo_token", "gspo", {**PER_RESPONSE, **_clip(3e-4, 4e-4)}),
    _verl("gmpo", "geo_mean", _clip(0.4, 0.4)),
    _verl("cispo", "cispo", {**TOKEN_MEAN, **_clip(1.0, 4.0)}),
    _verl(
        "cispo",
        "cispo",
        {**TOKEN_MEAN, **_clip(0.2, 4.0)},
        variant="floor",
        departure=Departure(
            "the weight is also bounded from below, at 1 - clip_ratio_low (.8 by default); the upper bound is "
            "1 + clip_ratio_high",
            inputs="weight_floor",
        ),
    ),
    _verl("sapo", "sapo", {"tau_pos": 1.0, "tau_neg": 1.05}),
    _verl("dppo_tv", "dppo_tv", {**CONSTANT, **_clip(0.15, 0.15), "clip_ratio_c": 20.0}),
    _verl(
        "dppo_tv",
        "dppo_tv",
        {**CONSTANT, **_clip(0.15, 0.15)},
        variant="default",
        departure=Departure(
            "ActorConfig always hands over clip_ratio_c, by default 3, so the weight is cut at 3 where the function's "
            "own default would be 20",
            hyper={"max_weight": 3.0},
        ),
    ),
    _verl("dppo_kl", "dppo_kl", {**CONSTANT, **_clip(0.05, 0.05), "clip_ratio_c": 20.0}),
    _verl(
        "dppo_kl",
        "dppo_kl",
        {**CONSTANT, **_clip(0.05, 0.05)},
        variant="default",
        departure=Departure("as dppo_tv: the weight is cut at 3 unless clip_ratio_c is set", hyper={"max_weight": 3.0}),
    ),
    _verl(
        "dppo_kl",
        "dppo_kl",
        {**CONSTANT, **_clip(0.05, 0.05), "clip_ratio_c": 20.0},
        variant="certain",
        batches=("certain",),
        departure=Departure(
            "1e-8 is added to 1 - q and 1 - p inside the binary KL, so a token that becomes certain can stay "
            "unmasked (here ours follows with a delta that lets this token pass)",
            hyper={"delta": 0.1},
        ),
    ),
    _verl("reinforce", "gpg", RESPONSE_SUM),
)

GROUP_OF_ONE = "a group of one keeps its reward as the advantage (/ (1 + 1e-6)); ours is 0"
VERL_REST: tuple[Pairing, ...] = (
    _verl("ppo", "compute_value_loss", {"cliprange_value": 0.2}, target=VALUE),
    _verl("ppo", "gae", {"gamma": 1.0, "lam": 1.0}, target=ADVANTAGE, variant="returns", hyper={"whiten": False}),
    _verl(
        "ppo",
        "gae",
        {"gamma": 0.97, "lam": 0.9},
        target=ADVANTAGE,
        variant="discounted-returns",
        hyper={"whiten": False, "gamma": 0.97, "gae_lambda": 0.9},
    ),
    _verl(
        "ppo",
        "gae",
        {"gamma": 0.97, "lam": 0.9},
        target=ADVANTAGE,
        hyper={"gamma": 0.97, "gae_lambda": 0.9},
        departure=Departure(
            "advantages are whitened with the unbiased variance, and 1e-8 is added to the variance", outputs="unbiased"
        ),
    ),
    _verl("grpo", "grpo", {}, target=ADVANTAGE, hyper={"std_eps": 1e-6}),
    _verl(
        "grpo",
        "grpo",
        {},
        target=ADVANTAGE,
        variant="default",
        departure=Departure("1e-6 is added to the standard deviation, ours is 1e-4", hyper={"std_eps": 1e-6}),
    ),
    _verl(
        "grpo",
        "grpo",
        {},
        target=ADVANTAGE,
        variant="single",
        hyper={"std_eps": 1e-6},
        batches=("single",),
        departure=Departure(GROUP_OF_ONE, outputs="lone_reward"),
    ),
    _verl("dr_grpo", "grpo", {"norm_adv_by_std_in_grpo": False}, target=ADVANTAGE),
    _verl("rloo", "rloo", {}, target=ADVANTAGE),
    _verl("rloo", "rloo_vectorized", {}, target=ADVANTAGE, variant="vectorized"),
)

PAIRINGS: dict[str, Pairing] = {p.id: p for p in (*TRL, *VERL_POLICY, *VERL_REST)}
PEERS = ("trl", "verl")
WITHOUT_PEER = ("fspo", "fspo_per_token", "gspo_sqrt", "ctpo")
"""Methods of ours that neither TRL 1.16 nor verl 0.9.1 has."""


def of_peer(peer: str) -> list[Pairing]:
    """The comparisons with one peer."""
    return [p for p in PAIRINGS.values() if p.peer == peer]
