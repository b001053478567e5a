"""A control: e^S A, mean over responses. RLOO with a sequence ratio (arXiv 2402.14740) that nothing clips."""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, Term, exp, log_ratio_sum, of_sequence, times
from methods.advantages import standardised_credit
from methods.facts import STD_MISTAKES, STD_VARIANTS, Mutant, slope_of_sum, without_state
from peers.pairings import epsilons, trl

DIVISOR = "responses"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """One number from the whole response."""
    total = log_ratio_sum(row)
    weighed = times(exp(total), row.advantages[0])
    return of_sequence(row, Term(log_weight=total, objective=weighed, unclipped=weighed))


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"std_ddof": 1, "std_eps": 1e-4}
MISTAKES = STD_MISTAKES
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = without_state({})
CREDIT_VARIANTS = STD_VARIANTS
PAIRINGS = [
    trl("no_clip", epsilons(1e12, 1e12), "RLOOTrainer"),
]
MUTANTS = [
    Mutant(
        "length-normalised ratio",
        "fspo/controls.py",
        "log_ratio = sequence_log_ratio(batch)",
        "log_ratio = per_token(sequence_log_ratio(batch), batch.lengths[:, None])",
    ),
    Mutant(
        "advantages keep their gradient",
        "fspo/controls.py",
        "weighted(log_ratio, batch.advantages.detach())",
        "weighted(log_ratio, batch.advantages)",
        check="gradient reaches the new log-probs only",
    ),
]
