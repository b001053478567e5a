"""Small batches to try a surrogate on, and what it says of them: material of `fspo method check` and of the tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from suite.types import CreditInput, Method, PolicyBatch, State, Surrogate

SPREADS = (1e-4, 2e-3, 0.03, 0.3)
"""Per-token log-ratio scales that between them reach both sides of the bands that methods have."""


def with_hyper(method: Method, **changes: Any) -> Method:
    """The method with some hyper-parameters changed."""
    return dataclasses.replace(method, hyper=dataclasses.replace(method.hyper, **changes))


def other_settings(method: Method) -> Iterator[tuple[str, Method]]:
    """(label, method) with each further value that a hyper-parameter names (`knob`'s `also`), one at a time."""
    for field in dataclasses.fields(method.hyper):
        values = field.metadata["also"](method.hyper) if "also" in field.metadata else ()
        for value in values:
            if value != getattr(method.hyper, field.name):
                yield f"{field.name}={value}", with_hyper(method, **{field.name: value})


def random_mask(generator: torch.Generator, rows: int, tokens: int, holes: bool) -> Tensor:
    """Responses of random length, padded on the right; with `holes` about a quarter of the tokens do not count."""
    lengths = torch.randint(1, tokens + 1, (rows, 1), generator=generator)
    mask = torch.arange(tokens) < lengths
    if holes:
        mask &= torch.rand(rows, tokens, generator=generator) > 0.25
    mask[torch.arange(rows), lengths[:, 0] - 1] = True
    return mask


def random_batch(
    seed: int,
    *,
    rows: int = 6,
    tokens: int = 7,
    per_token: bool = False,
    spread: float | None = None,
    holes: bool = True,
    dtype: torch.dtype = torch.float64,
) -> PolicyBatch:
    """A batch with finite garbage in the padding. `spread` None mixes SPREADS; row 0 has advantage 0 at times."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    mask = random_mask(g, rows, tokens, holes)
    scales = torch.tensor(SPREADS if spread is None else (spread,), dtype=torch.float64)
    scale = scales[torch.randint(len(scales), (rows, 1), generator=g)]
    old = -normal(rows, tokens).abs()
    new = (old + scale * normal(rows, tokens)).clamp(max=-1e-4)  # a probability, below 1
    advantages = normal(rows, tokens if per_token else 1)
    if seed % 3 == 0:
        advantages[0] = 0.0
    columns = {
        "log_probs": new,
        "old_log_probs": old,
        "sampler_log_probs": old + 0.01 * normal(rows, tokens),
        "values": normal(rows, tokens),
        "old_values": normal(rows, tokens),
        "returns": normal(rows, tokens),
    }
    columns = {name: torch.where(mask, x, 3 * normal(rows, tokens)).to(dtype) for name, x in columns.items()}
    return PolicyBatch(advantages=advantages.to(dtype), response_mask=mask, lengths=mask.sum(1).to(dtype), **columns)


def batch_for(method: Method, seed: int, **options: Any) -> PolicyBatch:
    """`random_batch` with the shape of advantages that the method takes."""
    return random_batch(seed, per_token="values" in method.needs, **options)


def random_credit_input(
    seed: int, *, prompts: int = 4, samples: int = 3, tokens: int = 6, holes: bool = False
) -> CreditInput:
    """Rewards of shuffled groups, with a critic's values (finite garbage in the padding)."""
    g = torch.Generator().manual_seed(seed)
    count = prompts * samples
    groups = torch.arange(prompts).repeat_interleave(samples)[torch.randperm(count, generator=g)]
    mask = random_mask(g, count, tokens, holes)
    values = torch.randn(count, tokens, generator=g, dtype=torch.float64)
    binary = torch.randint(2, (count,), generator=g).double()
    rewards = binary if seed % 2 else torch.randn(count, generator=g, dtype=torch.float64)
    return CreditInput(rewards=rewards, group_ids=7 * groups + 3, response_mask=mask, values=values)


def replace(batch: PolicyBatch, **columns: Tensor) -> PolicyBatch:
    """The batch with some columns exchanged."""
    return dataclasses.replace(batch, **columns)


def token_columns(batch: PolicyBatch) -> dict[str, Tensor]:
    """The batch's columns of one number a token. Advantages of a single column are taken as one a response."""
    shape = batch.response_mask.shape
    names = [f.name for f in dataclasses.fields(batch) if f.name not in ("response_mask", "lengths")]
    if shape[1] == 1:
        names.remove("advantages")
    return {name: x for name in names if (x := getattr(batch, name)) is not None and x.shape == shape}


def with_padding(batch: PolicyBatch, garbage: float) -> PolicyBatch:
    """The batch with `garbage` wherever the mask is False."""
    columns = token_columns(batch).items()
    return replace(batch, **{name: x.masked_fill(~batch.response_mask, garbage) for name, x in columns})


def widened(batch: PolicyBatch, extra: int, side: str) -> PolicyBatch:
    """The batch with `extra` more columns of padding on the "right" or "left"."""

    def widen(column: Tensor, fill: float | bool) -> Tensor:
        pad = torch.full((len(column), extra), fill, dtype=column.dtype)
        return torch.cat([column, pad] if side == "right" else [pad, column], dim=1)

    columns = {name: widen(x, 5.0) for name, x in token_columns(batch).items()}
    return replace(batch, response_mask=widen(batch.response_mask, False), **columns)


def batch_from_log_ratios(
    log_ratios: Tensor, advantages: Tensor, mask: Tensor | None = None, old: float = 0.0
) -> PolicyBatch:
    """A batch whose new minus old log-probabilities are `log_ratios` [N, T]; every old one is `old`."""
    mask = torch.ones_like(log_ratios, dtype=torch.bool) if mask is None else mask
    return PolicyBatch(
        log_probs=log_ratios + old,
        old_log_probs=torch.full_like(log_ratios, old),
        advantages=advantages,
        response_mask=mask,
        lengths=mask.sum(1).to(log_ratios.dtype),
    )


def judged(method: Method, batch: PolicyBatch, state: State | None = None) -> Surrogate:
    """What the method says of the batch, by default with nothing observed."""
    return method.surrogate(batch, method.hyper, state or {})


def gradient(method: Method, batch: PolicyBatch, state: State | None = None, column: str = "objective") -> Tensor:
    """d sum(column) / d log_probs, [N, T]."""
    _, (found,) = judged_with_gradients(method, batch, state or {}, [column])
    return found


def judged_with_gradients(
    method: Method, batch: PolicyBatch, state: State, columns: Sequence[str]
) -> tuple[Surrogate, list[Tensor]]:
    """What the method says of the batch, and d sum(column) / d log_probs, [N, T], of each column."""
    log_probs = batch.log_probs.detach().clone().requires_grad_(True)
    surrogate = method.surrogate(replace(batch, log_probs=log_probs), method.hyper, state)
    sums = [getattr(surrogate, column).sum() for column in columns]
    return surrogate, [torch.autograd.grad(x, log_probs, retain_graph=x is not sums[-1])[0] for x in sums]
