"""The jobs of a comparison: evaluate the base model, record the first rollouts of a seed, train and evaluate a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from suite.config import PROTOCOL, CompareConfig, plain_data
from suite.evaluation.canary import check_canary
from suite.evaluation.evaluate import evaluate, manifest_of
from suite.evaluation.sample_store import FOLDER as SAMPLES
from suite.evaluation.sample_store import SampleStore
from suite.experiments.evaluation_overlap import left_out
from suite.experiments.model_card import Finished, write_card
from suite.experiments.names import tasks_named
from suite.experiments.settings import method_in
from suite.experiments.start import environment_of, load, source_of
from suite.methods.cards import card_digest
from suite.policy.halving_sampler import FrugalSampler
from suite.policy.loading import LoadedModel, model_digest
from suite.policy.model_folders import save_model
from suite.policy.portable import compute_portably
from suite.policy.ranks import ranks_here
from suite.policy.sampling import Sampler
from suite.records.comparison_folder import FIRST, GRID, base_folder, cell_folder, recorded_command, rollouts_folder
from suite.records.costs import PEAK, SECONDS, Clock
from suite.records.files import digest_of, write_atomically
from suite.records.packed import is_finished, read_result
from suite.records.provenance import machine, versions
from suite.records.result import BASE, curves_of, digest, ends, mean_accuracy, write_result
from suite.records.rollout_set import RolloutSet
from suite.records.run_log import read_log
from suite.records.trackers import Tracked, Trackers
from suite.replay.length_log import length_logger
from suite.replay.null_update import null_update, trained_in
from suite.training.rollout_source import RolloutSource
from suite.training.shared_sampling import leader_only
from suite.training.trainer import Trainer
from suite.types import EvalResult, Method, RunResult, UserError

MODEL = "model"
"""Folder of the trained model in its cell's folder."""
CANARY = "canary"
"""Where a result's environment says whether the start model still gave the answers it gave for the base."""


@dataclass(frozen=True)
class BaseJob:
    """Evaluate the start model: the row every method is compared with."""

    config: CompareConfig
    out: Path

    name = BASE
    total = 1

    @property
    def folder(self) -> Path:
        return base_folder(self.out)

    def done(self) -> bool:
        return is_finished(self.folder)

    def finished_units(self) -> int:
        return 0

    def run(self) -> str:
        compute_portably(self.config.train.portable)
        loaded, sampler = load(self.config.train)
        with leader_only(sampler) as leads:
            return self._evaluated(loaded, sampler) if leads else ""

    def _evaluated(self, loaded: LoadedModel, sampler: Sampler) -> str:
        canary = canary_of(self.config, self.out, loaded, sampler)
        evals, costs = timed_evaluation(self.config, loaded, sampler, self.folder)
        digests = {"model": loaded.digest, "tokenizer": loaded.tokenizer_digest}
        environment = environment_of(sampler, self.config.train) | {CANARY: canary}
        result = RunResult(
            PROTOCOL, BASE, 0, plain_data(self.config.evaluation), evals, {}, digests, costs, environment
        )
        write_result(result, self.folder)
        return f"accuracy {mean_accuracy(evals):.3f}"


