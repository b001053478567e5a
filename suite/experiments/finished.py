"""The jobs of a comparison in order, and what its finished ones left on disk."""

from __future__ import annotations

import dataclasses
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from suite.config import CompareConfig, plain_data
from suite.experiments.cells import BaseJob, CellJob, FirstRolloutsJob
from suite.experiments.settings import method_in
from suite.records.comparison_folder import CONFIG_FILE, stored_config
from suite.records.files import flat
from suite.records.packed import is_listed, list_updates, pack_results, read_result, unpacked_results
from suite.records.result import BASE
from suite.records.seals import is_sealed
from suite.records.update_log import UpdateLog
from suite.types import RunResult, UserError

PLACES = frozenset({"data_dir"})
"""Settings that say where data lie, and nothing of what is computed; the data's digest is in every result."""


def comparison_stages(config: CompareConfig, out: Path) -> list[list[Any]]:
    """The jobs of a comparison: base and first rollouts, then all cells, seed by seed.

    Those with a critic, the slowest, come first; of the others an interruption leaves whole seeds.
    """
    cells = [CellJob(config, out, method, seed) for seed in config.seeds for method in config.methods]
    cells.sort(key=lambda job: "values" not in method_in(config, job.method).needs)
    return [[BaseJob(config, out), *(FirstRolloutsJob(config, out, seed) for seed in config.seeds)], cells]


def replayed_cells(config: CompareConfig, out: Path) -> list[Path]:
    """Folders of the cells whose update logs replays read, method by method."""
    return [CellJob(config, out, method, seed).folder for method in config.methods for seed in config.replayed]


def load_whole_seeds(config: CompareConfig, out: Path) -> tuple[RunResult, list[RunResult], tuple[int, ...]]:
    """The base model's result, the cells of the seeds that every method has finished, and these seeds.

    UserError where the base model or all seeds are unfinished.
    """
    done = {seed: all(CellJob(config, out, method, seed).done() for method in config.methods) for seed in config.seeds}
    seeds = tuple(seed for seed, finished in done.items() if finished)
    if not seeds or not BaseJob(config, out).done():
        raise UserError(f"{out}: no seed is finished with every method; run fspo compare again")
    return *load_comparison(dataclasses.replace(config, seeds=seeds), out), seeds


def load_comparison(config: CompareConfig, out: Path) -> tuple[RunResult, list[RunResult]]:
    """The base model's result and every cell's, read from disk and checked; UserError while some are missing."""
    jobs = comparison_stages(config, out)
    waiting = [job.name for stage in jobs for job in stage if not job.done()]
    if waiting:
        raise UserError(f"{out}: not finished ({', '.join(waiting[:3])}, {len(waiting)} jobs); run fspo compare again")
    base, runs = read_result(out / BASE), [read_result(job.folder) for job in jobs[1]]
    for job, run in zip(jobs[1], runs, strict=True):
        _check_cell(config, job, run, base)
    order = {method: i for i, method in enumerate(config.methods)}
    return base, sorted(runs, key=lambda run: (order[run.method], run.seed))


def _check_cell(config: CompareConfig, job: CellJob, run: RunResult, base: RunResult) -> None:
    """UserError where a result is not the one that this comparison would have put there, and names the field."""
    wanted: dict[str, Any] = {"method": job.method, "seed": job.seed}
    found: dict[str, Any] = {"method": run.method, "seed": run.seed}
    settings = json.loads(json.dumps({**plain_data(config.train), "evaluation": plain_data(config.evaluation)}))
    for name in settings.keys() & run.config.keys() - PLACES:
        wanted[name], found[name] = settings[name], run.config[name]
    for name in ("model", "tokenizer"):
        wanted[f"digest of the start {name}"] = base.digests.get(name)
        found[f"digest of the start {name}"] = run.digests.get(name)
    rollouts = FirstRolloutsJob(config, job.out, job.seed)
    if rollouts.done():
        wanted["first rollouts"], found["first rollouts"] = rollouts.first_digest(), run.digests.get("first_rollouts")
    wanted, found = flat(wanted), flat(found)
    for name, value in wanted.items():
        if name in found and found[name] != value:  # a setting that is younger than the result is not in it
            raise UserError(
                f"{job.folder}: not a result of this comparison: {name} is {found[name]!r} in it and {value!r} here; "
                "move it away and run fspo compare again"
            )


def stored_cells(config: CompareConfig, out: Path) -> list[RunResult]:
    """The results of a comparison's cells that are there and can be read."""
    found = []
    for job in comparison_stages(config, out)[1]:
        with suppress(UserError):
            found.append(read_result(job.folder))
    return found


def pack_comparison(folder: Path) -> list[Path]:
    """Pack a finished comparison and those of its sweep; the files that were written. What is packed already stays so.

    What an older version left without a digest gets one: from now on a change of it is noticed.

    UserError where one is unfinished or altered.
    """
    written = []
    for path in sorted(folder.rglob(CONFIG_FILE)):
        load_comparison(stored_config(path.parent), path.parent)
        written += pack_results(path.parent) if unpacked_results(path.parent) else []
        if not is_listed(path.parent):
            list_updates(path.parent)
        config = stored_config(path.parent)
        noise = FirstRolloutsJob(config, path.parent, config.seeds[0]).noise
        if noise.exists() and not is_sealed(noise):
            UpdateLog.load(noise, checked=True).save(noise)
    return written
