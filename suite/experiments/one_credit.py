"""One rule from rewards to advantages for all methods of a comparison, so that it does not confound the losses."""

from __future__ import annotations

import dataclasses

import fspo.objective
from baselines.rewards import LEAVE_ONE_OUT, STANDARDISED, leave_one_out, standardised
from suite.advantages import group_standardised
from suite.config import OWN_CREDIT
from suite.types import Credit, CreditInput, Method

STD_DDOF, STD_EPS = 1, 1e-4
"""How rewards are standardised for a method that has no setting of its own for it: torch's default and TRL's."""


STANDARDISING = (standardised, fspo.objective.credit)
"""Rules of methods that standardise already, each by settings of its own."""


def standardised_alike(seen: CreditInput, hyper: object) -> Credit:
    """(R - group mean) / (group std + 1e-4), [N, 1], whatever the method's settings are."""
    return Credit(group_standardised(seen.rewards, seen.group_ids, ddof=STD_DDOF, eps=STD_EPS)[:, None])


def with_credit(method: Method, rule: str) -> Method:
    """The method with the rule "standardised" or "leave_one_out" in the place of its own; "own" leaves every method.

    A method with a critic keeps its advantages of tokens: no rule for a response can stand for them. So does one whose
    rule is what it is (`keeps_credit`). The card of a method whose rule is replaced says so, and has another digest.
    """
    if rule == OWN_CREDIT or "values" in method.needs or method.keeps_credit:
        return method
    given = {"standardised": standardised_alike, "leave_one_out": leave_one_out}[rule]
    words = {"standardised": STANDARDISED, "leave_one_out": LEAVE_ONE_OUT}[rule]
    if method.credit is given or (rule == "standardised" and method.credit in STANDARDISING):
        return method
    own = method.facts.get("advantage", "not said")
    facts = {**method.facts, "advantage": f"{words}; set for all methods alike, its own: {own}"}
    return dataclasses.replace(method, credit=given, facts=facts)