@dataclass(frozen=True)
class FirstRolloutsJob:
    """Record the rollouts that all methods of one seed start from."""

    config: CompareConfig
    out: Path
    seed: int

    total = 1

    @property
    def name(self) -> str:
        return f"rollouts seed {self.seed}"

    @property
    def folder(self) -> Path:
        return rollouts_folder(self.out, self.seed)

    @property
    def pointer(self) -> Path:
        """The file that says which rollout set is this seed's first."""
        return self.folder / FIRST

    def done(self) -> bool:
        return self.pointer.exists()

    def finished_units(self) -> int:
        return 0

    @property
    def noise(self) -> Path:
        """The null update on the rollouts of the first seed."""
        return self.out / "null-update.safetensors"

    def run(self) -> str:
        compute_portably(self.config.train.portable)
        loaded, sampler = load(self.config.train)
        with leader_only(sampler) as leads:
            return self._recorded(loaded, sampler) if leads else ""

    def _recorded(self, loaded: LoadedModel, sampler: Sampler) -> str:
        config = self.config.train
        recorded = source_of(self.config, loaded, sampler, self.seed).record(0)
        path = recorded.write(self.folder)
        if self.seed == self.config.seeds[0]:
            noise = null_update(loaded.model, recorded.rollouts, config, self.seed, [trained_in(config)])
            noise.save(self.noise)
        write_atomically(self.pointer, json.dumps({"file": path.name, "digest": path.stem}) + "\n")
        rewards = [r.reward or 0.0 for r in recorded.rollouts]
        return f"{len(rewards)} rollouts, reward {sum(rewards) / len(rewards):.3f}, digest {path.stem[:12]}"

    def read(self) -> tuple[RolloutSet, str]:
        """The recorded set and its digest. UserError where either file is not as it was written."""
        digest = self.first_digest()
        return RolloutSet.read(self.folder / f"{digest}.safetensors"), digest

    def first_digest(self) -> str:
        """Which rollout set is this seed's first."""
        try:
            found = json.loads(self.pointer.read_text(encoding="utf-8"))
            file, digest = str(found["file"]), str(found["digest"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.pointer}: unreadable ({error}); delete it to draw them again") from error
        if file != f"{digest}.safetensors":
            raise UserError(f"{self.pointer}: altered (file and digest differ); delete it to draw them again")
        return digest


@dataclass(frozen=True)
class CellJob:
    """Train one method with one seed from the shared first rollouts, then evaluate it."""

    config: CompareConfig
    out: Path
    method: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method} seed {self.seed}"

    @property
    def folder(self) -> Path:
        return cell_folder(self.out, self.method, self.seed)

    @property
    def total(self) -> int:
        """Training steps, and one unit for the evaluation."""
        return self.config.train.steps + 1

    def done(self) -> bool:
        return is_finished(self.folder)

    def finished_units(self) -> int:
        return len(read_log(self.folder))

    def run(self) -> str:
        compute_portably(self.config.train.portable)
        loaded, sampler = load(self.config.train)
        with leader_only(sampler) as leads:
            canary = canary_of(self.config, self.out, loaded, sampler) if leads else ""
        first, first_digest = FirstRolloutsJob(self.config, self.out, self.seed).read()
        source = source_of(self.config, loaded, sampler, self.seed)
        method = method_in(self.config, self.method)
        logger = length_logger(method, source.settings.max_new_tokens)
        digests = {"card": card_digest(method), **source.digests, "first_rollouts": first_digest}
        with self._trackers(method, digests) as trackers:
            trainer = Trainer(self.config.train, method, self.seed, source, self.folder, first, on_updates=logger)
            trainer.ranks, trainer.trackers = ranks_here(), trackers
            log = trainer.run()
            with leader_only(sampler) as leads:
                if not leads:
                    return ""
                result = self._finished(loaded, source, method, log, digests, {CANARY: canary})
            trackers.conclude(conclusion(result))
        start, end = ends([row["reward/mean"] for row in log])
        change = f"{start:.3f} -> {end:.3f}" if len(log) > 1 else "-"
        return f"reward {change}, accuracy {mean_accuracy(result.evals):.3f}"

    def _trackers(self, method: Method, digests: Mapping[str, str]) -> Trackers:
        """The trackers of this cell: a run in the group of its comparison; none in a process that does not write."""
        about = Tracked(group_of(self.config, self.out), self.name, {**self._settings(method), "digests": digests})
        return Trackers(self.config.train.trackers if ranks_here().is_leader else (), self.folder, about)

    def _settings(self, method: Method) -> dict[str, Any]:
        """The resolved settings of the cell, as its result has them."""
        return {
            **plain_data(self.config.train),
            "hyper": plain_data(method.hyper),
            "evaluation": plain_data(self.config.evaluation),
            "left_out": left_out(self.config),
        }

    def _finished(
        self,
        loaded: LoadedModel,
        source: RolloutSource,
        method: Method,
        log: Sequence[Mapping[str, float]],
        digests: Mapping[str, str],
        environment: Mapping[str, str],
    ) -> RunResult:
        """Evaluate the trained model, keep it, and write the result."""
        evals, costs = timed_evaluation(self.config, loaded, source.sampler, self.folder)
        costs |= {name: sum(row[name] for row in log) for name in log[0] if name.startswith(SECONDS)}
        costs |= {name: max(row[name] for row in log) for name in log[0] if name.startswith(PEAK)}
        costs["tokens"] = sum(row["tokens/sampled"] for row in log)
        result = RunResult(
            protocol=PROTOCOL,
            method=self.method,
            seed=self.seed,
            config=self._settings(method),
            evals=evals,
            curves=curves_of(log),
            digests={**digests, "final_model": model_digest(loaded.model)},
            costs=costs,
            environment=environment_of(source.sampler, self.config.train) | dict(environment),
        )
        self._keep(loaded, method, result)
        write_result(result, self.folder)
        (self.folder / "checkpoint.safetensors").unlink(missing_ok=True)
        return result

    def _keep(self, loaded: LoadedModel, method: Method, result: RunResult) -> None:
        """Save the trained model with its card."""
        base = read_result(self.out / BASE).evals if is_finished(self.out / BASE) else ()
        save_model(loaded.model, loaded.tokenizer, self.folder / MODEL)
        command = recorded_command(self.out)
        write_card(Finished(self.config, method, result, base, command), self.folder / MODEL)


