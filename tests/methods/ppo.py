"""PPO, arXiv 1707.06347: sum over tokens of min(r_t A_t, clip(r_t, 1 - low, 1 + high) A_t), divided by all tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from methods import Floats, Response, Row, State, Term, clip_term, counted, log, log_ratio, of_tokens
from methods.advantages import gae, whiten
from methods.facts import DUAL_MISTAKES, DUAL_VARIANTS, RATIO_MISTAKES, RATIO_VARIANTS, Mutant, slope_of_sum
from peers.pairings import ADVANTAGE, TOKEN_MEAN, VALUE, Departure, clip_ratios, epsilons, trl, verl

DIVISOR = "tokens"


def token_terms(row: Row, hyper: Any) -> dict[int, Term]:
    """What PPO's clip says of every counted token, with one advantage a token or one for all of them."""
    low, high = log(1 - hyper.clip_low), math.log(1 + hyper.clip_high)
    dual = None if hyper.dual_clip is None else math.log(hyper.dual_clip)
    terms = {}
    for t in counted(row.mask):
        advantage = row.advantages[0] if len(row.advantages) == 1 else row.advantages[t]
        terms[t] = clip_term(log_ratio(row, t), low, high, dual, advantage)
    return terms


def response(row: Row, hyper: Any, state: State) -> Response:
    """The sum over the response's tokens."""
    return of_tokens(row, token_terms(row, hyper))


def value_loss(row: Row, hyper: Any) -> float:
    """sum_t 0.5 max((v - R)^2, (clip(v, v_old - c, v_old + c) - R)^2) over counted tokens."""
    assert row.values is not None
    assert row.old_values is not None
    assert row.returns is not None
    total = 0.0
    for t in counted(row.mask):
        held = min(max(row.values[t], row.old_values[t] - hyper.value_clip), row.old_values[t] + hyper.value_clip)
        total += 0.5 * max((row.values[t] - row.returns[t]) ** 2, (held - row.returns[t]) ** 2)
    return total


def credit(
    rewards: Floats, groups: Sequence[int], masks: Sequence[Sequence[bool]], values: Sequence[Floats], hyper: Any
) -> tuple[list[list[float]], list[list[float]]]:
    """(advantages, returns): GAE, returns = raw advantages + values, advantages whitened over the step."""
    raw = [gae(r, v, m, hyper.gamma, hyper.gae_lambda) for r, v, m in zip(rewards, values, masks, strict=True)]
    returns = [
        [a + b if keep else 0.0 for a, b, keep in zip(row, v, m, strict=True)]
        for row, v, m in zip(raw, values, masks, strict=True)
    ]
    return (whiten(raw, masks, ddof=0, eps=1e-8) if hyper.whiten else raw), returns


# --- facts ---------------------------------------------------------------------------------------------

