"""One optimizer step: surrogate by micro-batch, one division by a count over the whole step, one clipped gradient."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn, optim

from suite.arithmetic import divisor_count, kl_k3, masked
from suite.critic import Critic
from suite.scoring import MicroBatch, score
from suite.types import Divisor, Method, PolicyBatch, State, UserError


@dataclass
class Learner:
    """The policy that is trained, with its optimizer, and the critic where the method has one."""

    model: Any
    optimizer: optim.Optimizer
    schedule: Any
    max_grad_norm: float
    kl_coefficient: float
    precision: str = "float32"
    critic: Critic | None = None
    critic_optimizer: optim.Optimizer | None = None
    critic_schedule: Any = None

    def arithmetic(self) -> AbstractContextManager[Any]:
        """The precision that forward passes run in."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.model.device.type, dtype=torch.bfloat16)

    def score(self, batch: MicroBatch) -> Tensor:
        """log_probs of a micro-batch."""
        with self.arithmetic():
            return score(self.model, batch)

    def values(self, batch: MicroBatch) -> Tensor | None:
        """The critic's values of a micro-batch, or None without a critic."""
        if self.critic is None:
            return None
        with self.arithmetic():
            return self.critic(batch)


@dataclass(frozen=True)
class Part:
    """A micro-batch with what was scored before the first update: its `batch.log_probs` are the old ones."""

    micro: MicroBatch
    batch: PolicyBatch
    entropy: Tensor


@dataclass(frozen=True)
class StepReport:
    """What one optimizer step saw, responses in the order of its parts.

    rows: which rollouts; log_probs and old_log_probs [n, T], 0 at padding; mask [n, T]; lengths, outside_share and
    clipped_share [n] (share of the response's weights); log_weights [K] of every weight of the method; grad_norm before
    the cut.
    """

    rows: tuple[int, ...]
    log_probs: Tensor
    old_log_probs: Tensor
    mask: Tensor
    lengths: Tensor
    outside_share: Tensor
    clipped_share: Tensor
    log_weights: Tensor
    grad_norm: float
    objective: float
    kl_to_start: float | None
    value_loss: float | None

    @property
    def token_log_ratios(self) -> Tensor:
        """New minus old log-probability of every response token, [n, T] in nats, 0 at padding."""
        return self.log_probs - self.old_log_probs


def stack(tensors: Sequence[Tensor]) -> Tensor:
    """Rows of several [n, T] tensors as one, padded on the right with zeros."""
    width = max(t.shape[1] for t in tensors)
    return torch.cat([nn.functional.pad(t, (0, width - t.shape[1])) for t in tensors])


def joined(parts: Sequence[Part], log_probs: Sequence[Tensor]) -> PolicyBatch:
    """The whole mini-batch of one optimizer step, with the given new log-probs, detached."""
    batches = [part.batch for part in parts]
    return PolicyBatch(
        log_probs=stack([x.detach() for x in log_probs]),
        old_log_probs=stack([b.old_log_probs for b in batches]),
        advantages=stack([b.advantages for b in batches]),
        response_mask=stack([b.response_mask for b in batches]),
        lengths=torch.cat([b.lengths for b in batches]),
    )


def count(divisor: Divisor, parts: Sequence[Part], max_new_tokens: int) -> float:
    """What the objectives of one optimizer step are divided by, counted over the whole step."""
    return divisor_count(divisor, torch.cat([part.batch.lengths for part in parts]), max_new_tokens)


