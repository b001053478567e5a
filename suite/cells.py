"""The jobs of a comparison: evaluate the base model, record the first rollouts of a seed, train and evaluate a cell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from suite.canary import check_canary
from suite.cards import card_digest
from suite.config import PROTOCOL, CompareConfig, TrainConfig, plain
from suite.costs import PEAK, SECONDS, Clock
from suite.deterministic import compute_deterministically
from suite.engines import require_engine, sampler_for
from suite.environment import machine, versions
from suite.evaluate import evaluate, manifest_of
from suite.fetch import located
from suite.files import write_atomically
from suite.frugal import FrugalSampler
from suite.models import LoadedModel, load_model, model_digest
from suite.null_update import null_update, trained_in
from suite.online import length_logger
from suite.ranks import ranks_here
from suite.recipes import EMBEDDED_MODEL, left_out, method_with, overlaps_of, tasks_named
from suite.recording import RolloutSet
from suite.results import FILE, curves_of, read_result, write_result
from suite.rollouts import RolloutSource
from suite.run_log import read_log
from suite.sample_store import FOLDER as SAMPLES
from suite.sample_store import SampleStore
from suite.sampling import Sampler
from suite.shared_sampling import led, shared
from suite.trainer import Trainer
from suite.types import EvalResult, Method, RunResult, UserError, Verdict

BASE = "base"
CANARY = "canary"
"""Where a result's environment says whether the start model still gave the answers it gave for the base."""


def load(config: TrainConfig) -> tuple[LoadedModel, Sampler]:
    """The start model in float32 on the best device, and a sampler of the configured engine and precision.

    Under torchrun every process has both, and the sampler is one for all.
    """
    require_engine(config.sampler, vllm=config.vllm)
    compute_deterministically(config.deterministic)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_model(located(config.model), dtype=torch.float32, device=device, embedded_folder=EMBEDDED_MODEL)
    side_by_side = config.sampling_batch_size
    sampler = sampler_for(config.sampler, loaded.model, loaded.tokenizer, config.precision, side_by_side, config.vllm)
    return loaded, shared(sampler, ranks_here())


def source_of(config: CompareConfig, loaded: LoadedModel, sampler: Sampler, seed: int) -> RolloutSource:
    """Where the rollouts of a training run come from: its tasks without what the evaluation sets hold too."""
    digests = {"model": loaded.digest, "tokenizer": loaded.tokenizer_digest}
    chosen, held_out = tasks_named(config.train.tasks), {found.train.id for found in overlaps_of(config)}
    return RolloutSource.of(loaded.model, loaded.tokenizer, sampler, chosen, config.train, seed, digests, held_out)


def environment_of(sampler: Sampler) -> dict[str, str]:
    """Versions, machine and engine of this process, and with how many others it works."""
    return {**versions(), **machine(), "sampler": sampler.engine, "processes": str(ranks_here().count)}


def mean_accuracy(evals: Sequence[EvalResult]) -> float:
    """Mean over the sets of the share of correct responses."""
    shares = []
    for result in evals:
        verdicts = [v for row in result.verdicts for v in row]
        shares.append(sum(v == Verdict.CORRECT for v in verdicts) / len(verdicts))
    return sum(shares) / len(shares)


