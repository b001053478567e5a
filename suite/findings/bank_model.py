"""What a lab needs the model for: the noise of its arithmetic, and where clipped updates point in parameter space."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import torch

from suite.advantages import group_centred
from suite.config import TrainConfig, restored_training
from suite.experiments.names import find_method
from suite.experiments.start import load
from suite.methods.cards import card_digest
from suite.policy.loading import LoadedModel
from suite.records.bank import Bank
from suite.records.other_runs import trainer_of
from suite.records.own_methods import require_allowed
from suite.records.rollout_set import RolloutSet
from suite.records.update_log import UpdateLog
from suite.replay.null_update import PRECISIONS, null_update
from suite.replay.resampling import quantile_edges
from suite.replay.update_directions import (
    ROUNDING,
    Adam,
    LogProbSpace,
    ParameterSpace,
    cosines,
    directions,
    length_statement,
    per_length_updates,
)
from suite.statistics.frames import names_of, numbers_of, select
from suite.training.step_batches import credited, mini_batches, rewards_and_groups, scored
from suite.training.trainer import build_learner
from suite.training.update import Learner, optimizer_step
from suite.training.whole_batch import ScoredBatch, whole_batch
from suite.types import FinishReason, Method, UserError

BOUND_BINS = 4
SPACES = ("log-probs", "parameters", "after Adam")


@dataclass(frozen=True)
class LabModel:
    """The start model of a bank's first recording, and its first rollouts.

    `updates`: how many optimizer steps of these rollouts get gradients of every method, the last ones; the driver's
    steps are taken again from the start, so that no policy has to be kept. `tell` hears how far the work is.
    `precisions`: of the null update.
    """

    bank: Bank
    methods: Mapping[str, Method]
    updates: int
    tell: Callable[[str], None]
    precisions: Sequence[str] = PRECISIONS

    def __post_init__(self) -> None:
        if (trainer := trainer_of(self.bank.recordings.get(self.name, {}))) is not None:
            raise UserError(
                f"{self.bank.folder}: {self.name} is a run of {trainer}, whose start model and texts are not in the "
                "bank; leave the model out with --no-model"
            )

    @property
    def name(self) -> str:
        """The first recording."""
        return next(iter(self.bank.recordings))

    @cached_property
    def config(self) -> TrainConfig:
        """How the recording was trained."""
        return restored_training(self.bank.recordings[self.name]["train"])

    @cached_property
    def loaded(self) -> LoadedModel:
        """The start model; UserError where it is not the one that was recorded."""
        found, known = load(self.config)[0], self.bank.recordings[self.name]["digests"]["model"]
        if found.digest != known:
            raise UserError(
                f"{self.bank.folder}: recorded with model {known[:12]}, {self.config.model!r} is {found.digest[:12]} "
                "here; give the model that was recorded, or leave the model out with --no-model"
            )
        return found

    @cached_property
    def first(self) -> RolloutSet:
        """The first rollouts of the recording."""
        (entry, *_) = [e for e in self.bank.entries if e.kind == "rollouts" and e.recording == self.name]
        return RolloutSet.read(self.bank.folder / entry.path)

    @cached_property
    def noise(self) -> UpdateLog:
        """The null update in every precision that was asked for."""
        seed = int(self.bank.recordings[self.name]["seed"])
        return null_update(
            self.loaded.model,
            self.first.rollouts,
            self.config,
            seed,
            self.precisions,
            lambda precision: self.tell(f"null update in {precision}"),
        )

    @cached_property
    def driver(self) -> Method:
        """The method that drove the recording, as it was; UserError where it has changed."""
        facts = self.bank.recordings[self.name]["driver"]
        require_allowed([facts["method"]], self.bank.folder)
        method = find_method(facts["method"])
        method = dataclasses.replace(method, hyper=dataclasses.replace(method.hyper, **facts["hyper"]))
        if card_digest(method) != facts["card"]:
            raise UserError(
                f"{self.bank.folder}: driven by {facts['method']} with card {facts['card']}, which is "
                f"{card_digest(method)} today; record again, or leave the model out with --no-model"
            )
        return method

    @cached_property
    def turns(self) -> tuple[pd.DataFrame, pd.DataFrame, float]:
        """(cosines by update, space, method, against; bounds by update, space, method; gap to the recorded log-probs).

        The gap is the largest |difference| in nats between the log-probs of these steps and those of the bank.
        """
        model, rollouts, driver = self.loaded.model, self.first.rollouts, self.driver
        seed = int(self.bank.recordings[self.name]["seed"])
        learner = build_learner(model, driver, self.config, seed)
        minis = mini_batches(rollouts, self.config, seed, 0, model.device)
        parts = credited(driver, [[scored(learner, micro, rollouts) for micro in mini] for mini in minis], rollouts)
        steps = [mini for _ in range(self.config.epochs) for mini in parts]
        measured = range(max(1, len(steps) - self.updates), len(steps))
        limit = int(self.first.header["sampling"]["max_new_tokens"])
        found: list[tuple[pd.DataFrame, pd.DataFrame]] = []
        state, seen = {}, []
        for update, mini in enumerate(steps):
            if update in measured:
                self.tell(f"gradients of update {update} of {len(steps) - 1}")
                tables = self._measure(learner, self._shared_advantages(mini), limit)
                found.append(tuple(table.assign(update=update) for table in tables))  # type: ignore[arg-type]
            report, state = optimizer_step(learner, driver, mini, state, limit)
            seen.append(report.log_probs[report.mask].cpu().numpy())
        cosine, bound = (pd.concat(tables, ignore_index=True) for tables in zip(*found, strict=True))
        return cosine, bound, self._gap(np.concatenate(seen))

    def _shared_advantages(self, mini: Sequence[ScoredBatch]) -> list[ScoredBatch]:
        """The parts with group-centred rewards for every method: they then differ by weight and clip alone."""
        centred = group_centred(*rewards_and_groups(self.first.rollouts))
        return [
            dataclasses.replace(
                part,
                batch=dataclasses.replace(
                    part.batch, advantages=centred[list(part.micro.rows)][:, None].to(part.batch.log_probs.device)
                ),
            )
            for part in mini
        ]

    def _measure(self, learner: Learner, mini: Sequence[ScoredBatch], limit: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        with learner.arithmetic():
            with torch.no_grad():
                batch = whole_batch(mini, [learner.score(part.micro) for part in mini])
            model = ParameterSpace(learner.model, mini, learner.float32_head)
            found = directions(model, self.methods, {}, max_new_tokens=limit)
            in_log_probs = directions(LogProbSpace(batch), self.methods, {}, max_new_tokens=limit)
            turns = {"log-probs": cosines(in_log_probs), "parameters": cosines(found)}
            turns["after Adam"] = cosines(Adam.of(learner.optimizer, learner.max_grad_norm).after(found))
            cosine = pd.concat([table.assign(space=name) for name, table in turns.items()])
            del found
            bins, rows = self._bins(), []
            for space, of in (("log-probs", LogProbSpace(batch)), ("parameters", model)):
                where = bins[[r for part in mini for r in part.micro.rows]] if space == "log-probs" else bins
                for name, method in self.methods.items():
                    statement = length_statement(per_length_updates(of, method, {}, where))
                    rows.append({"space": space, "method": name, **statement})
        return cosine, pd.DataFrame(rows)

    def _bins(self) -> torch.Tensor:
        """Length bin of every rollout, truncated ones in the last."""
        lengths = np.array([len(r.response_ids) for r in self.first.rollouts])
        cut = np.array([r.finish_reason == FinishReason.LENGTH for r in self.first.rollouts])
        edges = quantile_edges(lengths, BOUND_BINS)
        where = np.searchsorted(edges, lengths, side="right") - 1
        return torch.from_numpy(np.where(cut, len(edges) - 1, where))

    def _gap(self, log_probs: np.ndarray) -> float:
        (entry, *_) = [e for e in self.bank.entries if e.kind == "updates" and e.recording == self.name]
        recorded = UpdateLog.load(self.bank.folder / entry.path, checked=True).log_probs
        return float(np.abs(recorded - log_probs).max())


def turn_table(cosine: pd.DataFrame, own: str) -> pd.DataFrame:
    """Mean cosine with the method's own unclipped update, rows methods, columns SPACES."""
    mine = select(cosine, against=own)
    names = names_of(mine, "method")
    means = {s: [numbers_of(select(mine, method=name, space=s), "cosine") for name in names] for s in SPACES}
    columns = {s: [x[~np.isnan(x)].mean() if not np.isnan(x).all() else np.nan for x in of] for s, of in means.items()}
    return pd.DataFrame({"method": names, **columns})


def bound_sentence(bounds: pd.DataFrame) -> str:
    """Method by method: how often the bound of LRE said something, and how often a real clip fell below it."""
    lines = []
    for method in names_of(bounds, "method"):
        mine = select(bounds, method=method)
        said = ~np.isnan(numbers_of(mine, "bound"))
        if not said.any():
            lines.append(f"{method} K LRE reached 1 in all {len(mine)} cases")
            continue
        below = numbers_of(mine, "violated")[said].sum()
        lines.append(
            f"{method} below it in {below:.0f} of {said.sum()} ({len(mine) - said.sum()} with K LRE of 1 or more)"
        )
    bound, scaled = numbers_of(bounds, "bound"), numbers_of(bounds, "scaled")
    algebra = int(np.nansum(scaled < bound - ROUNDING))
    return (
        f"Updates scaled by length fall below the bound in {algebra} cases (0 by algebra). Real clips, which its "
        f"assumption leaves out: {', '.join(lines)}."
    )
