"""VESPO, arXiv 2602.10693: sg[phi(W)] A sum over tokens of log pi(y_t), W = e^S, mean over responses.

phi(W) = W^k e^(lambda (1 - W)), with k and lambda of the advantage's sign. Soft: nothing is clipped.
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, Term, exp, log_prob_sum, log_ratio_sum, of_sequence, times
from methods.advantages import standardised_credit
from methods.facts import INFINITY, NAN, STD_MISTAKES, STD_VARIANTS, Mutant, slope_of_sum, without_state
from peers.pairings import Departure, trl

DIVISOR = "responses"
credit = standardised_credit


def log_phi(total: float, hyper: Any, advantage: float) -> float:
    """ln phi(e^S) = k S + lambda (1 - e^S)."""
    if advantage > 0:
        return hyper.k_pos * total + hyper.lambda_pos * (1 - exp(total))
    return hyper.k_neg * total + hyper.lambda_neg * (1 - exp(total))


def response(row: Row, hyper: Any, state: State, frozen: Row | None = None) -> Response:
    """One number from the whole response; W is the frozen row's. 0 for an empty response, which has no log pi."""
    total, advantage = log_ratio_sum(row if frozen is None else frozen), row.advantages[0]
    score = advantage * log_prob_sum(row)
    return of_sequence(
        row,
        Term(
            log_weight=total,
            objective=times(exp(log_phi(total, hyper, advantage)), score),
            unclipped=times(exp(total), score),
        ),
    )


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"k_pos": 2.0, "lambda_pos": 3.0, "k_neg": 3.0, "lambda_neg": 2.0, "std_ddof": 1, "std_eps": 1e-4}
MISTAKES = [{"k_pos": 0.0}, {"lambda_pos": -1.0}, {"k_neg": NAN}, {"lambda_neg": INFINITY}, *STD_MISTAKES]
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = without_state({}, {"k_pos": 1.3, "lambda_pos": 0.7, "k_neg": 0.2, "lambda_neg": 4.1})
CREDIT_VARIANTS = STD_VARIANTS
PAIRINGS = [
    trl(
        "vespo",
        {"loss_type": "vespo"},
        departure=Departure("the sum is divided by the tokens of the step, not by its responses", divisor="tokens"),
    ),
    trl(
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
]
MUTANTS = [
    Mutant(
        "weight keeps its gradient",
        "baselines/vespo.py",
        "sequence_log_ratio(batch).detach(), batch.advantages.detach()",
        "sequence_log_ratio(batch), batch.advantages.detach()",
    ),
    Mutant(
        "weight grows instead of fading",
        "baselines/vespo.py",
        "log_phi = k * log_ratio - fade * torch.expm1(log_ratio)",
        "log_phi = k * log_ratio + fade * torch.expm1(log_ratio)",
    ),
]
