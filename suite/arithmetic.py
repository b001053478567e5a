"""Masked sums, log ratios and the one pessimistic clip that every clipped method shares. Pure functions of tensors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from suite.types import Divisor, PolicyBatch, Surrogate


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """`x` where the mask counts, 0 elsewhere. NaN or inf in padding reaches neither value nor gradient."""
    return torch.where(mask, x, torch.zeros((), dtype=x.dtype, device=x.device))


def token_log_ratio(batch: PolicyBatch) -> Tensor:
    """Log importance ratio of every response token, [N, T] in nats, 0 at padding.

    log r_t = log pi_theta(y_t | .) - log pi_old(y_t | .)
    """
    return masked(batch.log_probs, batch.response_mask) - masked(batch.old_log_probs.detach(), batch.response_mask)


def sequence_log_ratio(batch: PolicyBatch) -> Tensor:
    """Sequence log importance ratio S, [N, 1] in nats, summed in the dtype of log_probs (float32 or wider).

    S = sum_t log r_t
    """
    return token_log_ratio(batch).sum(dim=1, keepdim=True)


def per_token(x: Tensor, lengths: Tensor) -> Tensor:
    """x / L, and 0 for an empty response."""
    return masked(x / lengths.clamp(min=1), lengths > 0)


def with_gradient_of(value: Tensor, log_ratio: Tensor) -> Tensor:
    """`value` as data, with the gradient of log_ratio: sg[value] + log_ratio - sg[log_ratio]."""
    return value.detach() + (log_ratio - log_ratio.detach())


def response_log_prob(batch: PolicyBatch) -> Tensor:
    """log pi_theta(y) of every response, [N, 1] in nats: the sum over its counted tokens."""
    return masked(batch.log_probs, batch.response_mask).sum(dim=1, keepdim=True)


def weighted(log_weight: Tensor, advantages: Tensor) -> Tensor:
    """exp(log_weight) * A, exactly 0 (value and gradient) where A is 0 even if the weight overflows."""
    return torch.exp(torch.where(advantages == 0, torch.zeros_like(log_weight), log_weight)) * advantages


class Clipped(NamedTuple):
    """What a clip does to each weight: its objective, the objective without clip, and the two clip flags."""

    objective: Tensor
    unclipped: Tensor
    outside_band: Tensor
    clipped: Tensor


def pessimistic_clip(
    log_weight: Tensor,
    low: Tensor | float,
    high: Tensor | float,
    advantages: Tensor,
    dual_high: Tensor | float | None = None,
) -> Clipped:
    """min(w A, clip(w, e^low, e^high) A) with w = e^log_weight, element by element.

    The min is taken in log space, where it cannot overflow for A > 0:
        A > 0: e^min(x, high) A      A < 0: e^max(x, low) A      A = 0: 0
    `dual_high` (dual clip, arXiv 1912.09729) bounds the weight of A < 0 from above: e^min(max(x, low), dual_high) A.
    For A < 0 without dual clip the objective is unbounded below; an overflow there is left visible as -inf.

    >>> import torch
    >>> x = torch.tensor([0.5, 0.5, -0.5])
    >>> pessimistic_clip(x, -0.1, 0.1, torch.tensor([1.0, -1.0, -1.0])).clipped.tolist()
    [True, False, True]

    Source: arXiv 1707.06347 eq. 7 (the log-space form is ours).
    """
    advantages = advantages.detach()
    low, high = _like(low, log_weight), _like(high, log_weight)
    positive, negative = advantages > 0, advantages < 0
    floored = torch.clamp(log_weight, min=low)
    clipped = (positive & (log_weight > high)) | (negative & (log_weight < low))
    if dual_high is not None:
        ceiling = _like(dual_high, log_weight)
        floored = torch.clamp(floored, max=ceiling)
        clipped = clipped | (negative & (log_weight > ceiling))
    exponent = torch.where(positive, torch.clamp(log_weight, max=high), floored)
    return Clipped(
        objective=weighted(exponent, advantages),
        unclipped=weighted(log_weight, advantages),
        outside_band=(log_weight < low) | (log_weight > high),
        clipped=clipped,
    )


def _like(bound: Tensor | float, x: Tensor) -> Tensor:
    """The bound in the precision of x, on its device; a number is filled in there: a copy makes a GPU's host wait."""
    return bound.to(x) if isinstance(bound, Tensor) else torch.full((), bound, dtype=x.dtype, device=x.device)


