"""GSPO: one length-normalised ratio a response."""

from __future__ import annotations

from dataclasses import dataclass

from baselines.grpo import credit
from baselines.ranges import RatioBand, require
from suite.arithmetic import pessimistic_clip, sequence_log_ratio, sequence_surrogate
from suite.types import Method, PolicyBatch, State, Surrogate, knob


@dataclass(frozen=True)
class GSPOHyper(RatioBand):
    """Hyper-parameters of GSPO with their provenance."""

    clip_low: float = knob(3e-4, "stated (arXiv 2507.18071 sec. 5.1); ScaleRL uses 3e-3")
    clip_high: float = knob(4e-4, "stated (arXiv 2507.18071 sec. 5.1); ScaleRL uses 4e-3")
    std_ddof: int = knob(1, "not stated; as GRPO")
    std_eps: float = knob(1e-4, "not stated; as GRPO")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.std_ddof in (0, 1), self, "std_ddof", "0 or 1")
        require(self.std_eps >= 0, self, "std_eps", "0 or more")


def surrogate(batch: PolicyBatch, hyper: GSPOHyper, state: State) -> Surrogate:
    """J_i = min(s A, clip(s, 1 - low, 1 + high) A) with s = e^(S/L), mean over responses.

    The band on S widens linearly with L. Source: arXiv 2507.18071v2 eq. 5 and 7.
    """
    log_ratio = sequence_log_ratio(batch) / batch.lengths[:, None]
    return sequence_surrogate(log_ratio, pessimistic_clip(log_ratio, hyper.log_low, hyper.log_high, batch.advantages))


GSPO = Method(
    name="gspo",
    title="GSPO, length-normalised sequence ratio",
    source="arXiv 2507.18071v2",
    hyper=GSPOHyper(),
    credit=credit,
    surrogate=surrogate,
    facts={
        "ratio": "sequence, e^(S/L)",
        "band": "ratio in [1 - clip_low, 1 + clip_high], so S in about [-clip_low L, clip_high L]",
        "aggregation": "mean over responses; the gradient carries 1/L through the ratio",
        "advantage": "(reward - group mean) / (group std + eps), as GRPO",
        "departures": "none known",
    },
)
