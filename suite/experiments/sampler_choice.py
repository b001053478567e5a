"""`train.sampler=auto`: the engine that draws faster on this machine, measured once, for all cells of a comparison.

Engines have noise of their own, so that all cells must draw with the same one: the choice is made before the first of
them, kept in the comparison's file with the tokens per second that it follows from, and not made again.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from suite.config import CompareConfig
from suite.experiments.layouts import layout_for
from suite.experiments.local_jobs import run_jobs
from suite.experiments.start import load, source_of
from suite.policy.engines import ENGINES, require_engine
from suite.policy.ranks import under_torchrun
from suite.policy.revisions import weights_changed
from suite.policy.sampling import awake
from suite.records.comparison_folder import CONFIG_FILE, holds, recorded_sampler_choice, stored_config
from suite.records.files import write_atomically
from suite.types import UserError

AUTO = "auto"
WARM_UP_TOKENS = 4


@dataclass(frozen=True)
class Choice:
    """The engine that draws, and what it was chosen by: response tokens per second of each engine, or why there are
    none."""

    engine: str
    measured: Mapping[str, float | str]

    def words(self) -> str:
        """The choice in one line."""
        said = [
            f"{name} {speed}" if isinstance(speed, str) else f"{name} {speed:.0f} tokens/s"
            for name, speed in self.measured.items()
        ]
        return f"sampler: {self.engine}, chosen by train.sampler=auto ({', '.join(said)})"

    def facts(self) -> dict[str, object]:
        """As plain data, for a manifest."""
        return {"engine": self.engine, "measured": dict(self.measured)}


@dataclass(frozen=True)
class SpeedJob:
    """Draw the rollouts of a step with one engine, as a cell would, and keep the response tokens per second.

    A shorter draw comes before it, of another step. Then the weights count as changed, as they are in every step of a
    cell: an engine has to take them over, and forgets what it keeps of prompts.
    """

    config: CompareConfig
    engine: str
    out: Path

    total = 1

    @property
    def name(self) -> str:
        return f"speed of {self.engine}"

    @property
    def folder(self) -> Path:
        return self.out / self.engine

    @property
    def file(self) -> Path:
        return self.folder / "speed.json"

    def done(self) -> bool:
        return self.file.exists()

    def finished_units(self) -> int:
        return 0

    def run(self) -> str:
        config = with_engine(self.config, self.engine)
        config = replace(config, train=replace(config.train, dynamic_sampling=0))
        loaded, sampler = load(config.train)
        source = source_of(config, loaded, sampler, config.seeds[0])
        with awake(sampler):
            short = replace(source, config=replace(config.train, max_new_tokens=WARM_UP_TOKENS, overlong_buffer=0))
            short.record(0)
            start = time.perf_counter()
            weights_changed(loaded.model)
            tokens = sum(len(rollout.response_ids) for rollout in source.record(1).rollouts)
            speed = tokens / (time.perf_counter() - start)
        write_atomically(self.file, json.dumps({"tokens_per_second": speed}) + "\n")
        return f"{speed:.0f} tokens/s"

    def speed(self) -> float:
        """Response tokens per second, as measured."""
        return json.loads(self.file.read_text(encoding="utf-8"))["tokens_per_second"]


def with_engine(config: CompareConfig, engine: str) -> CompareConfig:
    """The comparison with that engine in the place of `auto`."""
    return replace(config, train=replace(config.train, sampler=engine))  # pyright: ignore[reportArgumentType]


def require_choice(config: CompareConfig, on_ray: bool = False) -> None:
    """UserError where nobody can choose an engine for all: under torchrun, and on the machines of a Ray cluster."""
    if config.train.sampler == AUTO and (on_ray or under_torchrun()):
        where = "on Ray, whose machines may differ" if on_ray else "under torchrun"
        raise UserError(f"train.sampler=auto: not {where}; name an engine, --set train.sampler=transformers")


def kept_engine(config: CompareConfig, out: Path) -> CompareConfig:
    """The config with the engine of the comparison that is in `out`, where it is `auto` and there is one."""
    there = config.train.sampler == AUTO and (out / CONFIG_FILE).exists()
    return with_engine(config, stored_config(out).train.sampler) if there else config


def with_sampler_chosen(
    config: CompareConfig, out: Path, console: Console, workers: int | None = None
) -> tuple[CompareConfig, Choice | None]:
    """The config with an engine in the place of `auto`, and the choice; the config as it is where it names one.

    A comparison that is in `out` already goes on with the engine that was chosen for it. Else every engine that is
    installed draws the rollouts of a step, one after the other, with the threads that each of `workers` will have.
    Raises UserError where nobody can choose, and where something else is in `out`.
    """
    if config.train.sampler != AUTO:
        return config, None
    if (out / CONFIG_FILE).exists():
        return kept_engine(config, out), recorded_choice(out)
    require_choice(config)
    holds(config, out, {})
    measured: dict[str, float | str] = {}
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for engine in ENGINES:
            try:
                require_engine(engine, vllm=config.train.vllm)
                jobs.append(SpeedJob(config, engine, Path(folder)))
            except UserError:
                measured[engine] = "cannot start here"
        speeds: dict[str, float] = {}
        for job in jobs if len(jobs) > 1 else []:
            layout = layout_for(with_engine(config, job.engine).train, len(config.methods) * len(config.seeds), workers)
            try:
                run_jobs([[job]], replace(layout, workers=1, devices=layout.devices[:1]), console)
                speeds[job.engine] = job.speed()
            except UserError as error:
                measured[job.engine] = f"does not start here: {error}"
    if len(jobs) == 1:
        measured[jobs[0].engine] = "the only engine here"
    elif not speeds:
        raise UserError(f"train.sampler=auto: no engine could draw ({'; '.join(map(str, measured.values()))})")
    chosen = max(speeds, key=lambda engine: speeds[engine]) if speeds else jobs[0].engine
    return with_engine(config, chosen), Choice(chosen, measured | speeds)


def recorded_choice(out: Path) -> Choice | None:
    """The choice that was made for the comparison in a folder; None where its engine was named."""
    found = recorded_sampler_choice(out)
    return Choice(found["engine"], found["measured"]) if found else None
