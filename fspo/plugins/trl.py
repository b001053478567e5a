"""The suite's methods in TRL's GRPOTrainer: their own objective and advantages in place of TRL's.

    from fspo.plugins.trl import SuiteConfig, SuiteTrainer
    args = SuiteConfig("out", method="gspo", hyper={"clip_low": 2e-3, "clip_high": 3e-3}, num_iterations=4)
    trainer = SuiteTrainer(model, reward_funcs, args, train_dataset=...)

Sampling, rewards, optimizer and logging stay TRL's. `FSPOTrainer` with `FSPOConfig` is the same for FSPO, with its
settings as arguments. Written for the TRL of `TRIED`, whose loss is a private method. `RecordBank` records any of TRL's
trainers, whatever its loss.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from fspo.band import DRIFTS, FSPOHyper
from fspo.plugins.methods import as_set, named
from fspo.plugins.trl_record import RecordBank
from suite.arithmetic import divisor_count, kl_k3, masked, token_log_ratio
from suite.methods.from_outside import method_from
from suite.types import CreditInput, Divisor, Level, Method, PolicyBatch, State, Surrogate, UserError

__all__ = ["FSPOConfig", "FSPOTrainer", "RecordBank", "SuiteConfig", "SuiteTrainer"]
trl: Any = import_module("trl")  # untyped: the same to a type checker with and without the package
TRIED = "1.16.0"
PREFIX = "fspo_"
OWN_RULE = "method"
NOT_OURS = (
    "loss_type",
    "importance_sampling_level",
    "epsilon",
    "epsilon_high",
    "delta",
    "sapo_temperature_neg",
    "sapo_temperature_pos",
    "vespo_k_pos",
    "vespo_lambda_pos",
    "vespo_k_neg",
    "vespo_lambda_neg",
    "top_entropy_quantile",
    "entropy_coef",
    "use_adaptive_entropy",
    "off_policy_mask_threshold",
)
"""Settings of TRL's losses that no method has a use for: they must keep TRL's defaults, or would be lost in silence."""
STATE_FILE = "fspo_state.json"


@dataclasses.dataclass
class SuiteConfig(trl.GRPOConfig):
    """TRL's settings, and which method of the suite to train with.

    `method` is a name of the table of methods, or `package.module:NAME` of your own, one that needs no critic; `hyper`
    changes some of its hyper-parameters.
    `scale_rewards` "method" gives the method's own advantages from the weighted sum of the rewards; "group", "batch"
    and "none" are TRL's. UserError for a setting that the method would not follow. `card` is the method as set.
    """

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [*trl.GRPOConfig._VALID_DICT_FIELDS, "hyper"]

    method: str = "fspo"
    hyper: dict[str, Any] | str | None = None
    scale_rewards: str = OWN_RULE

    def __post_init__(self) -> None:
        super().__post_init__()
        if found := next(self._complaints(), None):
            raise self._refusal(*found)

    def _complaints(self) -> Iterator[tuple[str, str]]:
        """(setting, what to do instead) for every setting that the method would not follow."""
        method, divisor, passes = self.card, _divisor_of(self.card), self.gradient_accumulation_steps
        defaults = {field.name: field.default for field in dataclasses.fields(trl.GRPOConfig)}
        for name in NOT_OURS:
            if name in defaults and getattr(self, name) != defaults[name]:
                yield name, f"{method.name} has no such setting; leave it out"
        if self.use_vllm and self.vllm_importance_sampling_correction and "token" in self.vllm_importance_sampling_mode:
            yield (
                "vllm_importance_sampling_mode",
                "objectives are weighed by whole responses; take sequence_mask or sequence_truncate",
            )
        if method.keeps_credit and self.scale_rewards != OWN_RULE:
            yield "scale_rewards", f"{method.name} is its own advantage rule; leave it out"
        if self.scale_rewards == OWN_RULE and self.multi_objective_aggregation != "sum_then_normalize":
            other = "" if method.keeps_credit else ', or TRL\'s advantages with scale_rewards="group"'
            yield (
                "multi_objective_aggregation",
                f"a method's own advantages come from one reward a response; take sum_then_normalize{other}",
            )
        if method.observe_first(method.hyper) and passes > 1:
            yield (
                "gradient_accumulation_steps",
                "the drift of a whole optimizer step must be known before its first gradient; set it to 1, or take ema",
            )
        if (divisor == Divisor.TOKENS or self.beta) and self.steps_per_generation % passes:
            who = "beta" if self.beta else method.name
            yield (
                "steps_per_generation",
                f"{who} divides by the tokens of an optimizer step, which must be known before its first gradient; "
                f"take a multiple of gradient_accumulation_steps ({passes})",
            )
        if divisor == Divisor.CONSTANT and self.max_completion_length is None:
            yield "max_completion_length", f"{method.name} divides by it; set a number of tokens"

    @property
    def card(self) -> Method:
        """The method with its hyper-parameters; UserError for an unknown name and for impossible numbers."""
        hyper, owner = self.hyper or {}, type(self).__name__
        if not isinstance(hyper, Mapping):
            raise self._refusal("hyper", "a mapping from a hyper-parameter's name to its value")
        own = ":" in self.method
        method = method_from(self.method, f"{owner}: method {self.method}") if own else named(self.method, owner)
        if "values" in method.needs:
            raise self._refusal("method", "it needs a critic, and TRL's trainer has none; take a method without one")
        return as_set(method, hyper, owner)

    def _refusal(self, name: str, demand: str) -> UserError:
        return UserError(f"{type(self).__name__}.{name} = {getattr(self, name)!r}: {demand}")


@dataclasses.dataclass
class FSPOConfig(SuiteConfig):
    """TRL's settings, and FSPO's under names that begin with `fspo_` (see `FSPOHyper`); widths in nats per root token.

    `fspo_drift` is kl, zero, batch, ema, or a number as text. UserError for a setting that FSPO would not follow.
    """

    method: str = dataclasses.field(default="fspo", init=False)
    hyper: dict[str, Any] | str | None = dataclasses.field(default=None, init=False)
    fspo_c_low: float = 0.03
    fspo_c_high: float = 0.03
    fspo_c_dual: float | None = None
    fspo_drift: str = "kl"
    fspo_drift_decay: float = 0.9
    fspo_drift_cap: float = 0.5
    fspo_target_clip_rate: float | None = None
    fspo_sigma_decay: float = 0.9

    @property
    def card(self) -> Method:
        """FSPO with its hyper-parameters; UserError for impossible ones."""
        names = [f.name for f in dataclasses.fields(FSPOHyper) if hasattr(self, PREFIX + f.name)]
        given = {name: getattr(self, PREFIX + name) for name in names}
        if given["drift"] not in DRIFTS:
            try:
                given["drift"] = float(given["drift"])
            except ValueError:
                raise self._refusal("fspo_drift", f"{', '.join(DRIFTS)} or a number") from None
        return as_set(named(self.method, type(self).__name__), given, type(self).__name__)


class SuiteTrainer(trl.GRPOTrainer):
    """GRPOTrainer with a method of the suite: it minimises minus the method's objective, divided as the method says.

    Takes what GRPOTrainer takes, with a `SuiteConfig`. `method_state` holds a method's running estimates (FSPO's drift
    and sigma); they travel with checkpoints. Logs NAME/outside_band and NAME/clipped (shares of the method's weights)
    and the estimates beside TRL's metrics. TRL's `beta` adds its k3 to the reference model, a mean over the optimizer
    step's tokens. Warns where another version of TRL is installed than the one that was tried.
    """

    _tag_names: ClassVar[list[str]] = ["trl", "fspo"]
    _config: ClassVar[type[SuiteConfig]] = SuiteConfig

    def __init__(self, model: Any, reward_funcs: Any = None, args: Any = None, *rest: Any, **named: Any) -> None:
        if trl.__version__ != TRIED:
            warnings.warn(f"fspo.plugins.trl was tried with TRL {TRIED}; this is {trl.__version__}", stacklevel=2)
        if args is None:
            path = model if isinstance(model, str) else model.config._name_or_path
            args = self._config(f"{Path(path).name}-{self._config.method.upper()}")
        if not isinstance(args, self._config):
            raise UserError(f"{type(self).__name__}: args is {type(args).__name__}, it takes a {self._config.__name__}")
        super().__init__(model, reward_funcs, args, *rest, **named)
        self.method = args.card
        self.method_state: State = {}
        self._name = self.method.title
        self._seen: list[PolicyBatch] = []
        if args.scale_rewards == OWN_RULE:
            self.scale_rewards = "group"  # a rule that TRL knows; its advantages are replaced

    def _calculate_rewards(self, *given: Any, **named: Any) -> Tensor:
        self._rewards: Tensor = super()._calculate_rewards(*given, **named)
        return self._rewards

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        output = super()._generate_and_score_completions(inputs)
        if self.args.scale_rewards == OWN_RULE:
            output["advantages"] = self._advantages(_counted(output))
        return output

    def _advantages(self, mask: Tensor) -> Tensor:
        """The method's advantages of this process's responses, [n], or [n, T] of a rule for tokens.

        As in TRL a response that no reward function judged is left out; here so is one that has nobody to be compared
        with. Both get 0.
        """
        rewards = (self._rewards * self.reward_weights.to(mask.device)).nansum(dim=1)
        unjudged = self._rewards.isnan().all(dim=1)
        samples = self.num_generations if self.model.training else self.num_generations_eval
        groups = torch.arange(len(rewards), device=mask.device) // samples
        compared = ~unjudged & (torch.bincount(groups[~unjudged], minlength=len(rewards))[groups] > 1)
        everywhere = self.accelerator.gather(self.accelerator.pad_across_processes(mask, dim=1))
        advantages = rewards.new_zeros(len(rewards), 1)
        if compared.any():
            seen = CreditInput(rewards[compared], groups[compared], everywhere[compared])
            found = self.method.credit(seen, self.method.hyper).advantages
            advantages = rewards.new_zeros(len(rewards), found.shape[1])
            advantages[compared] = found
        log = self._logs["advantages"]
        kept = list(log)[: -len(rewards)]
        log.clear()
        log.extend([*kept, *advantages.mean(dim=1).tolist()])
        own = advantages[self.accelerator.process_index * len(mask) :][: len(mask), : mask.shape[1]]
        return own[:, 0] if own.shape[1] == 1 else own

    def _compute_loss(self, model: Any, inputs: Any) -> Tensor:
        batch, entropies, balance = self._policy_batch(model, inputs)
        training, method = self.model.training, self.method
        mode, passes = ("train", self.current_gradient_accumulation_steps) if training else ("eval", 1)
        observes, first = training and method.observe is not None, method.observe_first(method.hyper)
        if observes and first:
            self._observe(batch)
        surrogate = method.surrogate(batch, method.hyper, self.method_state)
        objective = surrogate.objective
        if (weight := inputs.get("importance_sampling_ratio")) is not None:
            objective = objective * weight.reshape(len(objective))
        if surrogate.divisor == Divisor.TOKENS:
            count = self._tokens(inputs)
        else:
            count = passes * divisor_count(surrogate.divisor, batch.lengths, self.max_completion_length)
        loss = -objective.sum() / count
        if self.beta:
            kl = self._kl(batch)
            loss = loss + self.beta * kl.sum() / self._tokens(inputs)
            self._log_share(mode, "kl", kl.sum(), batch.lengths.sum())
        if self.aux_loss_enabled:
            loss = loss + self.router_aux_loss_coef * balance / passes
            self._log_share(mode, "aux_loss", balance.detach(), torch.ones_like(balance))
        if observes and not first:
            self._observe(batch)
        self._log_batch(mode, batch, surrogate, entropies)
        return loss

    def _policy_batch(self, model: Any, inputs: Any) -> tuple[PolicyBatch, Tensor, Any]:
        """TRL's batch as a method reads it, entropies [N, T] and the routers' auxiliary loss or None.

        Without old log-probs the ratio is 1.
        """
        mask = inputs["completion_mask"]
        scored = inspect.signature(trl.GRPOTrainer._get_per_token_logps_and_entropies).parameters
        log_probs, entropies, balance = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1),
            torch.cat([inputs["prompt_mask"], mask], dim=1),
            mask.shape[1],
            compute_entropy=True,
            compute_aux_loss=self.aux_loss_enabled,
            **{name: inputs[name] for name in scored if name in inputs},
        )
        if log_probs.dtype in (torch.float16, torch.bfloat16):
            log_probs = log_probs.float()  # sums over a response need it
        old, start = (inputs.get(f"{name}_per_token_logps") for name in ("old", "ref"))
        counts, advantages = _counted(inputs), inputs["advantages"].to(log_probs.dtype)
        batch = PolicyBatch(
            log_probs=log_probs,
            old_log_probs=log_probs.detach() if old is None else old.to(log_probs.dtype),
            advantages=advantages[:, None] if advantages.dim() == 1 else advantages,
            response_mask=counts,
            lengths=counts.sum(dim=1).to(log_probs.dtype),
            ref_log_probs=None if start is None else start.to(log_probs.dtype),
        )
        return batch, entropies, balance

    def _tokens(self, inputs: Any) -> Tensor:
        """Counted tokens of the whole optimizer step, a process's share of them: TRL averages over processes."""
        parts = [inputs]
        if self.model.training:
            passes = self.current_gradient_accumulation_steps
            start = self._step % self.args.steps_per_generation // passes * passes
            parts = self._buffered_inputs[start : start + passes]
        own = torch.stack([_counted(part).sum() for part in parts]).sum()
        return self.accelerator.reduce(own, reduction="sum").clamp(min=1) / self.accelerator.num_processes

    def _kl(self, batch: PolicyBatch) -> Tensor:
        """TRL's estimate of KL(policy || reference) at each token, [N, T]: k3, times the ratio if asked for."""
        assert batch.ref_log_probs is not None
        kl = kl_k3(batch.ref_log_probs - batch.log_probs)
        if self.args.use_bias_correction_kl:
            kl = kl * token_log_ratio(batch).exp()
        return masked(kl, batch.response_mask)

    def _observe(self, batch: PolicyBatch) -> None:
        """Gather what was scored; at the end of an optimizer step, new running estimates from all of it."""
        self._seen.append(dataclasses.replace(batch, log_probs=batch.log_probs.detach()))
        if not self.accelerator.sync_gradients:
            return
        names = ("log_probs", "old_log_probs", "advantages", "response_mask")
        columns = {name: self._whole([getattr(part, name) for part in self._seen]) for name in names}
        lengths = columns["response_mask"].sum(dim=1).to(batch.lengths.dtype)
        assert self.method.observe is not None
        self.method_state = self.method.observe(
            PolicyBatch(**columns, lengths=lengths), self.method.hyper, self.method_state
        )
        self._seen.clear()

    def _whole(self, parts: Sequence[Tensor]) -> Tensor:
        """Rows of several [n, T] of every process as one, padded on the right."""
        width = max(part.shape[1] for part in parts)
        own = torch.cat([pad(part, (0, width - part.shape[1])) for part in parts])
        return self.accelerator.gather(self.accelerator.pad_across_processes(own, dim=1))

    def _log_batch(self, mode: str, batch: PolicyBatch, surrogate: Surrogate, entropies: Tensor) -> None:
        name, tokens = self.method.name, batch.lengths.sum()
        weights = tokens if self.method.level == Level.TOKEN else torch.full_like(tokens, len(batch.lengths))
        self._log_share(mode, f"{name}/outside_band", surrogate.outside_band.sum(), weights)
        self._log_share(mode, f"{name}/clipped", surrogate.clipped.sum(), weights)
        self._log_share(mode, "entropy", masked(entropies, batch.response_mask).sum(), tokens)
        for estimate, value in self.method_state.items():
            self._metrics[mode][f"{name}/{estimate}"].append(value)

    def _log_share(self, mode: str, name: str, part: Tensor, whole: Tensor) -> None:
        both = self.accelerator.reduce(torch.stack([part.detach().to(whole.dtype), whole]), reduction="sum")
        self._metrics[mode][name].append((both[0] / both[1].clamp(min=1)).item())

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
            (folder / STATE_FILE).write_text(json.dumps(dict(self.method_state)) + "\n", encoding="utf-8")

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None and (path := Path(checkpoint) / STATE_FILE).exists():
            self.method_state = json.loads(path.read_text(encoding="utf-8"))


class FSPOTrainer(SuiteTrainer):
    """SuiteTrainer with FSPO and an `FSPOConfig`: the loss is minus the mean over an optimizer step's responses."""

    _config: ClassVar[type[SuiteConfig]] = FSPOConfig
    _paper: ClassVar[dict[str, str]] = {
        "title": "Clip Your Sequences Fairly: Enforcing Length Fairness for Sequence-Level RL",
        "id": "2509.09177",
    }


def _counted(inputs: Mapping[str, Any]) -> Tensor:
    """Which tokens of TRL's batch count, [N, T] bool: those of the response that no tool wrote."""
    mask = inputs["completion_mask"]
    return (mask * inputs["tool_mask"] if "tool_mask" in inputs else mask).bool()


def _divisor_of(method: Method) -> Divisor:
    """What the method divides by, which its surrogate says: asked with one token at ratio 1."""
    one = torch.zeros(1, 1)
    batch = PolicyBatch(one, one, one, response_mask=torch.ones(1, 1, dtype=torch.bool), lengths=torch.ones(1))
    return method.surrogate(batch, method.hyper, {}).divisor
