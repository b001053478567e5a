"""FSPO and the suite's other methods as policy losses of verl 0.9.

    actor_rollout_ref.model.external_lib=fspo.plugins.verl actor_rollout_ref.actor.policy_loss.loss_mode=fspo_zero_drift

verl imports this module in every worker; it needs torch and verl, none of the suite's other dependencies (install the
suite there with --no-deps). A method of ours is registered under its own name, unless verl has a loss of that name
(gspo, cispo, sapo, dppo_tv, dppo_kl), which stays verl's, or verl cannot be given it: running estimates (fspo with its
drift), which verl's losses cannot keep, or an advantage rule that is the method (maxrl) and that verl lacks. The
environment variable FSPO_SETTINGS, for instance "fspo.drift=zero fspo.c_low=0.05", also registers `fspo_as_set` with
these settings: a worker that does not get the variable then refuses the name instead of training with the defaults.
`fspo export` writes such commands. FSPO_RECORD records what the losses read into a bank (`fspo.plugins.verl_record`).
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from fspo.plugins import verl_record
from fspo.plugins.methods import METHODS, as_set, named
from suite.arithmetic import divisor_count, masked, token_log_ratio
from suite.types import Divisor, Level, Method, PolicyBatch, Surrogate, UserError

DEFAULT_MODE = "token-mean"
VARIABLE, SUFFIX = "FSPO_SETTINGS", "_as_set"


def settings(text: str) -> dict[str, dict[str, Any]]:
    """Hyper-parameters by method out of `method.field=value method.field=value`; UserError for another form.

    >>> settings("fspo.c_low=0.05 fspo.drift=zero fspo.c_dual=none")
    {'fspo': {'c_low': 0.05, 'drift': 'zero', 'c_dual': None}}
    """
    found: dict[str, dict[str, Any]] = {}
    for word in text.split():
        target, equals, value = word.partition("=")
        name, dot, field = target.partition(".")
        if not (equals and dot):
            raise UserError(f"{VARIABLE}: {word!r}: write it as method.field=value")
        found.setdefault(name, {})[field] = _value(value)
    return found


def _value(text: str) -> Any:
    if text.lower() in ("none", "true", "false"):
        return {"none": None, "true": True, "false": False}[text.lower()]
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def policy_loss(method: Method) -> Callable[..., tuple[Tensor, dict[str, float]]]:
    """The method as verl calls a loss: on one micro-batch, with the counts of the whole step in the config.

    loss = -(sum_i J_i) / count * dp_size, with the method's own count whatever `loss_agg_mode` says: another mode than
    verl's default draws a warning, for it moves verl's KL and entropy terms only. UserError for a method that verl
    cannot be given.
    """
    if why := _refusal(method):
        raise UserError(f"{method.name}: {why}")

    def loss(
        old_log_prob: Tensor,
        log_prob: Tensor,
        advantages: Tensor,
        response_mask: Tensor,
        loss_agg_mode: str = DEFAULT_MODE,
        config: Any = None,
        rollout_is_weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, float]]:
        batch = _policy_batch(method, old_log_prob, log_prob, advantages, response_mask.bool())
        surrogate = method.surrogate(batch, method.hyper, {})
        objective = surrogate.objective
        if loss_agg_mode != DEFAULT_MODE:
            warnings.warn(
                f"{method.name}: loss_agg_mode={loss_agg_mode!r} is for verl's KL and entropy terms only; this loss is "
                f"divided by its own count, {surrogate.divisor}",
                stacklevel=2,
            )
        if rollout_is_weights is not None:
            objective = objective * _per_response(method, "rollout_is_weights", rollout_is_weights, batch.response_mask)
        info = getattr(config, "global_batch_info", {})
        scale = (info.get("dp_size") or 1) / _count(method, surrogate.divisor, batch, info)
        return -objective.sum() * scale, _metrics(surrogate, batch)

    return loss


def _refusal(method: Method) -> str | None:
    """Why verl cannot be given the method: its losses see micro-batches, and its advantages are those of its rules."""
    if method.reads_state(method.hyper):
        return (
            "running estimates (of fspo's drift or target_clip_rate) need whole optimizer steps, and verl's losses see "
            "micro-batches only; take fspo_zero_drift, or set a number"
        )
    if method.keeps_credit:
        return "its advantage rule is what it is, and verl has none of the kind; train it here or with fspo.plugins.trl"
    return None


def _policy_batch(method: Method, old: Tensor, new: Tensor, advantages: Tensor, mask: Tensor) -> PolicyBatch:
    """verl's padded columns as a method reads them; one advantage a response where all its tokens have the same."""
    if new.dtype in (torch.float16, torch.bfloat16):
        new = new.float()  # sums over a response need it
    advantages = advantages.to(new.dtype)
    first = _first(advantages, mask)
    if bool(((advantages == first) | ~mask).all()):
        advantages = first
    elif method.level == Level.SEQUENCE:
        raise UserError(f"{method.name}: advantages differ within a response; set algorithm.adv_estimator=rloo or grpo")
    return PolicyBatch(new, old.to(new.dtype), advantages, mask, mask.sum(dim=1).to(new.dtype))