def group_of(config: CompareConfig, out: Path) -> str:
    """What trackers call a comparison: its folder's name, and the start of the digest of what all its cells share.

    Methods and seeds can be added to a comparison, so its name does not hang on them.
    """
    shared = {name: value for name, value in plain_data(config).items() if name not in GRID}
    return f"{out.resolve().name}-{digest_of(shared)[:8]}"


def conclusion(result: RunResult) -> dict[str, Any]:
    """What trackers are told at the end of a cell: accuracies, and the digests of the result and the final model."""
    accuracies = {f"accuracy/{one.task}": mean_accuracy([one]) for one in result.evals}
    digests = {"digest/result": digest(result), "digest/final_model": result.digests["final_model"]}
    return {"accuracy": mean_accuracy(result.evals), **accuracies, **digests}


def canary_of(config: CompareConfig, out: Path, loaded: LoadedModel, sampler: Sampler) -> str:
    """What `check_canary` says of the start model in this process."""
    chosen = tasks_named(config.evaluation.tasks)
    return check_canary(out / BASE, loaded, sampler, chosen, config.evaluation, config.train.data_dir)


def timed_evaluation(
    config: CompareConfig, loaded: LoadedModel, sampler: Sampler, folder: Path
) -> tuple[tuple[EvalResult, ...], dict[str, Any]]:
    """The evaluations of the model as it is now, with what they cost.

    Samples are kept in the folder; an evaluation that was killed goes on with them.
    """
    clock = Clock()
    chosen, data_dir = tasks_named(config.evaluation.tasks), config.train.data_dir
    frugal = FrugalSampler(sampler, lambda line: print(f"{folder.name}: {line}", flush=True))
    now = replace(loaded, digest=model_digest(loaded.model))
    store = SampleStore(folder / SAMPLES)
    store.claim(manifest_of(now, sampler.engine, chosen, config.evaluation, data_dir, {**versions(), **machine()}))
    evals = evaluate(frugal, loaded.tokenizer, chosen, config.evaluation, data_dir, store=store)
    clock.lap("evaluate")
    costs: dict[str, Any] = dict(clock.costs)
    if frugal.batch_size is not None:
        costs["evaluation_batch"] = frugal.batch_size
    return tuple(evals), costs
