"""Counter-based randomness: every draw is a function of labels alone, whatever the order and the batch size."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

_TOKEN_STRIDE = -7046029254386353131  # 2^64 / golden ratio as a signed 64-bit number: consecutive counters spread out
_POSITION_STRIDE = -3335678366873096957
_IN_CACHE = 2**16


def derive(run_seed: int, *labels: str | int) -> int:
    """A signed 64-bit key from a run seed and labels such as ("sample", step, problem id, sample index).

    Labels are hashed with their lengths, so ("ab", "c") and ("a", "bc") differ.
    """
    digest = hashlib.blake2b(digest_size=8)
    for label in (run_seed, *labels):
        text = f"{type(label).__name__}:{label}".encode()
        digest.update(len(text).to_bytes(4, "little") + text)
    return int.from_bytes(digest.digest(), "little", signed=True)


def generator(run_seed: int, *labels: str | int) -> torch.Generator:
    """A CPU torch generator seeded by `derive`, for shuffles that are small and rare."""
    return torch.Generator().manual_seed(derive(run_seed, *labels) & (2**63 - 1))


def _mix_(z: Tensor) -> Tensor:
    """splitmix64's finaliser on int64 with wrap-around, in place. Source: Steele, Lea and Flood, OOPSLA 2014."""
    z.bitwise_xor_((z >> 30).bitwise_and_(0x3FFFFFFFF)).mul_(-4658895280553007687)
    z.bitwise_xor_((z >> 27).bitwise_and_(0x1FFFFFFFFF)).mul_(-7723592293110705685)
    return z.bitwise_xor_((z >> 31).bitwise_and_(0x1FFFFFFFF))


def gumbel_noise(keys: Tensor, positions: Tensor, vocabulary: int) -> Tensor:
    """Standard Gumbel noise for every row and token id, [B, V] float32.

    v = hash(key, position, token) in (0, 1),   g = -log(-log(1 - v))
    keys [B] int64 from `derive`; positions [B] int64, the index of the token in the response. argmax(log p + g) is an
    exact draw from p, and two policies that nearly agree mostly draw the same token.

    v is integer arithmetic, the same on every device. Logarithms round differently on another kind of device: on an
    H100 86 % of the numbers had the bits of a CPU's, and the others differed by at most 9.6e-7.
    """
    rows = _mix_(keys + positions * _POSITION_STRIDE)
    tokens = torch.arange(1, vocabulary + 1, device=keys.device) * _TOKEN_STRIDE
    noise = torch.empty(len(keys), vocabulary, device=keys.device)
    # A few rows at a time on a CPU: a dozen passes over numbers that stay in the cache.
    step = len(keys) if keys.is_cuda else max(1, _IN_CACHE // vocabulary)
    for start in range(0, len(keys), step):
        bits = (_mix_(rows[start : start + step, None] + tokens) >> 32).bitwise_and_(0xFFFFFFFF)
        v = bits.float().add_(0.5).mul_(2.0**-32).clamp_(max=1 - 2.0**-24)
        noise[start : start + step] = torch.log1p(v.neg_()).neg_().log_().neg_()
    return noise