def optimizer_step(
    learner: Learner, method: Method, parts: Sequence[Part], state: State, max_new_tokens: int
) -> tuple[StepReport, State]:
    """Maximise the method's objective on one mini-batch; returns what it saw and the method's new estimates.

    loss = -(sum_i J_i) / count + kl_coefficient * (sum_t k3_t) / tokens. Raises UserError when the loss is not finite.
    """
    before = state
    if method.observe is not None and method.observe_first(method.hyper):
        with torch.no_grad():
            state = method.observe(joined(parts, [learner.score(p.micro) for p in parts]), method.hyper, state)
    learner.optimizer.zero_grad(set_to_none=True)
    tokens = count(Divisor.TOKENS, parts, max_new_tokens)
    log_probs, surrogates, objective, penalty = [], [], 0.0, 0.0
    for part in parts:
        new = learner.score(part.micro)
        surrogate = method.surrogate(dataclasses.replace(part.batch, log_probs=new), method.hyper, state)
        gain = surrogate.objective.sum() / count(surrogate.divisor, parts, max_new_tokens)
        loss = -gain
        if part.batch.ref_log_probs is not None:
            kl = masked(kl_k3(part.batch.ref_log_probs - new), part.batch.response_mask).sum() / tokens
            loss, penalty = loss + learner.kl_coefficient * kl, penalty + kl.item()
        if not torch.isfinite(loss):
            raise UserError(
                f"{method.name}: the loss is {loss.item()} (a log weight reached "
                f"{surrogate.log_weight.max().item():.1f}); lower learning_rate, or set the method's dual clip"
            )
        loss.backward()
        log_probs.append(new.detach())
        surrogates.append(surrogate)
        objective += gain.item()
    grad_norm = float(nn.utils.clip_grad_norm_(learner.model.parameters(), learner.max_grad_norm))
    if not math.isfinite(grad_norm):
        raise UserError(f"{method.name}: the gradient norm is {grad_norm}; lower learning_rate")
    learner.optimizer.step()
    learner.schedule.step()
    value_error = critic_step(learner, method, parts)
    whole = joined(parts, log_probs)
    if method.observe is not None and state is before:
        state = method.observe(whole, method.hyper, state)
    has_reference = parts[0].batch.ref_log_probs is not None
    return _report(
        parts, whole, surrogates, grad_norm, objective, penalty if has_reference else None, value_error
    ), state


def critic_step(learner: Learner, method: Method, parts: Sequence[Part], clip_to_old: bool = True) -> float | None:
    """Minimise the method's value loss on one mini-batch, divided by the step's tokens; None without a critic."""
    if learner.critic is None or method.value_loss is None:
        return None
    assert learner.critic_optimizer is not None
    learner.critic_optimizer.zero_grad(set_to_none=True)
    tokens, total = count(Divisor.TOKENS, parts, 0), 0.0
    for part in parts:
        values = learner.values(part.micro)
        assert values is not None
        old = part.batch.old_values if clip_to_old else values.detach()
        batch = dataclasses.replace(part.batch, values=values, old_values=old)
        loss = method.value_loss(batch, method.hyper).sum() / tokens
        loss.backward()
        total += loss.item()
    nn.utils.clip_grad_norm_(learner.critic.parameters(), learner.max_grad_norm)
    learner.critic_optimizer.step()
    learner.critic_schedule.step()
    return total


def _report(
    parts: Sequence[Part],
    whole: PolicyBatch,
    surrogates: Sequence[Any],
    grad_norm: float,
    objective: float,
    kl_to_start: float | None,
    value_error: float | None,
) -> StepReport:
    token_level = any(s.log_weight.shape[1] > 1 for s in surrogates)
    weights_per_row = whole.lengths if token_level else torch.ones_like(whole.lengths)
    weights = [
        s.log_weight[p.batch.response_mask] if s.log_weight.shape == p.batch.response_mask.shape else s.log_weight[:, 0]
        for s, p in zip(surrogates, parts, strict=True)
    ]
    return StepReport(
        rows=tuple(row for part in parts for row in part.micro.rows),
        log_probs=masked(whole.log_probs, whole.response_mask),
        old_log_probs=masked(whole.old_log_probs, whole.response_mask),
        mask=whole.response_mask,
        lengths=whole.lengths,
        outside_share=torch.cat([s.outside_band.sum(dim=1) for s in surrogates]) / weights_per_row,
        clipped_share=torch.cat([s.clipped.sum(dim=1) for s in surrogates]) / weights_per_row,
        log_weights=torch.cat(weights).detach(),
        grad_norm=grad_norm,
        objective=objective,
        kl_to_start=kl_to_start,
        value_loss=value_error,
    )
