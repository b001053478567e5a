"""What a rollout step logs: plain numbers from its rollouts and from the reports of its optimizer steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from suite.arithmetic import drift_per_token, effective_sample_size, kl_k1, kl_k3, spread_per_root_token
from suite.policy.ranks import ALONE, Ranks
from suite.training.update import StepReport
from suite.training.whole_batch import ScoredBatch
from suite.types import FinishReason, Rollout, Verdict


def rollout_metrics(
    rollouts: Sequence[Rollout], parts: Sequence[ScoredBatch], ranks: Ranks = ALONE
) -> dict[str, float]:
    """Reward, groups without signal, lengths, truncation, entropy and the sampler's mismatch.

    Entropy in nats per token, before the first update. `parts` are this process's; the numbers are the whole step's.
    """
    lengths = torch.tensor([len(r.response_ids) for r in rollouts], dtype=torch.float64)
    tokens = float(lengths.sum())
    entropy = ranks.sum(sum(float(p.entropy.sum()) for p in parts))
    gaps = ranks.gather(torch.cat([_sampler_gap(p) for p in parts]))
    return {
        "reward/mean": sum(r.reward or 0.0 for r in rollouts) / len(rollouts),
        "reward/uniform_group_share": _uniform_share(rollouts),
        "reward/no_answer_share": sum(r.verdict == Verdict.NO_ANSWER for r in rollouts) / len(rollouts),
        "reward/undecided_share": sum(r.verdict == Verdict.UNDECIDED for r in rollouts) / len(rollouts),
        "length/mean": float(lengths.mean()),
        "length/max": float(lengths.max()),
        "length/truncated_share": sum(r.finish_reason == FinishReason.LENGTH for r in rollouts) / len(rollouts),
        "entropy/mean": entropy / tokens,
        "sampler_gap/mean_abs": float(gaps.abs().mean()),
        "sampler_gap/max_abs": float(gaps.abs().max()),
        "tokens/sampled": tokens,
        "tokens/scored": float(sum(len(r.prompt_ids) for r in rollouts)) + tokens,
    }


def _uniform_share(rollouts: Sequence[Rollout]) -> float:
    """Share of the problems whose responses all got one reward, and so teach nothing."""
    rewards: dict[str, set[float | None]] = {}
    for rollout in rollouts:
        rewards.setdefault(rollout.problem_id, set()).add(rollout.reward)
    return sum(len(seen) == 1 for seen in rewards.values()) / len(rewards)


def _sampler_gap(part: ScoredBatch) -> Tensor:
    """Trainer's minus sampler's log-prob of each response token."""
    assert part.batch.sampler_log_probs is not None
    mask = part.batch.response_mask
    return part.batch.old_log_probs[mask] - part.batch.sampler_log_probs[mask]


def update_metrics(reports: Sequence[StepReport], advantages: Tensor) -> dict[str, float]:
    """Clip shares by sign of A, KL, drift, sigma, effective sample size and gradient norm over the optimizer steps.

    advantages [N] are response-level. Everything about ratios is taken over the second and later updates: at the first
    one every ratio is 1. With a single update per rollout those numbers are nan.
    """
    norms = torch.tensor([r.grad_norm for r in reports])
    numbers = {"grad_norm/mean": float(norms.mean()), "grad_norm/max": float(norms.max())}
    numbers["objective/mean"] = sum(r.objective for r in reports) / len(reports)
    for name in ("kl_to_start", "value_loss"):
        seen = [x for r in reports if (x := getattr(r, name)) is not None]
        if seen:
            numbers[f"loss/{name}"] = sum(seen) / len(seen)
    return numbers | _ratio_metrics(reports[1:], advantages)


def _ratio_metrics(later: Sequence[StepReport], advantages: Tensor) -> dict[str, float]:
    if not later:
        return {}
    lengths = torch.cat([r.lengths for r in later]).double()
    s = torch.cat([r.token_log_ratios.sum(dim=1) for r in later]).double()
    tokens = torch.cat([r.token_log_ratios[r.mask] for r in later]).double()
    sign = torch.cat([advantages[list(r.rows)] for r in later]).sign()
    outside = torch.cat([r.outside_share for r in later])
    clipped = torch.cat([r.clipped_share for r in later])
    drift = drift_per_token(s, lengths)
    return {
        "clip/outside_band": float(outside.mean()),
        "clip/outside_band_positive": _mean(outside[sign > 0]),
        "clip/outside_band_negative": _mean(outside[sign < 0]),
        "clip/clipped": float(clipped.mean()),
        "clip/clipped_positive": _mean(clipped[sign > 0]),
        "clip/clipped_negative": _mean(clipped[sign < 0]),
        "ratio/effective_sample_size": float(
            torch.stack([effective_sample_size(r.log_weights.double()) for r in later]).mean()
        ),
        "ratio/mean_weight": float(torch.cat([r.log_weights for r in later]).double().exp().mean()),
        "ratio/drift": float(drift),
        "ratio/sigma_hat": float(spread_per_root_token(s, lengths, drift)),
        "kl/old_new_k1": float(kl_k1(tokens).mean()),
        "kl/old_new_k3": float(kl_k3(tokens).mean()),
    }


def _mean(x: Tensor) -> float:
    return float(x.mean()) if x.numel() else math.nan
