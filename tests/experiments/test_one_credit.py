"""One advantage rule for all methods of a comparison: who gets it, who keeps its own, and that its card says so."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from strategies import METHODS
from suite.config import plain_data, restored
from suite.experiments.one_credit import with_credit
from suite.experiments.recipes import Changes, changed, recipe
from suite.experiments.settings import method_in
from suite.methods.cards import card_digest
from suite.types import CreditInput

REWARDS = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0]
SEEN = CreditInput(
    rewards=torch.tensor(REWARDS, dtype=torch.float64),
    group_ids=torch.tensor([0, 0, 0, 1, 1, 1]),
    response_mask=torch.ones(6, 2, dtype=torch.bool),
)
KEEP_THEIRS = ("ppo", "maxrl")
"""PPO has a critic, and MaxRL is its advantage rule."""
REPLACED = [name for name in METHODS if name not in KEEP_THEIRS]
# By hand: of (1, 0, 0) the mean is 1/3 and the standard deviation sqrt(1/3); of (1, 1, 0) 2/3 and the same.
STD = 3**-0.5 + 1e-4
WANTED = {
    "standardised": [2 / 3 / STD, -1 / 3 / STD, -1 / 3 / STD, 1 / 3 / STD, 1 / 3 / STD, -2 / 3 / STD],
    "leave_one_out": [1.0, -0.5, -0.5, 0.5, 0.5, -1.0],
}


@pytest.mark.parametrize("rule", WANTED)
@pytest.mark.parametrize("name", REPLACED)
def test_every_other_method_has_the_rule(name: str, rule: str) -> None:
    method = with_credit(METHODS[name], rule)
    assert method.credit(SEEN, method.hyper).advantages[:, 0].tolist() == pytest.approx(WANTED[rule], abs=1e-12)
    own = METHODS[name].credit(SEEN, METHODS[name].hyper).advantages[:, 0].tolist()
    is_own = own == pytest.approx(WANTED[rule], abs=1e-12)
    assert (card_digest(method) == card_digest(METHODS[name])) == is_own, "a replaced rule is another card"
    assert ("set for all methods alike" in method.facts["advantage"]) != is_own


def test_a_critic_a_rule_that_is_the_method_and_the_rule_own_leave_a_method_as_it_is() -> None:
    assert all(with_credit(METHODS[name], rule) is METHODS[name] for name in KEEP_THEIRS for rule in WANTED)
    assert all(with_credit(method, "own") is method for method in METHODS.values())


def test_a_method_whose_card_says_nothing_of_advantages_gets_the_rule_too() -> None:
    silent = dataclasses.replace(METHODS["rloo"], facts={})
    assert "its own: not said" in with_credit(silent, "standardised").facts["advantage"]


def test_a_comparison_gives_one_rule_unless_it_is_older_or_told_otherwise() -> None:
    smoke = recipe("smoke")
    assert smoke.credit == "standardised"
    assert method_in(smoke, "rloo").credit is not METHODS["rloo"].credit
    assert method_in(changed("smoke", Changes(credit="own")), "rloo").credit is METHODS["rloo"].credit
    older = {key: value for key, value in plain_data(smoke).items() if key != "credit"}
    assert restored(older).credit == "own"
    assert restored(plain_data(smoke)) == smoke
