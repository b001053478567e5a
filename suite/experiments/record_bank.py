"""Recording a bank: train a policy for some steps and keep its rollouts and what every update said of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from suite.config import CompareConfig, plain_data
from suite.experiments.layouts import layout_for
from suite.experiments.local_jobs import run_jobs
from suite.experiments.sampler_choice import AUTO
from suite.experiments.settings import method_in
from suite.experiments.start import load, source_of
from suite.methods.cards import card_digest
from suite.policy.loading import model_digest
from suite.policy.lora import merged
from suite.policy.portable import ARITHMETIC, compute_portably, kind_of_arithmetic
from suite.records.bank import Bank, PendingFile
from suite.records.files import write_atomically
from suite.records.provenance import machine, versions
from suite.records.rollout_set import RolloutSet
from suite.records.run_log import read_log
from suite.records.update_log import UpdateLog
from suite.training.trainer import Trainer
from suite.types import UserError

NO_METHOD = "none"
"""The driver that clips nothing: the sequence ratio as it is."""
BEGUN, FINISHED = "begun.json", "finished.json"
"""In a working folder: the settings that it was begun with, and what the bank is to say of it."""


@dataclass(frozen=True)
class RecordJob:
    """Train one policy in a working folder beside the bank, keeping rollouts, updates and the policies' digests."""

    config: CompareConfig
    out: Path
    method: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method}-seed{self.seed}"

    @property
    def folder(self) -> Path:
        return self.out.with_name(f"{self.out.name}.recording") / self.name

    @property
    def total(self) -> int:
        return self.config.train.steps

    @property
    def driver(self) -> str:
        """The name of the method that drives the policy."""
        return "no_clip" if self.method == NO_METHOD else self.method

    def settings(self) -> dict[str, Any]:
        """What must be alike for a recording to be this one."""
        method = method_in(self.config, self.driver)
        driver = {"method": self.driver, "card": card_digest(method), "hyper": plain_data(method.hyper)}
        alike = {"recipe": self.config.name, "train": plain_data(self.config.train), "driver": driver}
        return json.loads(json.dumps(alike))

    def done(self) -> bool:
        return (self.folder / FINISHED).exists()

    def claim(self) -> None:
        """Note the settings in the working folder; UserError where an interrupted recording left others there."""
        begun = self.folder / BEGUN
        there = json.loads(begun.read_text(encoding="utf-8")) if begun.exists() else None
        if there != self.settings() and (self.folder / "rollouts").exists():
            raise UserError(
                f"{self.folder}: an interrupted recording with other settings; give those again, or delete the folder"
            )
        write_atomically(begun, json.dumps(self.settings(), indent=1) + "\n")

    def finished_units(self) -> int:
        return len(read_log(self.folder))

    def run(self) -> str:
        compute_portably(self.config.train.portable)
        loaded, sampler = load(self.config.train)
        source = source_of(self.config, loaded, sampler, self.seed)

        def keep(step: int, recorded: RolloutSet) -> None:
            write_atomically(self.folder / "rollouts" / f"step-{step:05d}.safetensors", recorded.to_bytes())
            write_atomically(self.folder / "policies" / f"step-{step:05d}", model_digest(merged(loaded.model)))

        method = method_in(self.config, self.driver)
        log = Trainer(self.config.train, method, self.seed, source, self.folder, on_rollouts=keep).run()
        facts = {
            **self.settings(),
            "seed": self.seed,
            "digests": {**source.digests, "final_model": model_digest(loaded.model)},
            "environment": {**versions(), **machine(), ARITHMETIC: kind_of_arithmetic(self.config.train.portable)},
        }
        write_atomically(self.folder / FINISHED, json.dumps(facts, indent=1) + "\n")
        return f"{len(log)} steps, reward {log[0]['reward/mean']:.3f} -> {log[-1]['reward/mean']:.3f}"

    def files(self) -> list[PendingFile]:
        """What the bank keeps of it: a rollout set and an update log for every step."""
        kept = []
        for path in sorted((self.folder / "rollouts").glob("step-*.safetensors")):
            step = int(path.stem.removeprefix("step-"))
            policy = (self.folder / "policies" / path.stem).read_text(encoding="utf-8")
            updates = self.folder / "updates" / path.name
            rows = {"rollouts": self.config.train.problems_per_step * self.config.train.samples_per_problem}
            rows["updates"] = len(UpdateLog.load(updates))
            for kind, source in (("rollouts", path), ("updates", updates)):
                kept.append(PendingFile(kind, source.read_bytes(), self.seed, step, rows[kind], policy))
        return kept


def record_rollouts(
    config: CompareConfig,
    out: Path,
    method: str,
    command: Sequence[str],
    console: Console,
    ranges: Mapping[str, str] | None = None,
) -> Bank:
    """Record the recipe's policy driven by `method` ("none": without clip) for every seed of the config; appends.

    `ranges` says which range file settings came from, for the manifest.
    Interrupted recordings go on where they stopped; what the bank holds already is not made again. UserError where it
    holds one of the same name that was made with other settings.
    """
    bank = Bank.open_or_new(out)
    if config.train.sampler == AUTO:
        raise UserError("train.sampler=auto: a bank is added to later, on any machine; name an engine")
    jobs = [RecordJob(config, out, method, seed) for seed in config.seeds]
    left = [job for job in jobs if not _is_recorded(job, bank)]
    for job in left:
        job.claim()
    run_jobs([left], layout_for(config.train, len(left)), console)
    for job in left:
        facts = json.loads((job.folder / FINISHED).read_text(encoding="utf-8"))
        facts |= {"command": list(command), **({"ranges": dict(ranges)} if ranges else {})}
        bank = bank.append(job.name, facts, job.files())
        shutil.rmtree(job.folder)
    with suppress(OSError):  # another recording works there
        jobs[0].folder.parent.rmdir()
    return bank


def _is_recorded(job: RecordJob, bank: Bank) -> bool:
    """Whether the bank holds this very recording; UserError where it holds one of that name with other settings."""
    there = bank.recordings.get(job.name)
    if there is None:
        return False
    if {name: there[name] for name in job.settings()} != job.settings():
        raise UserError(f"{job.out}: holds another recording {job.name} already; choose other --seeds or another --out")
    shutil.rmtree(job.folder, ignore_errors=True)  # it may have been killed between the two
    return True