def capped_policy_gradient(log_ratio: Tensor, log_cap: float, batch: PolicyBatch) -> Clipped:
    """sg[min(r_t, cap)] A log pi_t, token by token: the ratio is a constant weight, cut at a maximum, [N, T].

    A capped token keeps a gradient; `clipped` says where the cap acted (never for A = 0).
    """
    advantages, weight = batch.advantages.detach(), log_ratio.detach()
    log_probs = masked(batch.log_probs, batch.response_mask)
    outside = weight > log_cap
    return Clipped(
        objective=weighted(weight.clamp(max=log_cap), advantages) * log_probs,
        unclipped=weighted(weight, advantages) * log_probs,
        outside_band=outside,
        clipped=outside & (advantages != 0),
    )


def by_sign(advantages: Tensor, positive: float, other: float, dtype: torch.dtype) -> Tensor:
    """One number where A > 0, another elsewhere, shaped like the advantages, in full `dtype` precision."""
    pair = torch.tensor([other, positive], dtype=dtype, device=advantages.device)
    return pair[(advantages > 0).long()]


def unclipped_only(unclipped: Tensor, objective: Tensor | None = None) -> Clipped:
    """What a method without any band reports: no flag is ever up."""
    never = torch.zeros_like(unclipped, dtype=torch.bool)
    return Clipped(unclipped if objective is None else objective, unclipped, never, never)


def sequence_surrogate(log_weight: Tensor, clip: Clipped) -> Surrogate:
    """The surrogate of a method with one weight a response, mean over responses: all columns of `clip` are [N, 1]."""
    return Surrogate(
        objective=clip.objective[:, 0],
        unclipped=clip.unclipped[:, 0],
        log_weight=log_weight,
        outside_band=clip.outside_band,
        clipped=clip.clipped,
        divisor=Divisor.RESPONSES,
    )


def token_surrogate(
    log_weight: Tensor, clip: Clipped, batch: PolicyBatch, divisor: Divisor, *, mean: bool = False
) -> Surrogate:
    """The surrogate of a method with one weight a token: the sum over a response's tokens, with `mean` their mean."""
    mask = batch.response_mask
    objective, unclipped = (masked(x, mask).sum(dim=1) for x in (clip.objective, clip.unclipped))
    return Surrogate(
        objective=per_token(objective, batch.lengths) if mean else objective,
        unclipped=per_token(unclipped, batch.lengths) if mean else unclipped,
        log_weight=log_weight,
        outside_band=clip.outside_band & mask,
        clipped=clip.clipped & mask,
        divisor=divisor,
    )


def divisor_count(divisor: Divisor, lengths: Tensor, max_new_tokens: int) -> float:
    """What the objectives of one optimizer step are divided by, from the lengths of all its responses."""
    if divisor == Divisor.TOKENS:
        return float(lengths.sum())
    if divisor == Divisor.CONSTANT:
        return len(lengths) * max_new_tokens
    return len(lengths)


def drift_per_token(sequence_log_ratios: Tensor, lengths: Tensor) -> Tensor:
    """Token-weighted mean log ratio, a scalar in nats per token: sum_i S_i / sum_i L_i.

    Under the old policy its expectation is -KL(pi_old || pi_theta) per token.
    """
    return sequence_log_ratios.sum() / lengths.sum()


def spread_per_root_token(sequence_log_ratios: Tensor, lengths: Tensor, drift: Tensor | float) -> Tensor:
    """sigma_hat, the spread of S per square root of a token: sqrt(mean_i (S_i - L_i drift)^2 / L_i), over L_i > 0."""
    squares = per_token((sequence_log_ratios - lengths * drift) ** 2, lengths)
    return exact_root(squares[lengths > 0].mean())


def effective_sample_size(log_weights: Tensor) -> Tensor:
    """Kish's effective share of the responses, in (0, 1]: (sum w)^2 / (N sum w^2) with w = e^log_weight.

    1 when all weights are equal; 1/N when one response carries all. Computed relative to the largest weight.
    """
    w = torch.exp(log_weights - log_weights.max())
    return w.sum() ** 2 / (w.numel() * (w**2).sum())


def kl_k1(log_ratio: Tensor) -> Tensor:
    """Estimator k1 of KL(old || new) on samples of the old policy: -log r. Unbiased, may be negative."""
    return -log_ratio


def kl_k3(log_ratio: Tensor) -> Tensor:
    """Estimator k3 of KL(old || new) on samples of the old policy: r - 1 - log r. Unbiased, never negative.

    Source: Schulman, "Approximating KL divergence" (2020).
    """
    return torch.expm1(log_ratio) - log_ratio


def exact_root(x: Tensor) -> Tensor:
    """The square root of x, correctly rounded: the same bits on every processor. Without a gradient.

    On a CPU it is numpy's: the processor's instruction, which IEEE 754 fixes to the last bit. torch.sqrt is MKL's and
    begins with the processor's own approximation (rsqrtps), and that differs between makers.

    Source: ours.
    """
    if x.device.type != "cpu":
        return x.sqrt()
    return torch.as_tensor(np.sqrt(x.detach().numpy()), dtype=x.dtype)
