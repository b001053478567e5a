"""Properties of the gradient: finite differences, the null update, what a clip may cut, and where it flows."""

from __future__ import annotations

import torch
from torch import Tensor

from suite.methods.conformance.violation import DoesNotApply, Violation, numbers, same, trials
from suite.methods.trial_batches import gradient, judged, other_settings, replace
from suite.types import Clip, Method, PolicyBatch

STEP = 1e-6
"""Of the finite differences, in nats."""


def finite_differences(method: Method) -> DoesNotApply | None:
    """d J / d log_probs equals central differences in float64, away from kinks; left out where weights are data."""
    if method.detached:
        return "its weights are data"
    for batch in trials(method):
        got = gradient(method, batch)
        for t in range(batch.response_mask.shape[1]):
            up, down = (judged(method, nudged(batch, t, sign * STEP)) for sign in (1, -1))
            want = (up.objective - down.objective) / (2 * STEP)
            smooth = (up.clipped == down.clipped).all(dim=1) & batch.response_mask[:, t]
            scale = up.objective.abs() + want.abs() + 1e-3
            wrong = smooth & ((got[:, t] - want).abs() > 1e-5 * scale)
            if wrong.any():
                i = int(wrong.nonzero()[0, 0])
                raise Violation(
                    f"gradient of response {i} at token {t} is {got[i, t]:.6g}, finite differences give {want[i]:.6g}",
                    batch,
                )
    return None


def nudged(batch: PolicyBatch, t: int, by: float) -> PolicyBatch:
    """The batch with the new log-probabilities of column t moved."""
    log_probs = batch.log_probs.clone()
    log_probs[:, t] += by
    return replace(batch, log_probs=log_probs)


def unchanged_weights(method: Method) -> None:
    """With unchanged weights: no flag, the unclipped gradient, pushing every counted token the advantage's way."""
    for batch in trials(method):
        batch = replace(batch, old_log_probs=batch.log_probs.clone())
        found, slope = judged(method, batch), gradient(method, batch)
        if found.outside_band.any() or found.clipped.any():
            raise Violation("a flag is up although the policy has not moved", batch)
        if method.clip != Clip.GATE and not same(found.objective, found.unclipped):
            raise Violation("objective and unclipped differ although the policy has not moved", batch)
        if not same(slope, gradient(method, batch, column="unclipped")):
            raise Violation("the gradient is not the unclipped one although the policy has not moved", batch)
        expected = batch.advantages.sign().expand(slope.shape) * batch.response_mask
        if not torch.equal(slope.sign(), expected):
            raise Violation(
                f"signs of the gradient on-policy are {numbers(slope[0].sign())}, those of the advantage "
                f"{numbers(expected[0])}: every counted token must move the advantage's way",
                batch,
            )


def direction(method: Method) -> None:
    """No token is ever pushed against the advantage of its response."""
    for batch in trials(method):
        slope = gradient(method, batch)
        if (slope * batch.advantages < 0).any():
            raise Violation("a token is pushed against the advantage", batch)


def pessimistic(method: Method) -> DoesNotApply | None:
    """Under a min without dual clip J is never above its unclipped value; without any clip it is that value."""
    if method.clip not in (Clip.MIN, Clip.NONE):
        return f"its clip is a {method.clip}"
    for batch in trials(method):
        found = judged(method, batch)
        if method.clip == Clip.NONE and (found.clipped.any() or not same(found.objective, found.unclipped)):
            raise Violation("the card says there is no clip, yet a weight is clipped", batch)
        raised = found.objective > found.unclipped + 1e-12 * (1 + found.unclipped.abs())
        if (raised & ~found.clipped.any(dim=1)).any() or (raised & (batch.advantages > 0).all(dim=1)).any():
            raise Violation("clipping makes a response look better than it is", batch)
    return None


