"""Random batches for the method tests: one builder, and hypothesis strategies over it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

import baselines
import fspo
from oracles import Row
from suite.types import CreditInput, Method, PolicyBatch, State, Surrogate

METHODS: dict[str, Method] = {**baselines.METHODS, "fspo": fspo.FSPO}
SEQUENCE_LEVEL = ("rloo", "gspo", "fspo")
SPREADS = (1e-4, 2e-3, 0.03, 0.3)
"""Per-token log-ratio scales that between them reach both sides of every method's band."""


def with_hyper(method: Method, **changes: Any) -> Method:
    """The method with some hyper-parameters changed."""
    return dataclasses.replace(method, hyper=dataclasses.replace(method.hyper, **changes))


def unbounded(method: Method) -> Method:
    """The method with a band that no batch of this file leaves (beyond +-5 in the log of the weight)."""
    return method.scaled({"ppo": 60, "grpo": 60, "rloo": 60, "gspo": 1e5, "fspo": 1e4}[method.name])


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
    new = old + scale * normal(rows, tokens)
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


def replace(batch: PolicyBatch, **columns: Tensor) -> PolicyBatch:
    """The batch with some columns exchanged."""
    return dataclasses.replace(batch, **columns)


def with_padding(batch: PolicyBatch, garbage: float) -> PolicyBatch:
    """The batch with `garbage` wherever the mask is False."""
    columns = {}
    for field in dataclasses.fields(batch):
        column = getattr(batch, field.name)
        if column is not None and column.shape == batch.response_mask.shape and column.dtype != torch.bool:
            columns[field.name] = column.masked_fill(~batch.response_mask, garbage)
    return replace(batch, **columns)


def batch_from_log_ratios(log_ratios: Tensor, advantages: Tensor, mask: Tensor | None = None) -> PolicyBatch:
    """A batch whose new minus old log-probabilities are exactly `log_ratios` [N, T] (the old ones are 0)."""
    mask = torch.ones_like(log_ratios, dtype=torch.bool) if mask is None else mask
    return PolicyBatch(
        log_probs=log_ratios,
        old_log_probs=torch.zeros_like(log_ratios),
        advantages=advantages,
        response_mask=mask,
        lengths=mask.sum(1).to(log_ratios.dtype),
    )


def rows_of(batch: PolicyBatch) -> list[Row]:
    """The batch as the plain lists that the oracles read."""

    def lists(column: Tensor | None) -> list[Any]:
        return [None] * len(batch.response_mask) if column is None else column.tolist()

    names = ("log_probs", "old_log_probs", "advantages", "response_mask", "values", "old_values", "returns")
    return [Row(*columns) for columns in zip(*(lists(getattr(batch, name)) for name in names), strict=True)]


def judged(method: Method, batch: PolicyBatch, state: State | None = None) -> Surrogate:
    """What the method says of the batch, by default with nothing observed."""
    return method.surrogate(batch, method.hyper, state or {})


def gradient(method: Method, batch: PolicyBatch, state: State, column: str = "objective") -> Tensor:
    """d sum(column) / d log_probs, [N, T]."""
    log_probs = batch.log_probs.detach().clone().requires_grad_(True)
    surrogate = method.surrogate(replace(batch, log_probs=log_probs), method.hyper, state)
    (result,) = torch.autograd.grad(getattr(surrogate, column).sum(), log_probs)
    return result


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


@st.composite
def policy_batches(draw: st.DrawFn, per_token: bool = False, dtype: torch.dtype = torch.float64) -> PolicyBatch:
    """Batches of 1 to 5 responses of up to 8 tokens; shrinks towards one token, no holes, a narrow spread."""
    return random_batch(
        draw(st.integers(0, 10_000)),
        rows=draw(st.integers(1, 5)),
        tokens=draw(st.integers(1, 8)),
        per_token=per_token,
        spread=draw(st.sampled_from(SPREADS)),
        holes=draw(st.booleans()),
        dtype=dtype,
    )


@st.composite
def grouped_rewards(draw: st.DrawFn) -> tuple[list[float], list[int]]:
    """Rewards and group ids, every group of at least two, in any order."""
    reward = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(-10, 10, allow_nan=False))
    sizes = draw(st.lists(st.integers(2, 5), min_size=1, max_size=4))
    groups = draw(st.permutations([g for g, size in enumerate(sizes) for _ in range(size)]))
    rewards = draw(st.lists(reward, min_size=len(groups), max_size=len(groups)))
    return rewards, list(groups)


def draw_batch(data: st.DataObject, method: Method) -> PolicyBatch:
    """A drawn batch with the shape of advantages that the method takes."""
    return data.draw(policy_batches(per_token="values" in method.needs))
