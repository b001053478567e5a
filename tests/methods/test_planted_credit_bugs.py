"""Bugs planted into advantages and the value loss: the oracle check must kill each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from methods import ppo as ppo_oracle
from methods.checks import check_credit_against_oracle
from strategies import METHODS, rows_of
from suite import advantages
from suite.methods.trial_batches import batch_for
from suite.types import Credit, CreditInput, PolicyBatch

# --- advantages -------------------------------------------------------------------------------------


def per_group(rule: Callable[[Tensor, Tensor], Tensor]) -> Callable[[CreditInput, Any], Credit]:
    return lambda given, hyper: Credit(advantages=rule(given.rewards, given.group_ids)[:, None])


def whole_step(x: Tensor, mask: Tensor) -> Tensor:
    return (x - x[mask].mean()) / (x[mask].std(correction=0) + 1e-8)


def gae_credit(
    at: Callable[[Tensor], Tensor] = lambda mask: mask.cumsum(1).argmax(1),
    ends_with: float = 0.0,
    whiten: Callable[[Tensor, Tensor], Tensor] = whole_step,
    returns: Callable[[Tensor, Tensor, Tensor], Tensor] = lambda raw, values, final: raw + values,
) -> Callable[[CreditInput, Any], Credit]:
    """GAE without holes in the mask, its parts exchangeable."""

    def credit(given: CreditInput, hyper: Any) -> Credit:
        assert given.values is not None
        mask, values = given.response_mask, given.values
        rows, width = mask.shape
        rewards = torch.zeros_like(values).index_put((torch.arange(rows), at(mask)), given.rewards)
        raw, running = torch.zeros_like(values), torch.zeros(rows, dtype=values.dtype)
        following = torch.full((rows,), ends_with, dtype=values.dtype)
        for t in reversed(range(width)):
            step = rewards[:, t] + hyper.gamma * following - values[:, t] + hyper.gamma * hyper.gae_lambda * running
            running = torch.where(mask[:, t], step, running)
            following = torch.where(mask[:, t], values[:, t], following)
            raw[:, t] = step
        final = whiten(raw, mask) if hyper.whiten else raw
        return Credit(advantages=final, returns=returns(raw, values, final))

    return credit


def standardised(
    ddof: Callable[[int], int] = lambda ddof: ddof,
    eps_inside: bool = False,
    groups: Callable[[Tensor], Tensor] = lambda ids: ids,
) -> Callable[[CreditInput, Any], Credit]:
    """GRPO's advantage, its parts exchangeable."""

    def credit(given: CreditInput, hyper: Any) -> Credit:
        ids, result = groups(given.group_ids), torch.zeros_like(given.rewards)
        for i in range(len(ids)):
            members = given.rewards[ids == ids[i]]
            std = members.std(correction=ddof(hyper.std_ddof))
            below = (std**2 + hyper.std_eps).sqrt() if eps_inside else std + hyper.std_eps
            result[i] = 0.0 if std == 0 else (given.rewards[i] - members.mean()) / below
        return Credit(advantages=result[:, None])

    return credit


CREDIT_BUGS: dict[str, dict[str, Callable[[CreditInput, Any], Credit]]] = {
    "rloo": {
        "baseline includes itself": per_group(advantages.group_centred),
        "groups taken as neighbours": per_group(
            lambda rewards, groups: advantages.leave_one_out(rewards, torch.arange(len(groups)) // 3)
        ),
    },
    "grpo": {
        "other ddof": standardised(ddof=lambda ddof: 1 - ddof),
        "eps inside the root": standardised(eps_inside=True),
        "one group for all": standardised(groups=torch.zeros_like),
    },
    "ppo": {
        "reward in the last column": gae_credit(at=lambda mask: torch.full((len(mask),), mask.shape[1] - 1)),
        "value after the end is one": gae_credit(ends_with=1.0),
        "whitened with its padding": gae_credit(whiten=lambda x, mask: (x - x.mean()) / (x.std(correction=0) + 1e-8)),
        "whitened response by response": gae_credit(
            whiten=lambda x, mask: (x - x.mean(1, keepdim=True)) / (x.std(1, keepdim=True, correction=0) + 1e-8)
        ),
        "sample std": gae_credit(whiten=lambda x, mask: (x - x[mask].mean()) / (x[mask].std(correction=1) + 1e-8)),
        "not centred": gae_credit(whiten=lambda x, mask: x / (x[mask].std(correction=0) + 1e-8)),
        "returns from whitened advantages": gae_credit(returns=lambda raw, values, final: final + values),
    },
}
CREDIT_BUGS["fspo"] = CREDIT_BUGS["rloo"]
CREDIT_BUGS["gspo"] = CREDIT_BUGS["grpo"]


def test_healthy_copies_pass() -> None:
    for name, copy in (("ppo", gae_credit()), ("grpo", standardised()), ("rloo", per_group(advantages.leave_one_out))):
        assert check_credit_against_oracle(dataclasses.replace(METHODS[name], credit=copy)) is None


@pytest.mark.parametrize(("name", "bug"), [(name, bug) for name in CREDIT_BUGS for bug in CREDIT_BUGS[name]])
def test_planted_credit_bug_dies(name: str, bug: str) -> None:
    mutant = dataclasses.replace(METHODS[name], credit=CREDIT_BUGS[name][bug])
    assert check_credit_against_oracle(mutant) is not None, f"{name} survives: {bug}"


# --- bugs in the value loss -------------------------------------------------------------------------


def value_loss(b: PolicyBatch, hyper: Any, pick: Callable[..., Tensor], half: float, keep: bool) -> Tensor:
    assert b.values is not None
    assert b.old_values is not None
    assert b.returns is not None
    held = b.old_values + (b.values - b.old_values).clamp(-hyper.value_clip, hyper.value_clip)
    terms = half * pick((b.values - b.returns) ** 2, (held - b.returns) ** 2)
    return (terms * b.response_mask if keep else terms).sum(1)


@pytest.mark.parametrize(
    ("bug", "pick", "half", "keep"),
    [
        ("none", torch.maximum, 0.5, True),
        ("min for max", torch.minimum, 0.5, True),
        ("no clip", lambda free, held: free, 0.5, True),
        ("clip only", lambda free, held: held, 0.5, True),
        ("no half", torch.maximum, 1.0, True),
        ("padding leaks", torch.maximum, 0.5, False),
    ],
)
def test_planted_value_loss_bug_dies(bug: str, pick: Callable[..., Tensor], half: float, keep: bool) -> None:
    method = METHODS["ppo"]
    batch = batch_for(method, 1)
    got = value_loss(batch, method.hyper, pick, half, keep).tolist()
    want = [ppo_oracle.value_loss(row, method.hyper) for row in rows_of(batch)]
    assert (got == pytest.approx(want, rel=1e-12)) == (bug == "none")
