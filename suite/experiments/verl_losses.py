"""Losses and advantage rules of verl 0.9.1 for the suite's methods: verl's own where the name is, else ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from suite.advantages import group_centred, group_standardised, leave_one_out
from suite.config import TrainConfig
from suite.types import CreditInput, Method, UserError

ACTOR, MODEL = "actor_rollout_ref.actor", "actor_rollout_ref.model"
SETTINGS = "+ray_kwargs.ray_init.runtime_env.env_vars.FSPO_SETTINGS"
NO_DUAL = 1e9


@dataclass(frozen=True)
class VerlLine:
    """One setting of ours (its path) and verl's key with its value; without a key, `note` says why there is none.

    A note beside a key names what verl does otherwise.
    """

    setting: str
    key: str | None
    value: Any = None
    note: str = ""


def _clip(low: float, high: float, **rest: Any) -> dict[str, Any]:
    return {"clip_ratio_low": low, "clip_ratio_high": high, **rest}


NATIVE: Mapping[str, tuple[str, str, Callable[[Any], dict[str, Any]], str]] = {
    "ppo": (
        "vanilla",
        "token-mean",
        lambda h: _clip(h.clip_low, h.clip_high, clip_ratio_c=h.dual_clip or NO_DUAL),
        "token log ratios are clamped at +-20",
    ),
    "gspo": (
        "gspo",
        "seq-mean-token-mean",
        lambda h: _clip(h.clip_low, h.clip_high),
        "the mean log ratio is clamped at 10 from above",
    ),
    "cispo": ("cispo", "token-mean", lambda h: _clip(1.0, h.max_weight - 1), ""),
    "sapo": ("sapo", "seq-mean-token-mean", lambda h: {"tau_pos": h.tau_pos, "tau_neg": h.tau_neg}, ""),
    "dppo_tv": ("dppo_tv", "seq-mean-token-sum-norm", lambda h: _clip(h.delta, h.delta, clip_ratio_c=h.max_weight), ""),
    "dppo_kl": (
        "dppo_kl",
        "seq-mean-token-sum-norm",
        lambda h: _clip(h.delta, h.delta, clip_ratio_c=h.max_weight),
        "1e-8 is added inside the divergence",
    ),
}
"""Methods whose loss is verl's own: its name there, how it is divided, its numbers, and what it does otherwise."""


def loss_lines(method: Method, changed: Sequence[str], limit: int) -> list[VerlLine]:
    """The policy loss: verl's own where it has one of that name, else ours out of fspo.plugins.verl.

    `changed` are the settings of this method apart from its defaults, each `method.field=value`.
    """
    name = f"methods: {method.name}"
    scale = VerlLine(name, f"{ACTOR}.loss_scale_factor", limit)
    if method.name in NATIVE:
        loss, mode, numbers, note = NATIVE[method.name]
        lines = [
            VerlLine(name, f"{ACTOR}.policy_loss.loss_mode", loss, note),
            VerlLine(name, f"{ACTOR}.loss_agg_mode", mode),
        ]
        lines += [VerlLine(name, f"{ACTOR}.{key}", value) for key, value in numbers(method.hyper).items()]
        return [*lines, scale]
    if method.reads_state(method.hyper):
        raise UserError(
            f"{method.name}: its running estimates need whole optimizer steps, and verl's losses see micro-batches "
            "only; take fspo_zero_drift, or set a number for its drift and no target_clip_rate"
        )
    mode = f"{method.name}_as_set" if changed else method.name
    lines = [
        VerlLine(name, f"{MODEL}.external_lib", "fspo.plugins.verl"),
        VerlLine(name, f"{ACTOR}.policy_loss.loss_mode", mode),
        VerlLine(name, f"{ACTOR}.loss_agg_mode", "token-mean", "for a KL term; the loss divides by its own count"),
    ]
    if changed:
        lines.append(VerlLine("options", SETTINGS, " ".join(changed)))
    return [*lines, scale]


def advantage_lines(method: Method, train: TrainConfig) -> list[VerlLine]:
    """The advantage rule of verl that gives the method's numbers on a small batch; UserError where none does.

    A critic's settings are those of `train`, its rate a multiple of the policy's.
    """
    name, key = f"methods: {method.name}", "algorithm.adv_estimator"
    if "values" in method.needs:
        return _critic_lines(name, method.hyper, train)
    rewards, groups = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.5]), torch.tensor([0, 0, 0, 1, 1, 1, 1])
    found = method.credit(CreditInput(rewards, groups, torch.ones(7, 3, dtype=torch.bool)), method.hyper).advantages
    found = found.expand(7, 3)[:, 0]

    def same(wanted: torch.Tensor, tolerance: float = 1e-6) -> bool:
        return bool(torch.allclose(found, wanted, rtol=tolerance, atol=tolerance))

    if same(leave_one_out(rewards, groups)):
        return [VerlLine(name, key, "rloo")]
    if same(group_centred(rewards, groups)):
        return [VerlLine(name, key, "grpo"), VerlLine(name, "algorithm.norm_adv_by_std_in_grpo", False)]
    if same(group_standardised(rewards, groups, ddof=1, eps=1e-6), 1e-3):
        return [
            VerlLine(name, key, "grpo", "1e-6 is added to the standard deviation; ours is std_eps, by default 1e-4")
        ]
    raise UserError(
        f"{method.name}: no advantage rule of verl gives its numbers, and verl's default wants a critic; "
        "train it here or with fspo.plugins.trl"
    )


def _critic_lines(name: str, hyper: Any, train: TrainConfig) -> list[VerlLine]:
    rate = float(f"{train.learning_rate * hyper.critic_learning_rate_ratio:.12g}")
    whitening = "advantages are always whitened" if not hyper.whiten else "whitened with the unbiased variance"
    return [
        VerlLine(name, "algorithm.adv_estimator", "gae", whitening),
        VerlLine(name, "algorithm.gamma", hyper.gamma),
        VerlLine(name, "algorithm.lam", hyper.gae_lambda),
        VerlLine(name, "critic.cliprange_value", hyper.value_clip),
        VerlLine(f"{name}.critic_learning_rate_ratio", "critic.optim.lr", rate),
        VerlLine("train.weight_decay", "critic.optim.weight_decay", train.weight_decay),
        VerlLine("train.max_grad_norm", "critic.optim.clip_grad", train.max_grad_norm),
        VerlLine(name, "critic.model.path", f"${{{MODEL}.path}}"),
        VerlLine(
            "train.tokens_per_micro_batch",
            "critic.ppo_max_token_len_per_gpu",
            f"${{{ACTOR}.ppo_max_token_len_per_gpu}}",
        ),
        VerlLine(
            "train.activation_checkpointing",
            "critic.model.enable_gradient_checkpointing",
            f"${{{MODEL}.enable_gradient_checkpointing}}",
        ),
        VerlLine("train.precision", "critic.fsdp.dtype", train.precision),
        *(
            []
            if train.precision == "bfloat16"
            else [
                VerlLine("train.precision", "+critic.model.override_config.attn_implementation", "sdpa"),
                VerlLine("train.precision", "critic.model.use_remove_padding", False),
            ]
        ),
        VerlLine("train.checkpoint_every", "trainer.max_critic_ckpt_to_keep", 1),
        VerlLine(
            f"{name}.critic_warmup_epochs", None, hyper.critic_warmup_epochs, "trainer.critic_warmup counts steps"
        ),
    ]
