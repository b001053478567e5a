"""A run of TRL recorded into a bank: what its loss reads of every response, at every optimizer step.

    trainer = GRPOTrainer(...)                  # RLOOTrainer, FSPOTrainer, or a subclass with a loss of its own
    RecordBank(trainer, "bank")
    trainer.train()

Methods of this one trainer are wrapped; log-probs are those that its loss has computed. Written for trl 1.16.0, whose
methods are private.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from suite.records.bank import Bank
from suite.records.other_runs import OwnRun, SeenRows, facts_of, numbered, refuse_recorded
from suite.types import UserError

REWARD, TRUNCATED, PROMPT, OLD = "recorded_reward", "recorded_truncated", "recorded_prompt", "recorded_old_log_probs"
"""What is added to TRL's batch of responses, which it shuffles and splits with the rest."""
SETTINGS = (
    "loss_type",
    "importance_sampling_level",
    "epsilon",
    "epsilon_high",
    "delta",
    "beta",
    "scale_rewards",
    "normalize_advantages",
    "multi_objective_aggregation",
    "reward_weights",
    "mask_truncated_completions",
    "num_iterations",
    "steps_per_generation",
    "gradient_accumulation_steps",
    "per_device_train_batch_size",
    "num_generations",
    "max_completion_length",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "use_vllm",
    "vllm_importance_sampling_correction",
    "vllm_importance_sampling_mode",
    "off_policy_mask_threshold",
    "top_entropy_quantile",
    "entropy_coef",
    "learning_rate",
    "lr_scheduler_type",
    "max_grad_norm",
    "max_steps",
    "bf16",
)
"""Settings that say how responses were drawn and what the loss made of them; those of our own trainers come with them:
FSPO's (`fspo_`) and `OURS`."""
OURS = ("method", "hyper")
UNKNOWN = (
    "the sampler's own log-probs (old log-probs are the trainer's)",
    "texts and tokens (a prompt is known by the digest of its tokens)",
    "terms of the loss beside the ratio (KL, entropy, corrections of the sampler)",
)
DRAWN_ELSEWHERE = "the temperature that responses were drawn at (a rollout_func drew them)"
WRAPPED = ("train", "_calculate_rewards", "_generate_and_score_completions", "_compute_loss")
SCORED = "_get_per_token_logps_and_entropies"


