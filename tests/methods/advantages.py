"""Advantage rules as loops over Python floats, and the `credit` of the methods that use one number a response."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from methods import Floats, counted


def leave_one_out(rewards: Floats, groups: Sequence[int]) -> list[float]:
    """A_i = R_i - mean of the rewards of the other members of i's group."""
    result = []
    for i in range(len(rewards)):
        others = [rewards[j] for j in range(len(rewards)) if groups[j] == groups[i] and j != i]
        result.append(rewards[i] - math.fsum(others) / len(others))
    return result


def group_centred(rewards: Floats, groups: Sequence[int]) -> list[float]:
    """A_i = R_i - mean of the rewards of i's group, itself included."""
    result = []
    for i in range(len(rewards)):
        members = [rewards[j] for j in range(len(rewards)) if groups[j] == groups[i]]
        result.append(rewards[i] - math.fsum(members) / len(members))
    return result


def group_standardised(rewards: Floats, groups: Sequence[int], ddof: int, eps: float) -> list[float]:
    """A_i = (R_i - mean) / (std + eps) in the group; 0 for a group of one or of equal rewards."""
    result = []
    for i in range(len(rewards)):
        members = [rewards[j] for j in range(len(rewards)) if groups[j] == groups[i]]
        if all(r == members[0] for r in members):
            result.append(0.0)
            continue
        mean = math.fsum(members) / len(members)
        variance = math.fsum((r - mean) ** 2 for r in members) / (len(members) - ddof)
        result.append((rewards[i] - mean) / (math.sqrt(variance) + eps))
    return result


def gae(reward: float, values: Floats, mask: Sequence[bool], gamma: float, lam: float) -> list[float]:
    """A_k = sum_j (gamma lam)^j delta_(k+j), delta_k = r_k + gamma V_(k+1) - V_k over the counted tokens of a row.

    The reward falls on the last counted token, the value after it is 0. Padding gets 0.
    """
    places = counted(mask)
    v = [values[t] for t in places] + [0.0]
    last = len(places) - 1
    delta = [(reward if k == last else 0.0) + gamma * v[k + 1] - v[k] for k in range(len(places))]
    result = [0.0] * len(mask)
    for k, t in enumerate(places):
        result[t] = math.fsum((gamma * lam) ** j * delta[k + j] for j in range(len(places) - k))
    return result


def whiten(rows: Sequence[Floats], masks: Sequence[Sequence[bool]], ddof: int, eps: float) -> list[list[float]]:
    """(x - mean) / (std + eps) over all counted numbers of all rows. Padding gets 0."""
    numbers = [row[t] for row, mask in zip(rows, masks, strict=True) for t in counted(mask)]
    if not numbers:
        return [[0.0] * len(mask) for mask in masks]
    mean = math.fsum(numbers) / len(numbers)
    std = math.sqrt(math.fsum((x - mean) ** 2 for x in numbers) / (len(numbers) - ddof))
    return [
        [(row[t] - mean) / (std + eps) if mask[t] else 0.0 for t in range(len(mask))]
        for row, mask in zip(rows, masks, strict=True)
    ]


Credit = tuple[list[list[float]], None]
"""(advantages, one number a response; no returns)."""


def leave_one_out_credit(
    rewards: Floats, groups: Sequence[int], masks: Sequence[Sequence[bool]], values: Any, hyper: Any
) -> Credit:
    """A = R - mean of the others in the group, one number a response."""
    return [[a] for a in leave_one_out(rewards, groups)], None


def centred_credit(
    rewards: Floats, groups: Sequence[int], masks: Sequence[Sequence[bool]], values: Any, hyper: Any
) -> Credit:
    """A = R - mean of the group, one number a response."""
    return [[a] for a in group_centred(rewards, groups)], None


def standardised_credit(
    rewards: Floats, groups: Sequence[int], masks: Sequence[Sequence[bool]], values: Any, hyper: Any
) -> Credit:
    """A = (R - mean) / (std + eps) in the group, one number a response."""
    return [[a] for a in group_standardised(rewards, groups, hyper.std_ddof, hyper.std_eps)], None
