"""Properties of the advantage rule and of the card."""

from __future__ import annotations

import dataclasses
import math

import torch

from suite.methods.conformance.violation import Violation, same
from suite.methods.trial_batches import batch_for, random_credit_input
from suite.types import FACTS, CreditInput, Method


def advantages(method: Method) -> None:
    """One advantage a response, or one a token; finite; a function of the groups and not of the order of rows; blind
    to what stands in the padding."""
    for seed in range(6):
        seen = random_credit_input(seed)
        credit = method.credit(seen, method.hyper)
        rows, tokens = seen.response_mask.shape
        if tuple(credit.advantages.shape) not in ((rows, 1), (rows, tokens)):
            raise Violation(f"advantages have shape {tuple(credit.advantages.shape)}, expected {(rows, 1)}")
        if not credit.advantages.isfinite().all():
            raise Violation("an advantage is not finite")
        assert seen.values is not None
        order = torch.arange(rows).flip(0)
        shuffled = CreditInput(
            seen.rewards[order], seen.group_ids[order], seen.response_mask[order], seen.values[order]
        )
        if not same(method.credit(shuffled, method.hyper).advantages, credit.advantages[order], rtol=1e-10):
            raise Violation("advantages depend on the order of the responses, not on their groups alone")
        dirty = dataclasses.replace(seen, values=seen.values.masked_fill(~seen.response_mask, math.nan))
        if not same(method.credit(dirty, method.hyper).advantages, credit.advantages):
            raise Violation("NaN among the values of padding changes the advantages")


def estimates(method: Method) -> None:
    """Running estimates, where there are any, are finite plain numbers."""
    if method.observe is None:
        return
    state = method.observe(batch_for(method, 0), method.hyper, {})
    for name, value in method.observe(batch_for(method, 1), method.hyper, state).items():
        if type(value) is not float or not math.isfinite(value):
            raise Violation(f"the running estimate {name} is {value!r}: it must be a finite float")


def complete_card(method: Method) -> None:
    """A card that says everything: all facts, a source, an equation, and where every number comes from."""
    missing = [fact for fact in FACTS if not method.facts.get(fact)]
    if missing:
        raise Violation(f"facts lack {', '.join(missing)}")
    if not method.source or not method.title:
        raise Violation("source or title is empty")
    if not (method.surrogate.__doc__ or "").strip():
        raise Violation("the surrogate has no docstring; the card prints it as the equation")
    for field in dataclasses.fields(method.hyper):
        if not field.metadata.get("provenance"):
            raise Violation(f"hyper-parameter {field.name} does not say where its value comes from: use knob()")


CHECKS = {"advantages": advantages, "running estimates": estimates, "card": complete_card}
