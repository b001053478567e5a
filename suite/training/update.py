"""One optimizer step: surrogate by micro-batch, one division by a count over the whole step, one clipped gradient."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn, optim

from suite.arithmetic import divisor_count, kl_k3, masked
from suite.policy.ranks import ALONE, Ranks, full_tensor
from suite.policy.scoring import Critic, MicroBatch, score
from suite.training.returned import require_state, require_surrogate
from suite.training.whole_batch import ScoredBatch, whole, whole_batch, whole_lengths, whole_order
from suite.types import Divisor, Method, PolicyBatch, State, UserError

T = TypeVar("T")


@dataclass
class Learner:
    """The policy that is trained, with its optimizer, and the critic where the method has one."""

    model: Any
    optimizer: optim.Optimizer
    schedule: Any
    max_grad_norm: float
    kl_coefficient: float
    precision: str = "float32"
    float32_head: bool = False
    critic: Critic | None = None
    critic_optimizer: optim.Optimizer | None = None
    critic_schedule: Any = None
    ranks: Ranks = ALONE

    def arithmetic(self) -> AbstractContextManager[Any]:
        """The precision that forward passes run in."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.model.device.type, dtype=torch.bfloat16)

    def score(self, batch: MicroBatch) -> Tensor:
        """log_probs of a micro-batch."""
        return self.through(score, self.model, batch)

    def through(self, scoring: Callable[..., T], model: Any, batch: MicroBatch) -> T:
        """What `score` or `score_and_entropy` says of a micro-batch, by this model or another, in our arithmetic."""
        with self.arithmetic():
            return self.ranks.apply(partial(scoring, float32_head=self.float32_head), model, batch)

    def values(self, batch: MicroBatch) -> Tensor | None:
        """The critic's values of a micro-batch, or None without a critic."""
        if self.critic is None:
            return None
        with self.arithmetic():
            return self.critic(batch)


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


def optimizer_step(
    learner: Learner, method: Method, parts: Sequence[ScoredBatch], state: State, max_new_tokens: int
) -> tuple[StepReport, State]:
    """Maximise the method's objective on one mini-batch; returns what it saw and the method's new estimates.

    loss = -(sum_i J_i) / count + kl_coefficient * (sum_t k3_t) / tokens. Raises UserError when the loss is not finite.

    Of several processes each has its own parts of the mini-batch; counts, estimates and the report are the whole's.
    """
    before, ranks = state, learner.ranks
    if method.observe is not None and method.observe_first(method.hyper):
        with torch.no_grad():
            seen = [learner.score(part.micro) for part, _ in ranks.passes(parts)][: len(parts)]
            state = method.observe(whole_batch(parts, seen, ranks), method.hyper, state)
    learner.optimizer.zero_grad(set_to_none=True)
    lengths = whole_lengths(parts, ranks)
    counts = {divisor: divisor_count(divisor, lengths, max_new_tokens) for divisor in Divisor}
    log_probs, surrogates, gains, penalties = [], [], [], []
    for part, is_own in ranks.passes(parts):
        new = learner.score(part.micro)
        if not is_own:  # a joint pass of a sharded model, for another process
            (0 * new.sum()).backward()
            continue
        surrogate = method.surrogate(dataclasses.replace(part.batch, log_probs=new), method.hyper, state)
        require_surrogate(method, surrogate, new)
        gain = surrogate.objective.sum() / counts[surrogate.divisor]
        loss = -gain
        if part.batch.ref_log_probs is not None:
            kl = masked(kl_k3(part.batch.ref_log_probs - new), part.batch.response_mask).sum() / counts[Divisor.TOKENS]
            loss = loss + learner.kl_coefficient * kl
            penalties.append(kl.detach())
        loss.backward()
        log_probs.append(new.detach())
        surrogates.append(surrogate)
        gains.append(gain.detach())
    objective, penalty = _sum(gains), _sum(penalties)
    if not math.isfinite(objective + learner.kl_coefficient * penalty):
        largest = max(s.log_weight.max().item() for s in surrogates)
        raise UserError(
            f"{method.name}: the loss is {learner.kl_coefficient * penalty - objective} (a log weight reached "
            f"{largest:.1f}); lower learning_rate, or set the method's dual clip"
        )
    grad_norm = float(full_tensor(nn.utils.clip_grad_norm_(learner.model.parameters(), learner.max_grad_norm)))
    if not math.isfinite(grad_norm):
        raise UserError(f"{method.name}: the gradient norm is {grad_norm}; lower learning_rate")
    learner.optimizer.step()
    learner.schedule.step()
    value_error = critic_step(learner, method, parts)
    step = whole_batch(parts, log_probs, ranks)
    if method.observe is not None and state is before:
        state = method.observe(step, method.hyper, state)
    numbers = {
        "grad_norm": grad_norm,
        "objective": ranks.sum(objective),
        "kl_to_start": None if parts[0].batch.ref_log_probs is None else ranks.sum(penalty),
        "value_loss": value_error,
    }
    require_state(method, state)
    return _report(parts, step, surrogates, ranks, numbers), state