def cut_gradient(method: Method) -> DoesNotApply | None:
    """A clipped weight has no gradient (min, mask) and every other weight with an advantage has one, also with the
    settings that are off by default."""
    if method.clip not in (Clip.MIN, Clip.MASK):
        return "no clip of it cuts a gradient"
    for label, changed in (("", method), *other_settings(method)):
        where = f" (with {label})" if label else ""
        for batch in trials(changed):
            found, slope = judged(changed, batch), gradient(changed, batch)
            counts = batch.response_mask & (batch.advantages != 0)
            cut = found.clipped.expand(batch.response_mask.shape)
            if (slope[cut] != 0).any():
                raise Violation(f"a weight is flagged as clipped and still has a gradient{where}", batch)
            if (slope[counts & ~cut] == 0).any():
                raise Violation(f"a weight is not flagged as clipped and has no gradient{where}", batch)
    return None


def capped_gradient(method: Method) -> DoesNotApply | None:
    """Under a cap or a gate no counted token with an advantage loses its gradient altogether."""
    if method.clip not in (Clip.CAP, Clip.GATE):
        return "it has neither cap nor gate"
    for batch in trials(method):
        counts = batch.response_mask & (batch.advantages != 0)
        if (gradient(method, batch)[counts] == 0).any():
            raise Violation(
                "a token has no gradient, though the method is said to cap weights and not to cut them", batch
            )
    return None


def gradient_flow(method: Method) -> None:
    """The gradient reaches the new log-probabilities only; advantages and old log-probabilities are data, even when
    the old ones are the same tensor."""
    for batch in trials(method):
        names = ("advantages", "old_log_probs")
        data = {name: getattr(batch, name).clone().requires_grad_(True) for name in names}
        log_probs = batch.log_probs.clone().requires_grad_(True)
        judged(method, replace(batch, log_probs=log_probs, **data)).objective.sum().backward()
        leaks = [name for name, column in data.items() if column.grad is not None and column.grad.any()]
        if leaks:
            raise Violation(f"a gradient flows into {', '.join(leaks)}: detach it", batch)
        shared = batch.log_probs.clone().requires_grad_(True)
        judged(method, replace(batch, log_probs=shared, old_log_probs=shared)).objective.sum().backward()
        on_policy = gradient(method, replace(batch, old_log_probs=batch.log_probs.clone()))
        if shared.grad is None or not same(shared.grad, on_policy):
            raise Violation(
                "with one tensor as new and old log-probabilities the gradient differs: detach the old", batch
            )


def critic_loss(method: Method) -> DoesNotApply | None:
    """The critic's loss, where there is one: [N], untouched by padding, with a gradient for the values alone."""
    if method.value_loss is None:
        return "it has no critic"
    for batch in trials(method):
        names = ("values", "old_values", "returns")
        data: dict[str, Tensor] = {name: getattr(batch, name).clone().requires_grad_(True) for name in names}
        loss = method.value_loss(replace(batch, **data), method.hyper)
        if loss.shape != batch.lengths.shape:
            raise Violation(f"value_loss has shape {tuple(loss.shape)}, expected {tuple(batch.lengths.shape)}", batch)
        loss.sum().backward()
        slopes = {name: column.grad for name, column in data.items()}
        if any(slopes[name] is not None and slopes[name].any() for name in names[1:]):  # pyright: ignore[reportOptionalMemberAccess]
            raise Violation("the value loss trains something else than the values", batch)
        slope = slopes["values"]
        if slope is None or slope[~batch.response_mask].any():
            raise Violation("the value loss has no gradient for the values, or one in the padding", batch)
    return None


CHECKS = {
    "gradient against finite differences": finite_differences,
    "null update": unchanged_weights,
    "direction of the gradient": direction,
    "pessimistic": pessimistic,
    "a clipped weight has no gradient": cut_gradient,
    "a capped weight keeps its gradient": capped_gradient,
    "gradient reaches the new log-probs only": gradient_flow,
    "value loss": critic_loss,
}
