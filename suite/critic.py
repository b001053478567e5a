"""The critic of PPO: a copy of the policy's body with a scalar head."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from suite.scoring import MicroBatch, hidden_states


class Critic(nn.Module):
    """V(prompt, y_<t) for every response token: what reward the policy will get from here, in reward units."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.body = copy.deepcopy(model.base_model)
        exact = torch.promote_types(model.dtype, torch.float32)
        self.head = nn.Linear(model.config.hidden_size, 1, dtype=exact, device=model.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: MicroBatch) -> Tensor:
        """values [n, T] in the head's precision (float32, float64 for a float64 model), 0 at padding."""
        values = self.head(hidden_states(self.body, batch).to(self.head.weight.dtype))[:, 0]
        return batch.padded(values)