def _sum(numbers: Sequence[Tensor]) -> float:
    """The sum of scalars of the device, in float64, with one wait for it; 0 for none."""
    return sum(torch.stack(list(numbers)).tolist()) if numbers else 0.0


def critic_step(
    learner: Learner, method: Method, parts: Sequence[ScoredBatch], clip_to_old: bool = True
) -> float | None:
    """Minimise the method's value loss on one mini-batch, divided by the step's tokens; None without a critic."""
    if learner.critic is None or method.value_loss is None:
        return None
    assert learner.critic_optimizer is not None
    learner.critic_optimizer.zero_grad(set_to_none=True)
    ranks, losses = learner.ranks, []
    tokens = divisor_count(Divisor.TOKENS, whole_lengths(parts, ranks), 0)
    for part, is_own in ranks.passes(parts):
        values = learner.values(part.micro)
        assert values is not None
        if not is_own:
            (0 * values.sum()).backward()
            continue
        old = part.batch.old_values if clip_to_old else values.detach()
        batch = dataclasses.replace(part.batch, values=values, old_values=old)
        loss = method.value_loss(batch, method.hyper).sum() / tokens
        loss.backward()
        losses.append(loss.detach())
    nn.utils.clip_grad_norm_(learner.critic.parameters(), learner.max_grad_norm)
    learner.critic_optimizer.step()
    learner.critic_schedule.step()
    return ranks.sum(_sum(losses))


def _report(
    parts: Sequence[ScoredBatch],
    step: PolicyBatch,
    surrogates: Sequence[Any],
    ranks: Ranks,
    numbers: Mapping[str, Any],
) -> StepReport:
    said = {id(part): surrogate for part, surrogate in zip(parts, surrogates, strict=True)}
    log_weights, outside, clipped = (
        whole(parts, lambda part, name=name: getattr(said[id(part)], name).detach(), ranks)
        for name in ("log_weight", "outside_band", "clipped")
    )
    token_level = log_weights.shape[1] > 1
    weights_per_row = step.lengths if token_level else torch.ones_like(step.lengths)
    at_tokens = log_weights.shape == step.response_mask.shape
    return StepReport(
        rows=tuple(whole_order(parts, ranks).tolist()),
        log_probs=masked(step.log_probs, step.response_mask),
        old_log_probs=masked(step.old_log_probs, step.response_mask),
        mask=step.response_mask,
        lengths=step.lengths,
        outside_share=outside.sum(dim=1) / weights_per_row,
        clipped_share=clipped.sum(dim=1) / weights_per_row,
        log_weights=log_weights[step.response_mask] if at_tokens else log_weights[:, 0],
        **numbers,
    )
