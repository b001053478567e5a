"""What is logged of the updates on one rollout step, by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from suite.training.metrics import update_metrics
from suite.training.update import StepReport


def report_of(shares: list[float], lengths: list[int], log_ratios: list[float], weights: list[float]) -> StepReport:
    """A report of as many responses as shares, every token of one response with the same log ratio."""
    width = max(lengths)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    ratios = torch.tensor(log_ratios)[:, None] * mask
    known = {
        "rows": tuple(range(len(shares))),
        "token_log_ratios": ratios,
        "mask": mask,
        "grad_norm": 1.0,
        "objective": 0.0,
        "lengths": torch.tensor(lengths).float(),
        "outside_share": torch.tensor(shares),
        "clipped_share": torch.tensor(shares) / 2,
        "log_weights": torch.tensor(weights),
        "kl_to_start": None,
        "value_loss": None,
        "log_probs": ratios,
        "old_log_probs": torch.zeros_like(ratios),
    }
    return StepReport(**{f.name: known[f.name] for f in dataclasses.fields(StepReport)})


def test_metrics_by_hand() -> None:
    """The first update is left out; shares are means over responses, not over tokens; KL is a mean over tokens."""
    first = report_of([1.0, 1.0, 1.0], [2, 2, 2], [9.0, 9.0, 9.0], [9.0])
    later = report_of([1.0, 0.0, 0.5], [1, 3, 4], [0.5, -0.1, 0.2], [math.log(2), 0.0])
    numbers = update_metrics([first, later], torch.tensor([1.0, -2.0, 3.0]))
    tokens = [0.5] + [-0.1] * 3 + [0.2] * 4
    drift = sum(tokens) / 8
    squares = [(length * (x - drift)) ** 2 / length for x, length in ((0.5, 1), (-0.1, 3), (0.2, 4))]
    expected = {
        "clip/outside_band": 0.5,
        "clip/outside_band_positive": 0.75,
        "clip/outside_band_negative": 0.0,
        "clip/clipped": 0.25,
        "clip/clipped_positive": 0.375,
        "clip/clipped_negative": 0.0,
        "ratio/effective_sample_size": 9 / (2 * 5),
        "ratio/mean_weight": 1.5,
        "ratio/drift": drift,
        "ratio/sigma_hat": math.sqrt(sum(squares) / 3),
        "kl/old_new_k1": -drift,
        "kl/old_new_k3": sum(math.exp(x) - 1 - x for x in tokens) / 8,
    }
    assert {name: numbers[name] for name in expected} == pytest.approx(expected, rel=1e-5)
