"""verl's own losses and advantage rules, out of its registries. Imports verl when asked, needs nothing of the suite."""

from __future__ import annotations

import importlib
from typing import Any

import torch

from peers.batches import Batch
from peers.pairings import ADVANTAGE, POLICY, Pairing

PACKAGE = "verl"


def _tensor(rows: Any) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def _policy(pairing: Pairing, batch: Batch) -> dict[str, Any]:
    """The registered policy loss, called as verl's worker does: bool mask, the count of the step in the config."""
    core = importlib.import_module("verl.trainer.ppo.core_algos")
    actor = importlib.import_module("verl.workers.config").ActorConfig
    settings = dict(pairing.settings)
    responses = settings.pop("global_batch_size", None)
    config = actor(strategy="fsdp", rollout_n=1, ppo_micro_batch_size_per_gpu=1, **settings)
    mask = torch.tensor(batch.mask).bool()
    counts = {"dp_size": 1, "batch_num_tokens": int(mask.sum()), "global_batch_size": responses}
    config.global_batch_info.update(counts, loss_scale_factor=config.loss_scale_factor)
    log_probs = _tensor(batch.log_probs).requires_grad_(True)
    columns = _tensor(batch.token_advantages if pairing.per_token else [[a] for a in batch.advantages])
    loss, _ = core.get_policy_loss_fn(pairing.entry)(
        old_log_prob=_tensor(batch.old_log_probs),
        log_prob=log_probs,
        advantages=columns.expand(log_probs.shape),
        response_mask=mask,
        loss_agg_mode=config.loss_agg_mode,
        config=config,
    )
    (gradient,) = torch.autograd.grad(loss, log_probs)
    return {"loss": loss.item(), "gradient": gradient.tolist()}


def _value(pairing: Pairing, batch: Batch) -> dict[str, Any]:
    core = importlib.import_module("verl.trainer.ppo.core_algos")
    values = _tensor(batch.values).requires_grad_(True)
    loss, _ = core.compute_value_loss(
        vpreds=values,
        returns=_tensor(batch.returns),
        values=_tensor(batch.old_values),
        response_mask=torch.tensor(batch.mask).bool(),
        **pairing.settings,
    )
    (gradient,) = torch.autograd.grad(loss, values)
    return {"loss": loss.item(), "gradient": gradient.tolist()}


def _advantage(pairing: Pairing, batch: Batch) -> dict[str, Any]:
    """The registered advantage rule: advantages at the counted tokens, or the returns for the critic."""
    core = importlib.import_module("verl.trainer.ppo.core_algos")
    numpy = importlib.import_module("numpy")
    mask = torch.tensor(batch.mask)
    last = mask.sum(1, keepdim=True) - 1
    rewards = torch.zeros(mask.shape, dtype=torch.float64).scatter(1, last, _tensor(batch.rewards)[:, None])
    columns = {"token_level_rewards": rewards, "response_mask": mask, **pairing.settings}
    if pairing.entry == "gae":
        columns["values"] = _tensor(batch.values)
    else:
        columns["index"] = numpy.array(batch.groups)
    advantages, returns = core.get_adv_estimator_fn(pairing.entry)(**columns)
    wanted = returns if pairing.variant.endswith("returns") else advantages
    return {"advantage": (wanted * mask).tolist()}


def run(pairing: Pairing, batch: Batch) -> dict[str, Any]:
    """Loss of one batch as verl computes it and its gradient in the log-probs or values; or its advantages. float64."""
    if pairing.target == ADVANTAGE:
        return _advantage(pairing, batch)
    return (_policy if pairing.target == POLICY else _value)(pairing, batch)
