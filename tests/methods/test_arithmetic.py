"""Effective sample size and the estimators of KL, against their definitions."""

from __future__ import annotations

import math

import pytest
import torch

from suite.arithmetic import effective_sample_size, kl_k1, kl_k3


def test_effective_sample_size_is_kishs() -> None:
    g = torch.Generator().manual_seed(0)
    logs = torch.randn(50, generator=g, dtype=torch.float64)
    w = [math.exp(x) for x in logs.tolist()]
    assert effective_sample_size(logs).item() == pytest.approx(sum(w) ** 2 / (50 * sum(x * x for x in w)), rel=1e-12)
    assert effective_sample_size(logs + 2000).item() == pytest.approx(effective_sample_size(logs).item(), rel=1e-12)
    assert effective_sample_size(torch.zeros(7)).item() == pytest.approx(1)
    assert effective_sample_size(torch.tensor([0.0, -800.0, -800.0, -800.0])).item() == pytest.approx(1 / 4)


def test_kl_estimators_agree_with_the_divergence() -> None:
    """Both are unbiased over samples of the old policy, k3 is never negative; by hand at one point."""
    old, new = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.2, 0.3, 0.5]).double()
    exact = (old * (old / new).log()).sum().item()
    for estimator in (kl_k1, kl_k3):
        assert (old * estimator((new / old).log())).sum().item() == pytest.approx(exact, rel=1e-12)
    assert kl_k1(torch.tensor(0.25)).item() == -0.25
    assert kl_k3(torch.tensor(0.25).double()).item() == pytest.approx(math.exp(0.25) - 1.25, rel=1e-12)
    assert kl_k3(torch.linspace(-3, 3, 61)).min().item() >= 0
