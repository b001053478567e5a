"""TRL's own loss, called unbound on a stand-in trainer. Imports TRL when asked, needs nothing of the suite."""

from __future__ import annotations

import importlib
import os
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import torch

from peers.batches import Batch
from peers.pairings import Pairing

PACKAGE = "trl"
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
TRAINERS = {
    "GRPOTrainer": ("trl", "GRPOConfig"),
    "RLOOTrainer": ("trl", "RLOOConfig"),
    "GMPOTrainer": ("trl.experimental.gmpo", "GMPOConfig"),
}
FIELDS_OF_THE_TRAINER = (
    "loss_type",
    "importance_sampling_level",
    "max_completion_length",
    "beta",
    "top_entropy_quantile",
)


def _stand_in(args: Any, log_probs: torch.Tensor) -> SimpleNamespace:
    """What the loss looks up on its trainer: the fields that the real one copies from its config, one process."""
    return SimpleNamespace(
        **{name: getattr(args, name) for name in FIELDS_OF_THE_TRAINER if hasattr(args, name)},
        args=args,
        epsilon_low=args.epsilon,
        epsilon_high=args.epsilon if args.epsilon_high is None else args.epsilon_high,
        model=SimpleNamespace(training=True),
        current_gradient_accumulation_steps=1,
        accelerator=SimpleNamespace(num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x),
        off_policy_mask_threshold=getattr(args, "off_policy_mask_threshold", None),
        use_vllm=False,
        aux_loss_enabled=False,
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
        _get_per_token_logps_and_entropies=lambda *a, **k: (log_probs, torch.zeros_like(log_probs).detach(), None),
    )


def run(pairing: Pairing, batch: Batch) -> dict[str, Any]:
    """Loss of one batch as TRL computes it, and its gradient in the log-probs, in float64."""
    home, config_name = TRAINERS[pairing.entry]
    module = importlib.import_module(home)
    trainer, config = getattr(module, pairing.entry), getattr(module, config_name)
    args = config(bf16=False, use_cpu=True, report_to="none", **pairing.settings)
    log_probs = torch.tensor(batch.log_probs, dtype=torch.float64, requires_grad=True)
    old = torch.tensor(batch.old_log_probs, dtype=torch.float64)
    mask = torch.tensor(batch.mask)
    stand_in = _stand_in(args, log_probs)
    for helper in ("get_gamma_weights", "get_off_policy_mask"):
        if hasattr(trainer, helper):
            setattr(stand_in, helper, getattr(trainer, helper))
    ids = torch.zeros_like(mask)
    advantages = batch.token_advantages if pairing.per_token else batch.advantages
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": torch.ones_like(ids[:, :1]),
        "completion_ids": ids,
        "completion_mask": mask,
        "advantages": torch.tensor(advantages, dtype=torch.float64),
        "old_per_token_logps": old,
        "old_logps": (old * mask).sum(1),
        "num_items_in_batch": mask.sum(),
    }
    loss = trainer._compute_loss(stand_in, None, inputs)
    (gradient,) = torch.autograd.grad(loss, log_probs)
    return {"loss": loss.item(), "gradient": gradient.tolist()}
