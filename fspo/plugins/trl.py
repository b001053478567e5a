"""FSPO in TRL's GRPOTrainer: the suite's own objective and band in place of TRL's loss.

    from fspo.plugins.trl import FSPOConfig, FSPOTrainer
    trainer = FSPOTrainer(model, reward_funcs, FSPOConfig("out", num_iterations=4, fspo_c_low=0.05), train_dataset=...)

Sampling, rewards, optimizer and logging stay TRL's. Written for trl 1.16.0, whose loss is a private method.
`RecordBank` records any of TRL's trainers, whatever its loss.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fspo.band import DRIFTS, FSPOHyper, centre, estimates, read_of
from fspo.objective import FSPO
from fspo.plugins.trl_record import RecordBank
from suite.types import Method, PolicyBatch, State, Surrogate, UserError

__all__ = ["FSPOConfig", "FSPOTrainer", "RecordBank"]
trl: Any = import_module("trl")  # untyped: the same to a type checker with and without the package
PREFIX = "fspo_"
NOT_OURS = (
    "loss_type",
    "importance_sampling_level",
    "epsilon",
    "epsilon_high",
    "delta",
    "beta",
    "top_entropy_quantile",
    "entropy_coef",
    "use_adaptive_entropy",
    "off_policy_mask_threshold",
)
"""Settings of TRL's losses that FSPO has no use for: they must keep TRL's defaults, or would be lost in silence."""
STATE_FILE = "fspo_state.json"


@dataclasses.dataclass
class FSPOConfig(trl.GRPOConfig):
    """TRL's settings, and FSPO's under names that begin with `fspo_` (see `FSPOHyper`); widths in nats per root token.

    Advantages are TRL's: with `scale_rewards` "group", TRL's default, they are FSPO's, (r - mean) / (std + 1e-4) of the
    group. `fspo_drift` is kl, zero, batch, ema, or a number as text. UserError for a setting that FSPO would not
    follow.
    """

    fspo_c_low: float = 0.03
    fspo_c_high: float = 0.03
    fspo_c_dual: float | None = None
    fspo_drift: str = "kl"
    fspo_drift_decay: float = 0.9
    fspo_drift_cap: float = 0.5
    fspo_target_clip_rate: float | None = None
    fspo_sigma_decay: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        defaults = {field.name: field.default for field in dataclasses.fields(trl.GRPOConfig)}
        for name in NOT_OURS:
            if getattr(self, name) != defaults[name]:
                raise UserError(f"FSPOConfig.{name} = {getattr(self, name)!r}: FSPO has no such setting; leave it out")
        if self.use_vllm and self.vllm_importance_sampling_correction and "token" in self.vllm_importance_sampling_mode:
            raise UserError(
                f"FSPOConfig.vllm_importance_sampling_mode = {self.vllm_importance_sampling_mode!r}: FSPO weighs whole "
                "responses; take sequence_mask or sequence_truncate"
            )
        if self.hyper.drift == "batch" and self.gradient_accumulation_steps > 1:
            raise UserError(
                "FSPOConfig.fspo_drift = 'batch': the drift of a whole optimizer step must be known before its first "
                "gradient; set gradient_accumulation_steps=1, or take ema"
            )

    @property
    def hyper(self) -> FSPOHyper:
        """FSPO's hyper-parameters; UserError for impossible ones."""
        names = [f.name for f in dataclasses.fields(FSPOHyper) if hasattr(self, PREFIX + f.name)]
        given = {name: getattr(self, PREFIX + name) for name in names}
        if given["drift"] not in DRIFTS:
            try:
                given["drift"] = float(given["drift"])
            except ValueError:
                raise UserError(
                    f"FSPOConfig.fspo_drift = {given['drift']!r}: {', '.join(DRIFTS)} or a number"
                ) from None
        return FSPOHyper(**given)


