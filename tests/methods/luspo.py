"""LUSPO, arXiv 2602.05261: L min(s A, clip(s, 1 - low, 1 + high) A), s = e^(S/L), mean over responses.

GSPO's number times the length, so a token of a long response teaches as much as one of a short one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from methods import Response, Row, State, counted, gspo
from methods.advantages import standardised_credit
from methods.facts import RATIO_MISTAKES, RATIO_VARIANTS, STD_MISTAKES, STD_VARIANTS, Mutant, slope_of_sum
from peers.pairings import SEQUENCE, Departure, epsilons, trl

DIVISOR = "responses"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """L times GSPO's number: 0 for an empty response."""
    length, found = len(counted(row.mask)), gspo.response(row, hyper, state)
    return replace(found, objective=length * found.objective, unclipped=length * found.unclipped)


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"clip_low": 2e-3, "clip_high": 2.5e-3, "std_ddof": 1, "std_eps": 1e-4}
MISTAKES = [*RATIO_MISTAKES, *STD_MISTAKES]
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = RATIO_VARIANTS
CREDIT_VARIANTS = STD_VARIANTS
PAIRINGS = [
    trl("luspo", {"loss_type": "luspo", **SEQUENCE, **epsilons(2e-3, 2.5e-3)}),
    trl(
        "luspo",
        {"loss_type": "luspo", **epsilons(2e-3, 2.5e-3)},
        variant="token-level",
        departure=Departure(
            "loss_type 'luspo' keeps the config's default importance_sampling_level 'token', which is another method: "
            "dr_grpo's sum, over responses; 'sequence' must be set beside it",
            method="dr_grpo",
            hyper={"clip_low": 2e-3, "clip_high": 2.5e-3},
            divisor="responses",
        ),
    ),
]
MUTANTS = [
    Mutant(
        "times the padded width",
        "baselines/luspo.py",
        "objective=lengths * clip.objective",
        "objective=batch.response_mask.shape[1] * clip.objective",
    ),
    Mutant(
        "not times the length",
        "baselines/luspo.py",
        "return sequence_surrogate(log_ratio, longer)",
        "return sequence_surrogate(log_ratio, clip)",
    ),
]
