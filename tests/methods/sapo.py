"""SAPO, arXiv 2511.20347: (1/L) sum over tokens of (4 / tau) sigmoid(tau (r_t - 1)) A, mean over responses.

tau = tau_pos for A > 0, else tau_neg. A soft gate: nothing is clipped and nothing has a kink.
"""

from __future__ import annotations

from typing import Any

from methods import Response, Row, State, Term, counted, exp, log_ratio, of_tokens, per_token, times
from methods.advantages import standardised_credit
from methods.facts import NAN, STD_MISTAKES, STD_VARIANTS, Mutant, slope_of_mean, without_state
from peers.pairings import Departure, trl, verl

DIVISOR = "responses"
credit = standardised_credit


def sigmoid(z: float) -> float:
    """1 / (1 + e^-z)."""
    return 1 / (1 + exp(-z))


def response(row: Row, hyper: Any, state: State) -> Response:
    """The mean over the response's tokens."""
    advantage = row.advantages[0]
    tau = hyper.tau_pos if advantage > 0 else hyper.tau_neg
    terms = {}
    for t in counted(row.mask):
        x = log_ratio(row, t)
        gate = 4 / tau * sigmoid(tau * (exp(x) - 1))
        terms[t] = Term(log_weight=x, objective=gate * advantage, unclipped=times(exp(x), advantage))
    return per_token(row, of_tokens(row, terms))


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"tau_pos": 1.0, "tau_neg": 1.05, "std_ddof": 1, "std_eps": 1e-4}
MISTAKES = [{"tau_pos": 0.0}, {"tau_neg": -1.0}, {"tau_neg": NAN}, *STD_MISTAKES]
ON_POLICY_SLOPE = slope_of_mean
VARIANTS = without_state({}, {"tau_pos": 0.3, "tau_neg": 2.1})
CREDIT_VARIANTS = STD_VARIANTS
PAIRINGS = [
    trl(
        "sapo",
        {"loss_type": "sapo", "sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.0625},
        hyper={"tau_neg": 1.0625},
    ),
    trl(
        "sapo",
        {"loss_type": "sapo", "sapo_temperature_pos": 1.0, "sapo_temperature_neg": 1.05},
        variant="rounded",
        departure=Departure(
            "temperatures pass through float32: 1.05 becomes 1.0499999523", hyper={"tau_neg": 1.0499999523162842}
        ),
    ),
    verl("sapo", "sapo", {"tau_pos": 1.0, "tau_neg": 1.05}),
]
MUTANTS = [
    Mutant(
        "gate not centred at ratio one",
        "baselines/sapo.py",
        "torch.sigmoid(tau * torch.expm1(log_ratio.clamp(max=40)))",
        "torch.sigmoid(tau * torch.exp(log_ratio.clamp(max=40)))",
    ),
    Mutant(
        "0 times infinity far from ratio one",
        "baselines/sapo.py",
        "torch.expm1(log_ratio.clamp(max=40))",
        "torch.expm1(log_ratio)",
        check="extreme ratios",
    ),
]
