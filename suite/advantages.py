"""Advantage rules: what a reward is compared with. `ddof`, `eps`, `gamma` and `lam` have no defaults on purpose."""

from __future__ import annotations

import torch
from torch import Tensor

from suite.arithmetic import exact_root, masked


def _group_sums(x: Tensor, group_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Per row: the sum of x over the row's group, and the group's size (both [N])."""
    _, group = torch.unique(group_ids, return_inverse=True)
    sums = torch.zeros(int(group.max()) + 1, dtype=x.dtype, device=x.device).index_add_(0, group, x)
    sizes = torch.bincount(group).to(x.dtype)
    return sums[group], sizes[group]


def group_centred(rewards: Tensor, group_ids: Tensor) -> Tensor:
    """Reward minus the group's mean, [N]: R_i - mean_j R_j."""
    sums, sizes = _group_sums(rewards, group_ids)
    return rewards - sums / sizes


def leave_one_out(rewards: Tensor, group_ids: Tensor) -> Tensor:
    """Reward minus the mean of the others in its group, [N]: R_i - (sum_j R_j - R_i) / (G - 1).

    Raises ValueError for a group of one, which has no others.

    >>> leave_one_out(torch.tensor([1.0, 0.0, 0.0]), torch.tensor([7, 7, 7])).tolist()
    [1.0, -0.5, -0.5]

    Source: arXiv 2402.14740 eq. 8.
    """
    sums, sizes = _group_sums(rewards, group_ids)
    if bool((sizes < 2).any()):
        raise ValueError("leave-one-out needs at least 2 samples per problem; a group here has 1")
    return rewards - (sums - rewards) / (sizes - 1)


def group_over_mean(rewards: Tensor, group_ids: Tensor) -> Tensor:
    """Reward minus the group's mean, over that mean, [N]: (R_i - mean) / mean; 0 where the mean is not above 0.

    For rewards of 0 and 1 the mean is the group's success rate p: a success gets 1 / p - 1, a failure -1.

    >>> group_over_mean(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.tensor([7, 7, 7, 7])).tolist()
    [3.0, -1.0, -1.0, -1.0]

    Source: arXiv 2602.02710 algorithm 1 (the case of a mean below 0 is ours).
    """
    sums, sizes = _group_sums(rewards, group_ids)
    mean = sums / sizes
    return masked((rewards - mean) / mean, mean > 0)


def group_standardised(rewards: Tensor, group_ids: Tensor, *, ddof: int, eps: float) -> Tensor:
    """Reward standardised within its group, [N]: (R_i - mean) / (std + eps), std with `ddof`.

    A group of one, or of equal rewards, gets 0.

    Source: arXiv 2402.03300 sec. 4.1.2 (ddof and eps are not stated there).
    """
    centred = group_centred(rewards, group_ids)
    squares, sizes = _group_sums(centred**2, group_ids)
    std = exact_root(squares / (sizes - ddof).clamp(min=1))
    # Rounding leaves a residue in `centred` when equal rewards have no exact mean; eps = 0 would blow it up.
    _, group = torch.unique(group_ids, return_inverse=True)
    first = torch.zeros_like(rewards).index_copy_(0, group, rewards)
    differs, _ = _group_sums((rewards != first[group]).to(rewards.dtype), group_ids)
    return torch.where(differs > 0, centred / (std + eps), torch.zeros_like(centred))


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimates, [N, T], 0 at padding. The reward arrives at the last counted token.

    delta_t = r_t + gamma V_{t+1} - V_t,   A_t = delta_t + gamma lam A_{t+1},   V after the last token = 0

    Tokens that the mask leaves out are no steps of the episode. Source: arXiv 1506.02438 eq. 16.
    """
    values = masked(values, mask)
    reward_to_come = rewards.to(values.dtype)
    advantages = torch.zeros_like(values)
    following_value = following_advantage = torch.zeros_like(reward_to_come)
    for t in range(values.shape[1] - 1, -1, -1):
        counts = mask[:, t]
        delta = reward_to_come + gamma * following_value - values[:, t]
        advantages[:, t] = masked(delta + gamma * lam * following_advantage, counts)
        following_value = torch.where(counts, values[:, t], following_value)
        following_advantage = torch.where(counts, advantages[:, t], following_advantage)
        reward_to_come = torch.where(counts, 0, reward_to_come)
    return advantages


def whiten(x: Tensor, mask: Tensor, *, ddof: int, eps: float) -> Tensor:
    """x shifted and scaled to mean 0 and std 1 over the counted entries, 0 at padding: (x - mean) / (std + eps)."""
    counted = x[mask]
    mean = counted.mean()
    std = exact_root(((counted - mean) ** 2).sum() / max(counted.numel() - ddof, 1))
    return masked((x - mean) / (std + eps), mask)
