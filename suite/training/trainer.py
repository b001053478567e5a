"""The training loop: sample, grade, score old log-probs, credit, update several times, log, checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import get_scheduler

from suite.advantages import group_centred
from suite.config import TrainConfig
from suite.policy.lora import add_adapters, fold_adapters
from suite.policy.ranks import ALONE, Ranks
from suite.policy.revisions import follow
from suite.policy.scoring import Critic
from suite.records.costs import Clock
from suite.records.rollout_set import RolloutSet
from suite.records.run_log import RunLog, read_log
from suite.records.trackers import Trackers
from suite.records.update_log import UpdateLog, step_file
from suite.training.checkpoint import load_checkpoint, save_checkpoint
from suite.training.metrics import rollout_metrics, update_metrics
from suite.training.rollout_source import RolloutSource
from suite.training.sharding import gather_into, let_go, shard, sharded_copy
from suite.training.shared_sampling import leader_only
from suite.training.step_batches import Parts, credited, mini_batches, rewards_and_groups, scored_step
from suite.training.update import Learner, StepReport, critic_step, optimizer_step
from suite.types import FinishReason, Method, Rollout, State, UserError

RATIO_TOLERANCE = 1e-5
"""Largest |log ratio| allowed before the first update of a rollout; more means that old and new scores differ."""


@dataclass
class Trainer:
    """One cell: one method, one seed, one policy. `first` is the recorded rollout set that every method starts from.

    `on_updates` is told what the updates of a step saw and the method's estimates before them; its numbers are logged.
    Of several `ranks` each has a trainer; the source's model stays whole and draws, a cut copy of it is trained. Only
    the leading one writes, and only its folder, source of rollouts and `first` are asked.
    """

    config: TrainConfig
    method: Method
    seed: int
    source: RolloutSource
    folder: Path
    first: RolloutSet | None = None
    on_step: Callable[[int, Mapping[str, float]], None] = lambda step, numbers: None
    on_rollouts: Callable[[int, RolloutSet], None] = lambda step, recorded: None
    on_updates: Callable[[UpdateLog, State], Mapping[str, float]] = lambda log, state: {}
    ranks: Ranks = ALONE
    trackers: Trackers | None = None

    def run(self) -> list[dict[str, float]]:
        """Train to the end, from the last checkpoint where there is one; returns the logged steps.

        Adapters are part of the model while it trains, and folded into its weights at the end.
        """
        model, kl, lora = self.source.model, self.config.kl_coefficient > 0, self.config.lora_rank > 0
        handed = self.config.sampler == "vllm" or self.config.precision == "bfloat16"
        if self.ranks.sharded and handed:
            model.to("cpu")  # from here on it hands weights to the sampler's own copy, and needs no device memory
        frozen = {id(p): p for p in model.parameters()} if lora else {}  # which the start model then shares
        self.start_model = self._start_model(frozen) if kl else None
        self.learner = build_learner(model, self.method, self.config, self.seed, self.ranks)
        if self.ranks.sharded and self.config.sampler == "vllm" and not self.ranks.is_node_leader:
            let_go(model)  # engines read the weights of their node's first process, evaluations the leading one's
        self.state: State = {}
        first_step = self._resume()
        log = RunLog(self.folder, first_step, self.trackers) if self.ranks.is_leader else None
        for step in range(first_step, self.config.steps):
            try:
                numbers = self._step(step)
            except BaseException as error:
                error.add_note(f"step {step}")
                raise
            if log is not None:
                log.append(step, numbers)
            if (step + 1) % self.config.checkpoint_every == 0 or step + 1 == self.config.steps:
                self._checkpoint(step + 1)
            self.on_step(step, numbers)
        self._gather_weights()
        if lora:
            fold_adapters(model)
        return [] if log is None else read_log(self.folder)

    def _start_model(self, frozen: dict[int, Any]) -> Any:
        model = self.source.model
        if not self.ranks.sharded:
            return copy.deepcopy(model, frozen)
        return sharded_copy(model, self.ranks.count).requires_grad_(False)

    def _gather_weights(self) -> None:
        """Bring the whole model that draws and is evaluated to where training has come."""
        if self.ranks.sharded:
            gather_into(self.source.model, self.learner.model)

    def _rollouts(self, step: int) -> RolloutSet:
        """The step's rollouts: recorded or taken over by the leading process, known to all."""
        self._gather_weights()
        with leader_only(self.source.sampler) as leads:
            if not leads:
                return RolloutSet.from_bytes(self.ranks.broadcast(None))
            recorded = self.first if step == 0 and self.first is not None else self.source.record(step)
        if self.ranks.count > 1:
            self.ranks.broadcast(recorded.to_bytes())
        return recorded

    def _probe(self, step: int) -> dict[str, float]:
        """What a probe says of the policy before the step, in the steps that have one; known to the leading process."""
        if not self.config.probe_every or step % self.config.probe_every:
            return {}
        self._gather_weights()
        with leader_only(self.source.sampler) as leads:
            return self.source.probe() if leads else {}

    def _step(self, step: int) -> dict[str, float]:
        clock = Clock()
        probed = self._probe(step)
        clock.lap("probe")
        recorded = self._rollouts(step)
        rollouts = recorded.rollouts
        self.on_rollouts(step, recorded)
        clock.lap("sample")
        parts = self._score(rollouts, step)
        if step == 0:
            parts = self._warm_up_critic(parts, rollouts)
        parts = credited(self.method, parts, rollouts, self.ranks)
        clock.lap("score")
        before = self.state
        reports = self._update(parts)
        clock.lap("update")
        centred = group_centred(*rewards_and_groups(rollouts))
        numbers = rollout_metrics(rollouts, [part for mini in parts for part in mini], self.ranks)
        numbers |= update_metrics(reports, centred)
        numbers["grad_norm/cut"] = sum(r.grad_norm > self.config.max_grad_norm for r in reports) / len(reports)
        numbers |= self.on_updates(self._record_updates(step, rollouts, reports, centred), before)
        numbers |= probed | {f"state/{name}": value for name, value in self.state.items()}
        numbers["tokens/updated"] = numbers["tokens/scored"] * self.config.epochs
        numbers["learning_rate"] = float(self.learner.schedule.get_last_lr()[0])
        return numbers | clock.costs

    def _score(self, rollouts: Sequence[Rollout], step: int) -> Parts:
        """Old log-probs, in the very micro-batches that the updates will use."""
        minis = mini_batches(rollouts, self.config, self.seed, step, self.learner.model.device, self.learner.ranks)
        return scored_step(self.learner, minis, rollouts, self.start_model)

    def _warm_up_critic(self, parts: Parts, rollouts: Sequence[Rollout]) -> Parts:
        """Fit a fresh critic to the first rollouts before the policy moves; other methods pass through."""
        if self.learner.critic is None:
            return parts
        fitted = credited(self.method, parts, rollouts, self.ranks)
        for _ in range(self.method.hyper.critic_warmup_epochs):
            for mini in fitted:
                critic_step(self.learner, self.method, mini, clip_to_old=False)
        return scored_step(self.learner, [[part.micro for part in mini] for mini in parts], rollouts, self.start_model)

    def _update(self, parts: Parts) -> list[StepReport]:
        reports: list[StepReport] = []
        limit = self.source.settings.max_new_tokens
        for _ in range(self.config.epochs):
            for mini in parts:
                report, self.state = optimizer_step(self.learner, self.method, mini, self.state, limit)
                if not reports and (gap := float(report.token_log_ratios.abs().max())) > RATIO_TOLERANCE:
                    raise UserError(
                        f"{self.method.name}: log ratio {gap:.2e} before the first update, where it must be 0; "
                        "old and new log-probs differ (is dropout on, or is the model not deterministic?)"
                    )
                reports.append(report)
        return reports

    def _record_updates(
        self, step: int, rollouts: Sequence[Rollout], reports: Sequence[StepReport], centred: torch.Tensor
    ) -> UpdateLog:
        """Keep what every update saw, so that any method's clip can be replayed on it."""
        rows = [row for report in reports for row in report.rows]
        log = UpdateLog(
            problem_ids=np.array([rollouts[i].problem_id for i in rows]),
            seed=np.array(self.seed),
            step=np.array(step),
            update=np.repeat(np.arange(len(reports)), [len(report.rows) for report in reports]),
            reward=np.array([rollouts[i].reward for i in rows]),
            advantage=centred.numpy()[rows],
            truncated=np.array([rollouts[i].finish_reason == FinishReason.LENGTH for i in rows]),
            lengths=np.array([len(rollouts[i].response_ids) for i in rows]),
            log_probs=torch.cat([report.log_probs[report.mask] for report in reports]).cpu().numpy(),
            old_log_probs=torch.cat([report.old_log_probs[report.mask] for report in reports]).cpu().numpy(),
        )
        if self.ranks.is_leader:
            folder = self.folder / "updates"
            folder.mkdir(parents=True, exist_ok=True)
            log.save(folder / step_file(step))
        return log

    def _modules(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        learner = self.learner
        modules, optimizers = {"model": learner.model}, {"optimizer": learner.optimizer}
        schedules = {"schedule": learner.schedule}
        if learner.critic is not None and learner.critic_optimizer is not None:
            modules["critic"], optimizers["critic_optimizer"] = learner.critic, learner.critic_optimizer
            schedules["critic_schedule"] = learner.critic_schedule
        return modules, optimizers, schedules

    def _checkpoint(self, next_step: int) -> None:
        modules, optimizers, schedules = self._modules()
        clocks = {name: schedule.state_dict() for name, schedule in schedules.items()}
        numbers = {"next_step": next_step, "state": dict(self.state), "schedules": clocks}
        path = self.folder / "checkpoint.safetensors"
        save_checkpoint(path, modules, optimizers, numbers, writes=self.ranks.is_leader)

    def _resume(self) -> int:
        """The first step still to do."""
        path = self.folder / "checkpoint.safetensors"
        if not self.ranks.agreed(path.exists()):
            return 0
        modules, optimizers, schedules = self._modules()
        numbers = load_checkpoint(path, modules, optimizers)
        self.state = numbers["state"]
        for name, schedule in schedules.items():
            schedule.load_state_dict(numbers["schedules"][name])
            for group, rate in zip(schedule.optimizer.param_groups, schedule.get_last_lr(), strict=True):
                group["lr"] = rate
        return numbers["next_step"]


def build_learner(model: Any, method: Method, config: TrainConfig, seed: int = 0, ranks: Ranks = ALONE) -> Learner:
    """AdamW with its schedule for the policy, and for the critic where the method needs values.

    With a `lora_rank` the policy gets adapters, drawn from `seed`, and nothing else of it is trained; the critic is
    a full copy of the policy's body all the same. With sharded `ranks` a copy of the policy is trained, cut among them.
    """
    updates, drawn_from = config.steps * config.updates_per_rollout, model

    def adamw(parameters: Any, rate: float, extra_updates: int) -> tuple[torch.optim.AdamW, Any]:
        optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=config.weight_decay, fused=True)
        total = updates + extra_updates
        return optimizer, get_scheduler(config.schedule, optimizer, config.warmup_updates, total)

    if config.activation_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    critic = Critic(model) if "values" in method.needs else None
    if config.lora_rank:
        add_adapters(model, config.lora_rank, config.lora_alpha, config.lora_targets, seed)
    if ranks.sharded:
        model = sharded_copy(model, ranks.count)
        if critic is not None:
            shard(critic, ranks.count)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, schedule = adamw(trained, config.learning_rate, 0)
    follow(drawn_from, optimizer)
    learner = Learner(model, optimizer, schedule, config.max_grad_norm, config.kl_coefficient, config.precision)
    learner.float32_head, learner.ranks = config.float32_head, ranks
    if critic is not None:
        learner.critic = critic
        rate = config.learning_rate * method.hyper.critic_learning_rate_ratio
        warm_up = method.hyper.critic_warmup_epochs * config.mini_batches
        learner.critic_optimizer, learner.critic_schedule = adamw(learner.critic.parameters(), rate, warm_up)
    return learner
