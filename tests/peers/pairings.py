"""One comparison of ours with a peer, and where peers depart: the words in which tests/methods/NAME.py says it.

Standard library only: these files are read in our environment and in the peers' own.
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


# --- TRL --------------------------------------------------------------------------------------------


def trl(method: str, settings: Mapping[str, Any], entry: str = "GRPOTrainer", **rest: Any) -> Pairing:
    """A comparison with a trainer of TRL whose config holds these settings."""
    return Pairing(method, "trl", entry, settings, **rest)


def epsilons(low: float, high: float) -> dict[str, float]:
    """TRL's names for the two widths of a ratio's band."""
    return {"epsilon": low, "epsilon_high": high}


SEQUENCE = {"importance_sampling_level": "sequence"}
TRL_GSPO = {"loss_type": "grpo", **SEQUENCE}


# --- verl -------------------------------------------------------------------------------------------


def verl(method: str, entry: str, settings: Mapping[str, Any], **rest: Any) -> Pairing:
    """A comparison with a policy loss, a value loss or an advantage rule of verl with these settings."""
    return Pairing(method, "verl", entry, settings, **rest)


def clip_ratios(low: float, high: float) -> dict[str, float]:
    """verl's names for the two widths of a ratio's band."""
    return {"clip_ratio_low": low, "clip_ratio_high": high}


TOKEN_MEAN, PER_RESPONSE = {"loss_agg_mode": "token-mean"}, {"loss_agg_mode": "seq-mean-token-mean"}
RESPONSE_SUM = {"loss_agg_mode": "seq-mean-token-sum"}
CONSTANT = {"loss_agg_mode": "seq-mean-token-sum-norm", "loss_scale_factor": MAX_NEW_TOKENS}
NO_DUAL = {"clip_ratio_c": 1e12}
