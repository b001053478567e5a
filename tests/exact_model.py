"""A float64 model that is float64 throughout: transformers' norms round to float32."""

from __future__ import annotations

from typing import Any

import torch


class ExactNorm(torch.nn.Module):
    """x / sqrt(mean x^2 + eps) w in the precision of x."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.eps = norm.weight, norm.variance_epsilon

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


def with_exact_norms(model: Any) -> Any:
    """The model with such norms in the place of its own."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if type(child).__name__.endswith("RMSNorm"):
                setattr(module, name, ExactNorm(child))
    return model