@dataclass(frozen=True)
class BaseJob:
    """Evaluate the start model: the row every method is compared with."""

    config: CompareConfig
    out: Path

    name = BASE
    total = 1

    @property
    def folder(self) -> Path:
        return self.out / BASE

    def done(self) -> bool:
        return (self.folder / FILE).exists()

    def finished_units(self) -> int:
        return 0

    def run(self) -> str:
        loaded, sampler = load(self.config.train)
        with led(sampler) as leads:
            return self._evaluated(loaded, sampler) if leads else ""

    def _evaluated(self, loaded: LoadedModel, sampler: Sampler) -> str:
        canary = canary_of(self.config, self.out, loaded, sampler)
        evals, costs = timed_evaluation(self.config, loaded, sampler, self.folder)
        digests = {"model": loaded.digest, "tokenizer": loaded.tokenizer_digest}
        environment = environment_of(sampler) | {CANARY: canary}
        result = RunResult(PROTOCOL, BASE, 0, plain(self.config.evaluation), evals, {}, digests, costs, environment)
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
        return self.out / "rollouts" / f"seed{self.seed}"

    @property
    def pointer(self) -> Path:
        """The file that says which rollout set is this seed's first."""
        return self.folder / "first.json"

    def done(self) -> bool:
        return self.pointer.exists()

    def finished_units(self) -> int:
        return 0

    @property
    def noise(self) -> Path:
        """The null update on the rollouts of the first seed."""
        return self.out / "null-update.safetensors"

    def run(self) -> str:
        loaded, sampler = load(self.config.train)
        with led(sampler) as leads:
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
        """The recorded set and its digest."""
        found = json.loads(self.pointer.read_text(encoding="utf-8"))
        return RolloutSet.read(self.folder / found["file"]), found["digest"]


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
        return self.out / "cells" / f"{self.method}-seed{self.seed}"

    @property
    def total(self) -> int:
        """Training steps, and one unit for the evaluation."""
        return self.config.train.steps + 1

    def done(self) -> bool:
        return (self.folder / FILE).exists()

    def finished_units(self) -> int:
        return len(read_log(self.folder))

    def run(self) -> str:
        loaded, sampler = load(self.config.train)
        with led(sampler) as leads:
            canary = canary_of(self.config, self.out, loaded, sampler) if leads else ""
        first, first_digest = FirstRolloutsJob(self.config, self.out, self.seed).read()
        source = source_of(self.config, loaded, sampler, self.seed)
        method = method_with(self.method, self.config.options)
        logger = length_logger(method, source.settings.max_new_tokens)
        trainer = Trainer(self.config.train, method, self.seed, source, self.folder, first, on_updates=logger)
        trainer.ranks = ranks_here()
        log = trainer.run()
        facts = {"first_rollouts": first_digest}, {CANARY: canary}
        with led(sampler) as leads:
            return self._finished(loaded, source, method, log, *facts) if leads else ""

    def _finished(
        self,
        loaded: LoadedModel,
        source: RolloutSource,
        method: Method,
        log: Sequence[Mapping[str, float]],
        digests: Mapping[str, str],
        environment: Mapping[str, str],
    ) -> str:
        """Evaluate the trained model, keep it, and write the result."""
        evals, costs = timed_evaluation(self.config, loaded, source.sampler, self.folder)
        loaded.model.save_pretrained(self.folder / "model")
        loaded.tokenizer.save_pretrained(self.folder / "model")
        costs |= {name: sum(row[name] for row in log) for name in log[0] if name.startswith(SECONDS)}
        costs |= {name: max(row[name] for row in log) for name in log[0] if name.startswith(PEAK)}
        costs["tokens"] = sum(row["tokens/sampled"] for row in log)
        result = RunResult(
            protocol=PROTOCOL,
            method=self.method,
            seed=self.seed,
            config={
                **plain(self.config.train),
                "hyper": plain(method.hyper),
                "evaluation": plain(self.config.evaluation),
                "left_out": left_out(self.config),
            },
            evals=evals,
            curves=curves_of(log),
            digests={
                **{"card": card_digest(method), **source.digests, **digests},
                "final_model": model_digest(loaded.model),
            },
            costs=costs,
            environment=environment_of(source.sampler) | dict(environment),
        )
        write_result(result, self.folder)
        (self.folder / "checkpoint.safetensors").unlink(missing_ok=True)
        start, end = (sum(row["reward/mean"] for row in part) / len(part) for part in (log[:3], log[-3:]))
        return f"reward {start:.3f} -> {end:.3f}, accuracy {mean_accuracy(evals):.3f}"


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


def stages(config: CompareConfig, out: Path) -> list[list[Any]]:
    """The jobs of a comparison: base and first rollouts, then all cells (those with a critic, the slowest, first)."""
    cells = [CellJob(config, out, method, seed) for method in config.methods for seed in config.seeds]
    cells.sort(key=lambda job: "values" not in method_with(job.method, config.options).needs)
    return [[BaseJob(config, out), *(FirstRolloutsJob(config, out, seed) for seed in config.seeds)], cells]


def replayed_cells(config: CompareConfig, out: Path) -> list[Path]:
    """Folders of the cells whose update logs replays read, method by method."""
    return [CellJob(config, out, method, seed).folder for method in config.methods for seed in config.replayed]


def load_comparison(config: CompareConfig, out: Path) -> tuple[RunResult, list[RunResult]]:
    """The base model's result and every cell's, read from disk and checked; UserError while some are missing."""
    jobs = stages(config, out)
    waiting = [job.name for stage in jobs for job in stage if not job.done()]
    if waiting:
        raise UserError(f"{out}: not finished ({', '.join(waiting[:3])}, {len(waiting)} jobs); run fspo compare again")
    runs = [read_result(job.folder) for job in jobs[1]]
    order = {method: i for i, method in enumerate(config.methods)}
    return read_result(out / BASE), sorted(runs, key=lambda run: (order[run.method], run.seed))
