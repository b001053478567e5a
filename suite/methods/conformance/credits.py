"""Properties of the advantage rule and of the card."""

from __future__ import annotations

import dataclasses
import math
from statistics import NormalDist

import torch

from suite.methods.conformance.violation import DoesNotApply, Violation, same
from suite.methods.trial_batches import batch_for, batch_from_log_ratios, judged, random_credit_input, with_hyper
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


def estimates(method: Method) -> DoesNotApply | None:
    """Running estimates are finite plain numbers; one with a decay of nearly 1 stays what it was; and a
    `target_clip_rate` is the share of normal log ratios that the band leaves outside."""
    if method.observe is None:
        return "it has no running estimates"
    state = method.observe(batch_for(method, 0), method.hyper, {})
    for name, value in method.observe(batch_for(method, 1), method.hyper, state).items():
        if type(value) is not float or not math.isfinite(value):
            raise Violation(f"the running estimate {name} is {value!r}: it must be a finite float")
    _decays(method)
    if hasattr(method.hyper, "target_clip_rate"):
        _target_clip_rate(method)
    return None


def _decays(method: Method) -> None:
    """`NAME_decay` weighs what was known of the estimate NAME, not what the step says."""
    assert method.observe is not None
    state = method.observe(batch_for(method, 0), method.hyper, {})
    for name, known in state.items():
        if hasattr(method.hyper, f"{name}_decay"):
            slow = with_hyper(method, **{f"{name}_decay": 1 - 1e-9})
            after = method.observe(batch_for(method, 1), slow.hyper, state)[name]
            if abs(after - known) > 1e-6 * abs(known):
                raise Violation(
                    f"with {name}_decay at nearly 1 one step moves the running estimate {name} from {known:.4g} to "
                    f"{after:.4g}: it weighs the step, not what was known"
                )


def _target_clip_rate(method: Method) -> None:
    """Of one-token responses with normal log ratios of a known spread, the share outside the band is the target."""
    assert method.observe is not None
    for rate in (0.1, 0.4):
        tuned = with_hyper(method, target_clip_rate=rate)
        grid = [1e-3 * NormalDist().inv_cdf((i + 0.5) / 1000) for i in range(1000)]
        ratios = torch.tensor(grid, dtype=torch.float64)[:, None]
        batch = batch_from_log_ratios(ratios, torch.ones_like(ratios), old=-1.0)
        state = method.observe(batch, tuned.hyper, {})
        share = float(judged(tuned, batch, state).outside_band.double().mean())
        if abs(share - rate) > 0.01:
            raise Violation(f"with target_clip_rate={rate} {share:.1%} of normal log ratios are outside the band")


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
