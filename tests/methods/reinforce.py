"""REINFORCE: A sum over tokens of log pi(y_t), mean over responses.

No ratio, so the weight is 1 and nothing is clipped. Baseline: the mean reward of the others in the group (2402.14740).
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, Term, log_prob_sum, of_sequence
from methods.advantages import leave_one_out_credit
from methods.facts import NO_CREDIT_VARIANTS, Changes, Mutant, slope_of_sum, without_state
from peers.pairings import RESPONSE_SUM, verl

DIVISOR = "responses"
credit = leave_one_out_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """One number from the whole response."""
    score = row.advantages[0] * log_prob_sum(row)
    return of_sequence(row, Term(log_weight=0.0, objective=score, unclipped=score))


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS: Changes = {}
MISTAKES: list[Changes] = []
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = without_state({})
CREDIT_VARIANTS = NO_CREDIT_VARIANTS
PAIRINGS = [
    verl("reinforce", "gpg", RESPONSE_SUM),
]
MUTANTS = [
    Mutant(
        "mean of the tokens for their sum",
        "baselines/reinforce.py",
        "log_prob = response_log_prob(batch)",
        "log_prob = response_log_prob(batch) / batch.lengths[:, None].clamp(min=1)",
    ),
    Mutant(
        "advantages keep their gradient",
        "baselines/reinforce.py",
        "batch.advantages.detach() * log_prob",
        "batch.advantages * log_prob",
        check="gradient reaches the new log-probs only",
    ),
]