class RecordBank:
    """Records a trainer of TRL into the bank in `folder` while it trains; every `every`-th rollout, from the first.

    Every process writes a recording of its own, trl-CLASS[-NAME]-seedSEED[-rankRANK], after each rollout; a run that
    goes on from a checkpoint adds -fromSTEP. A response whose tokens are all masked has no row. Warns where no rollout
    would get a second update. UserError for a trainer that is none of TRL's and a folder that holds something else, and
    for one that holds this recording, which `train` alone can tell: it is told whether a checkpoint goes on.
    """

    def __init__(self, trainer: Any, folder: str | Path, every: int = 1, name: str = "") -> None:
        if missing := [method for method in (*WRAPPED, SCORED) if not hasattr(trainer, method)]:
            raise UserError(
                f"RecordBank: {type(trainer).__name__} has no {missing[0]}; "
                "give a GRPOTrainer, RLOOTrainer or FSPOTrainer"
            )
        if every < 1:
            raise UserError(f"RecordBank: every = {every}: must be at least 1")
        self.trainer, self.folder, self.every, self.name = trainer, Path(folder), every, name
        Bank.open_or_new(self.folder)
        if trainer.accelerator.is_main_process and (said := without_ratios(trainer.args)):
            warnings.warn(f"RecordBank: {said}", stacklevel=2)
        self.run: OwnRun | None = None
        self._begun_at = self._skipped = 0
        self._recording = False
        self._rewards: Tensor | None = None
        self._scored: list[Tensor] | None = None
        for method in WRAPPED:
            self._wrap(method, getattr(self, method.lstrip("_") + "_seen"))
        self._wrap(SCORED, self._keep_scored)

    def _wrap(self, method: str, seen: Callable[..., Any]) -> None:
        original = getattr(self.trainer, method)
        setattr(self.trainer, method, wraps(original)(lambda *args, **named: seen(original, *args, **named)))

    @contextmanager
    def _listening(self) -> Iterator[list[Tensor]]:
        """The log-probs that the trainer asks its model for meanwhile."""
        self._scored = []
        try:
            yield self._scored
        finally:
            self._scored = None

    def _keep_scored(self, original: Callable[..., Any], *args: Any, **named: Any) -> Any:
        found = original(*args, **named)
        if self._scored is not None:
            self._scored.append(found[0])
        return found

    def train_seen(self, original: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Training; what was recorded of a rollout that it ends within, or fails in, is written too."""
        if not (named.get("resume_from_checkpoint") or any(args[:1])):
            refuse_recorded(self.folder, self._recording_name(begun=0))
        self.run = None
        try:
            return original(*args, **named)
        finally:
            self._write()

    def calculate_rewards_seen(self, original: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """The rewards of all processes' responses, [N of all, functions]."""
        self._rewards = original(*args, **named)
        return self._rewards

    def generate_and_score_completions_seen(self, original: Callable[..., Any], inputs: Any) -> Any:
        """A rollout; rewards go into its batch, and RLOO's old log-probs, of which TRL keeps the sums alone."""
        trainer = self.trainer
        if not trainer.model.training:
            return original(inputs)
        self._write()
        self._begun_at = trainer.state.global_step
        step = self._rollouts()
        if self.run is None:
            self.run = self._new_run()
        self._recording, self.run.step = step % self.every == 0, step
        if not self._recording:
            return original(inputs)
        with self._listening() as scored:
            found = original(inputs)
        if "old_logps" in found:
            found[OLD] = scored[0]
        found[REWARD] = self._own_rewards(len(inputs))
        found[TRUNCATED] = self._truncated(found["completion_ids"], found["completion_mask"])
        found[PROMPT] = numbered(found["prompt_ids"], found["prompt_mask"])
        return found

    def _rollouts(self) -> int:
        """How many rollouts came before this one, those before a checkpoint included."""
        a_rollout = self.trainer.args.steps_per_generation * self.trainer.args.num_iterations
        steps = self.trainer.args.gradient_accumulation_steps
        if self.run is None:
            self._skipped = self.trainer.state.global_step * steps // a_rollout - self.trainer._step // a_rollout
        return self._skipped + self.trainer._step // a_rollout

    def _own_rewards(self, count: int) -> Tensor:
        """Weighted sums of this process's rewards, [N]; nan where no function gave one."""
        assert self._rewards is not None
        first = self.trainer.accelerator.process_index * count
        own = self._rewards[first : first + count]
        sums = (own * self.trainer.reward_weights.to(own.device)).nansum(dim=1)
        return sums.masked_fill(own.isnan().all(dim=1), torch.nan)

    def _truncated(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Whether a response ended without an end token, as TRL tells it, [N] bool."""
        ends = torch.tensor([*self.trainer.eos_token_ids, self.trainer._tokenizer.pad_token_id], device=ids.device)
        last = (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)
        return ~torch.isin(ids.gather(1, last), ends)[:, 0]

    def compute_loss_seen(self, original: Callable[..., Any], model: Any, inputs: Any) -> Any:
        """The loss of a micro-batch, and what it read."""
        if not (self._recording and self.trainer.model.training):
            return original(model, inputs)
        with self._listening() as scored:
            loss = original(model, inputs)
        if not scored:
            raise UserError(f"RecordBank: {type(self.trainer).__name__}'s loss asks for no log-probs; record another")
        assert self.run is not None
        self.run.rows.append(self._seen(inputs, scored[0].detach()))
        a_rollout = self.trainer.args.steps_per_generation * self.trainer.args.num_iterations
        if (self.trainer._step + 1) % a_rollout == 0:
            self._write()
        return loss

    def _seen(self, inputs: Any, log_probs: Tensor) -> SeenRows:
        completed, old = inputs["completion_mask"], inputs.get(OLD, inputs.get("old_per_token_logps"))
        return SeenRows(
            update=self.trainer.state.global_step - self._begun_at,
            log_probs=log_probs,
            old_log_probs=log_probs if old is None else old,
            mask=completed * inputs["tool_mask"] if "tool_mask" in inputs else completed,
            advantages=inputs["advantages"],
            rewards=inputs[REWARD],
            truncated=inputs[TRUNCATED],
            prompts=inputs[PROMPT],
        )

    def _write(self) -> None:
        if self.run is not None:
            self.run.write()

    def _new_run(self) -> OwnRun:
        trainer, args = self.trainer, self.trainer.args
        kind, accelerator = type(trainer).__name__, trainer.accelerator
        names = [*SETTINGS, *(name for name in vars(args) if name.startswith("fspo_") or name in OURS)]
        facts = facts_of(
            ("trl", version("trl"), kind),
            str(getattr(args, "method", getattr(args, "loss_type", kind))),
            {name: plain(getattr(args, name)) for name in names if hasattr(args, name)},
            [*UNKNOWN, *([] if getattr(trainer, "rollout_func", None) is None else [DRAWN_ELSEWHERE])],
            rewards=list(trainer.reward_func_names),
            model=model_name(str(trainer.model.config._name_or_path)),
            seed=args.seed,
            every=self.every,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
            command=[Path(sys.orig_argv[0]).name, *sys.orig_argv[1:]],
        )
        return OwnRun(self.folder, self._recording_name(trainer.state.global_step), args.seed, facts)

    def _recording_name(self, begun: int) -> str:
        """The recording's name in a bank, of a run that begins at that optimizer step."""
        kind, accelerator = type(self.trainer).__name__, self.trainer.accelerator
        words = ["trl", kind.removesuffix("Trainer").lower(), self.name, f"seed{self.trainer.args.seed}"]
        words += [f"rank{accelerator.process_index}" if accelerator.num_processes > 1 else ""]
        return "-".join(filter(None, [*words, f"from{begun}" if begun else ""]))


def without_ratios(args: Any) -> str:
    """What to say of settings that give no rollout a second update, so that every ratio is 1; "" where one gets it."""
    updates = args.num_iterations * args.steps_per_generation / args.gradient_accumulation_steps
    if updates > 1:
        return ""
    return (
        f"updates a rollout are num_iterations ({args.num_iterations}) x steps_per_generation "
        f"({args.steps_per_generation}) / gradient_accumulation_steps ({args.gradient_accumulation_steps}) = "
        f"{updates:g}: every ratio is 1, no clip acts, and no command can use the bank; raise one of the first two to "
        "get 2 or more"
    )


def plain(value: Any) -> Any:
    """A setting as JSON holds it.

    >>> plain(0.2), plain([1, 2]), plain(Path("a"))
    (0.2, [1, 2], 'a')
    """
    return value if value is None or isinstance(value, bool | int | float | str | list) else str(value)


def model_name(given: str) -> str:
    """A hub's name as it is, a folder's without the path to it.

    >>> model_name("Qwen/Qwen3-0.6B"), model_name("/home/me/models/mine")
    ('Qwen/Qwen3-0.6B', 'mine')
    """
    return Path(given).name if Path(given).is_absolute() else given
