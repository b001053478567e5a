"""GRPO with off-policy sequence masking, arXiv 2512.02556 sec. 3.1.

(1/L) sum over tokens of min(r_t A, clip(r_t, 1 - low, 1 + high) A) M, mean over responses; M = 0 where A < 0 and the
mean over the response's tokens of log(pi_old / pi_theta) exceeds delta, else 1.
"""

from __future__ import annotations

import math
from typing import Any

from methods import Response, Row, State, Term, clip_term, counted, log, log_ratio, log_ratio_mean, of_tokens, per_token
from methods.advantages import centred_credit
from methods.facts import (
    INFINITY,
    NAN,
    NO_CREDIT_VARIANTS,
    RATIO_MISTAKES,
    Mutant,
    slope_of_mean,
    without_state,
)
from peers.pairings import epsilons, trl

DIVISOR = "responses"
credit = centred_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """The mean over the response's tokens, or nothing where the response is masked."""
    advantage, low, high = row.advantages[0], log(1 - hyper.clip_low), math.log(1 + hyper.clip_high)
    lost = -log_ratio_mean(row)
    masked = advantage < 0 and lost > hyper.delta
    terms = {}
    for t in counted(row.mask):
        free = clip_term(log_ratio(row, t), low, high, None, advantage)
        terms[t] = Term(
            log_weight=free.log_weight,
            objective=0.0 if masked else free.objective,
            unclipped=free.unclipped,
            outside=masked or free.outside,
            clipped=masked or free.clipped,
            margin=min(free.margin, abs(lost - hyper.delta)),
        )
    return per_token(row, of_tokens(row, terms))


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {"clip_low": 0.2, "clip_high": 0.2, "delta": 0.1}
MISTAKES = [*RATIO_MISTAKES, {"delta": 0.0}, {"delta": -0.1}, {"delta": NAN}, {"delta": INFINITY}]
ON_POLICY_SLOPE = slope_of_mean
VARIANTS = without_state({}, {"delta": 0.005}, {"clip_low": 0.05, "clip_high": 0.01, "delta": 0.02})
CREDIT_VARIANTS = NO_CREDIT_VARIANTS
OPSM = {"loss_type": "grpo", **epsilons(0.2, 0.2)}
PAIRINGS = [
    trl("grpo_opsm", {**OPSM, "off_policy_mask_threshold": 0.1}),
    trl("grpo_opsm", {**OPSM, "off_policy_mask_threshold": 0.001}, variant="tight", hyper={"delta": 0.001}),
]
MUTANTS = [
    Mutant(
        "good responses masked, too",
        "baselines/grpo_opsm.py",
        "dropped = (advantages < 0) & (lost > hyper.delta)",
        "dropped = lost > hyper.delta",
    ),
    Mutant(
        "the response's sum held to a bound per token",
        "baselines/grpo_opsm.py",
        "-per_token(sequence_log_ratio(batch).detach(), batch.lengths[:, None])",
        "-sequence_log_ratio(batch).detach()",
    ),
    Mutant(
        "masked where the response has become likelier",
        "baselines/grpo_opsm.py",
        "(lost > hyper.delta)",
        "(-lost > hyper.delta)",
    ),
]