def _first(x: Tensor, mask: Tensor) -> Tensor:
    """The value at each row's first counted token, [N, 1]."""
    return x.gather(1, mask.int().argmax(dim=1, keepdim=True))


def _per_response(method: Method, name: str, weights: Tensor, mask: Tensor) -> Tensor:
    first = _first(weights, mask)
    if not bool(((weights == first) | ~mask).all()):
        raise UserError(f"{method.name}: {name} differ within a response; set rollout_correction.rollout_is=sequence")
    return masked(first, mask.any(dim=1, keepdim=True))[:, 0]


def _count(method: Method, divisor: Divisor, batch: PolicyBatch, info: Mapping[str, Any]) -> float:
    """What verl's whole step is divided by; of this batch's rows with tokens where one process gives none."""
    limit = info.get("loss_scale_factor") or 0
    if divisor == Divisor.CONSTANT and not limit:
        raise UserError(f"{method.name}: set actor_rollout_ref.actor.loss_scale_factor to the run's token limit")
    whole = info.get("batch_num_tokens" if divisor == Divisor.TOKENS else "global_batch_size")
    if whole is None:
        if (info.get("dp_size") or 1) > 1:
            raise UserError(f"{method.name}: several processes and no count of the whole step in global_batch_info")
        return max(divisor_count(divisor, batch.lengths[batch.lengths > 0], limit), 1)
    return float(whole) * limit if divisor == Divisor.CONSTANT else float(whole)


def _metrics(surrogate: Surrogate, batch: PolicyBatch) -> dict[str, float]:
    """Shares of weights that were clipped and that left the band, and -E[log r] per token (k1)."""
    weights = batch.lengths.sum() if surrogate.log_weight.shape[1] > 1 else torch.tensor(float(len(batch.lengths)))
    return {
        "actor/pg_clipfrac": float(surrogate.clipped.sum() / weights.clamp(min=1)),
        "actor/outside_band": float(surrogate.outside_band.sum() / weights.clamp(min=1)),
        "actor/ppo_kl": float(-token_log_ratio(batch).detach().sum() / batch.lengths.sum().clamp(min=1)),
    }


class StoppingAgentLoop:
    """An agent loop of verl's whose responses also end at stop texts, which verl's settings cannot name."""

    def __init__(self, loop: Any, stop: Sequence[str]) -> None:
        self.loop, self.stop = loop, list(stop)

    async def run(self, sampling_params: Mapping[str, Any], **rest: Any) -> Any:
        """What the loop returns; vLLM's `stop` keeps the tokens of the stop text in the response, as the suite does."""
        return await self.loop.run({**sampling_params, "stop": self.stop}, **rest)


def stopping_agent_loop(stop: Sequence[str], **rest: Any) -> StoppingAgentLoop:
    """verl's single-turn agent loop with stop texts: the `_target_` of an agent loop's config."""
    module: Any = import_module("verl.experimental.agent_loop.single_turn_agent_loop")
    return StoppingAgentLoop(module.SingleTurnAgentLoop(**rest), stop)


def register(given: str) -> list[str]:
    """Register the methods with verl, those in `given` (the text of FSPO_SETTINGS) also with its settings.

    Returns the names; registering again replaces ours, and no loss of verl's is ever replaced.
    """
    core: Any = import_module("verl.trainer.ppo.core_algos")
    losses = {name: policy_loss(method) for name, method in METHODS.items() if _refusal(method) is None}
    for name, fields in settings(given).items():
        losses[name + SUFFIX] = policy_loss(as_set(named(name, VARIABLE), fields, VARIABLE))
    registered = []
    for name, function in losses.items():
        held = core.POLICY_LOSS_REGISTRY.get(name)
        if held is None or held.__module__ == __name__:
            core.register_policy_loss(name)(function)
            registered.append(name)
    return registered


REGISTERED = register(os.environ.get(VARIABLE, ""))
if os.environ.get(verl_record.VARIABLE):
    RECORDED = verl_record.RecordedLosses(verl_record.asked(os.environ[verl_record.VARIABLE]))
    RECORDED.wrap_all(import_module("verl.trainer.ppo.core_algos").POLICY_LOSS_REGISTRY)