class FSPOTrainer(trl.GRPOTrainer):
    """GRPOTrainer that minimises FSPO's loss: minus the mean over an optimizer step's responses of J_i.

    Takes what GRPOTrainer takes, with an `FSPOConfig`. `fspo_state` holds the running estimates of drift and sigma;
    they travel with checkpoints. Logs fspo/outside_band and fspo/clipped (shares of responses) beside TRL's metrics.
    """

    _name = "FSPO"
    _tag_names: ClassVar[list[str]] = ["trl", "fspo"]
    _paper: ClassVar[dict[str, str]] = {
        "title": "Clip Your Sequences Fairly: Enforcing Length Fairness for Sequence-Level RL",
        "id": "2509.09177",
    }

    def __init__(self, model: Any, reward_funcs: Any = None, args: Any = None, *rest: Any, **named: Any) -> None:
        if not isinstance(args, FSPOConfig):
            raise UserError(f"FSPOTrainer: args is {type(args).__name__}, it takes an FSPOConfig")
        super().__init__(model, reward_funcs, args, *rest, **named)
        if self.aux_loss_enabled:
            raise UserError("FSPOTrainer: no auxiliary loss for routers; set router_aux_loss_coef=0")
        self.method: Method = dataclasses.replace(FSPO, hyper=args.hyper)
        self.fspo_state: State = {}
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
        batch, entropies = self._policy_batch(model, inputs)
        training, hyper = self.model.training, self.method.hyper
        if training and FSPO.observe_first(hyper):
            self._observe(batch)
        surrogate = self.method.surrogate(batch, hyper, self.fspo_state)
        objective = surrogate.objective
        if (weight := inputs.get("importance_sampling_ratio")) is not None:
            objective = objective * weight.reshape(len(objective))
        if training and not FSPO.observe_first(hyper):
            self._observe(batch)
        self._log_batch("train" if training else "eval", batch, surrogate, entropies)
        return -objective.mean() / (self.current_gradient_accumulation_steps if training else 1)

    def _policy_batch(self, model: Any, inputs: Any) -> tuple[PolicyBatch, Tensor]:
        """TRL's batch as a method reads it, and the entropies [N, T]; without old log-probs the ratio is 1."""
        mask = inputs["completion_mask"]
        scored = inspect.signature(trl.GRPOTrainer._get_per_token_logps_and_entropies).parameters
        log_probs, entropies, _ = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], mask], dim=1),
            mask.shape[1],
            compute_entropy=True,
            **{name: inputs[name] for name in scored if name in inputs},
        )
        if log_probs.dtype in (torch.float16, torch.bfloat16):
            log_probs = log_probs.float()  # sums over a response need it
        old = inputs.get("old_per_token_logps")
        counts = (mask * inputs["tool_mask"] if "tool_mask" in inputs else mask).bool()
        batch = PolicyBatch(
            log_probs=log_probs,
            old_log_probs=log_probs.detach() if old is None else old.to(log_probs.dtype),
            advantages=inputs["advantages"].to(log_probs.dtype)[:, None],
            response_mask=counts,
            lengths=counts.sum(dim=1).to(log_probs.dtype),
        )
        return batch, entropies

    def _observe(self, batch: PolicyBatch) -> None:
        """Gather what the estimates read of every response; at the end of an optimizer step, new ones from all."""
        self._seen.append(read_of(batch))
        if not self.accelerator.sync_gradients:
            return
        s, kl, lengths = (self.accelerator.gather(torch.cat(column)) for column in zip(*self._seen, strict=True))
        self.fspo_state = estimates(s, kl, lengths, self.method.hyper, self.fspo_state)
        self._seen.clear()

    def _log_batch(self, mode: str, batch: PolicyBatch, surrogate: Surrogate, entropies: Tensor) -> None:
        shares = {
            "fspo/outside_band": surrogate.outside_band.float().mean(),
            "fspo/clipped": surrogate.clipped.float().mean(),
            "entropy": (entropies * batch.response_mask).sum() / batch.lengths.sum().clamp(min=1),
        }
        for name, share in shares.items():
            self._metrics[mode][name].append(self.accelerator.gather(share).mean().item())
        self._metrics[mode]["fspo/drift"].append(centre(self.method.hyper, self.fspo_state))

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
            (folder / STATE_FILE).write_text(json.dumps(dict(self.fspo_state)) + "\n", encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and (path := Path(checkpoint) / STATE_FILE).exists():
            self.fspo_state = json.loads(path.read_text(encoding="utf-8"))