DEFAULTS = {
    "clip_low": 0.2,
    "clip_high": 0.2,
    "dual_clip": None,
    "gamma": 1.0,
    "gae_lambda": 1.0,
    "whiten": True,
    "value_clip": 0.2,
    "critic_learning_rate_ratio": 5.0,
    "critic_warmup_epochs": 4,
}
MISTAKES = [
    *RATIO_MISTAKES,
    *DUAL_MISTAKES,
    {"gamma": 1.1},
    {"gamma": -0.1},
    {"gae_lambda": 1.1},
    {"gae_lambda": -0.1},
    {"value_clip": -0.2},
    {"critic_learning_rate_ratio": 0.0},
    {"critic_warmup_epochs": -1},
]
ON_POLICY_SLOPE = slope_of_sum
VARIANTS = [*RATIO_VARIANTS, *DUAL_VARIANTS]
CREDIT_VARIANTS = [{}, {"gamma": 0.9, "gae_lambda": 0.8}, {"gae_lambda": 0.95, "whiten": False}]
PAIRINGS = [
    trl("ppo", {"loss_type": "dapo", **epsilons(0.2, 0.2)}, hyper={"dual_clip": None}, per_token=True),
    verl(
        "ppo",
        "vanilla",
        {**TOKEN_MEAN, **clip_ratios(0.2, 0.2), "clip_ratio_c": 3.0},
        per_token=True,
        hyper={"dual_clip": 3.0},
    ),
    verl("ppo", "compute_value_loss", {"cliprange_value": 0.2}, target=VALUE),
    verl("ppo", "gae", {"gamma": 1.0, "lam": 1.0}, target=ADVANTAGE, variant="returns", hyper={"whiten": False}),
    verl(
        "ppo",
        "gae",
        {"gamma": 0.97, "lam": 0.9},
        target=ADVANTAGE,
        variant="discounted-returns",
        hyper={"whiten": False, "gamma": 0.97, "gae_lambda": 0.9},
    ),
    verl(
        "ppo",
        "gae",
        {"gamma": 0.97, "lam": 0.9},
        target=ADVANTAGE,
        hyper={"gamma": 0.97, "gae_lambda": 0.9},
        departure=Departure(
            "advantages are whitened with the unbiased variance, and 1e-8 is added to the variance", outputs="unbiased"
        ),
    ),
]
MUTANTS = [
    Mutant(
        "dual clip forgotten",
        "baselines/ppo.py",
        "hyper.log_low, hyper.log_high, advantages, hyper.log_dual)",
        "hyper.log_low, hyper.log_high, advantages)",
    ),
    Mutant(
        "min for max in the value loss",
        "baselines/ppo.py",
        "torch.maximum((values - returns) ** 2",
        "torch.minimum((values - returns) ** 2",
    ),
    Mutant(
        "gamma and lambda exchanged",
        "baselines/ppo.py",
        "gamma=hyper.gamma, lam=hyper.gae_lambda",
        "gamma=hyper.gae_lambda, lam=hyper.gamma",
    ),
    Mutant(
        "returns from whitened advantages",
        "baselines/ppo.py",
        "returns = advantages + masked(seen.values, mask)",
        "returns = whiten(advantages, mask, ddof=0, eps=1e-8) + masked(seen.values, mask)",
    ),
    Mutant(
        "low and high exchanged",
        "baselines/ppo.py",
        "log_ratio, hyper.log_low, hyper.log_high,",
        "log_ratio, -hyper.log_high, -hyper.log_low,",
    ),
    Mutant(
        "widths taken in log space",
        "baselines/ppo.py",
        "log_ratio, hyper.log_low, hyper.log_high,",
        "log_ratio, -hyper.clip_low, hyper.clip_high,",
    ),
    Mutant(
        "one weight a response",
        "baselines/ppo.py",
        "log_ratio, advantages = token_log_ratio(batch),",
        "log_ratio, advantages = token_log_ratio(batch).sum(1, keepdim=True).expand(batch.response_mask.shape),",
    ),
    Mutant("response mean for token mean", "baselines/ppo.py", "batch, Divisor.TOKENS)", "batch, Divisor.RESPONSES)"),
    Mutant("mean in the response", "baselines/ppo.py", "batch, Divisor.TOKENS)", "batch, Divisor.TOKENS, mean=True)"),
    Mutant(
        "first token's advantage for all",
        "baselines/ppo.py",
        "masked(batch.advantages, batch.response_mask)",
        "masked(batch.advantages[:, :1], batch.response_mask)",
    ),
    Mutant(
        "whitened response by response",
        "baselines/ppo.py",
        "whiten(advantages, mask, ddof=0, eps=1e-8) if",
        "torch.stack([whiten(*row, ddof=0, eps=1e-8) for row in zip(advantages, mask, strict=True)]) if",
    ),
    Mutant(
        "no clip in the value loss",
        "baselines/ppo.py",
        "torch.maximum((values - returns) ** 2, (near_old - returns) ** 2)",
        "((values - returns) ** 2)",
    ),
    Mutant(
        "only the clip in the value loss",
        "baselines/ppo.py",
        "torch.maximum((values - returns) ** 2, (near_old - returns) ** 2)",
        "((near_old - returns) ** 2)",
    ),
    Mutant("value loss without its half", "baselines/ppo.py", "return 0.5 * torch", "return torch"),
    Mutant(
        "padding in the value loss",
        "baselines/ppo.py",
        "(masked(x, mask) for x in (batch.values,",
        "(x for x in (batch.values,",
    ),
]
