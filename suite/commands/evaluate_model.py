"""`fspo evaluate`: one model on some sets, a table, and every sample in a folder to go on from and to go back to."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from suite.config import MEAN, PROTOCOL, EvalConfig, plain_data
from suite.evaluation.evaluate import by_kind, evaluate, evaluation_problems, manifest_of
from suite.evaluation.sample_store import FOLDER, MANIFEST, SampleStore
from suite.experiments.contexts import evaluation_sets, require_room
from suite.experiments.local_jobs import progress_bar
from suite.experiments.names import require_sets, tasks_named
from suite.experiments.start import model_for_evaluation
from suite.policy.engines import require_engine, sampler_for
from suite.policy.halving_sampler import FrugalSampler
from suite.policy.loading import context_of
from suite.policy.sampling import Sampler
from suite.records.files import digest_of, locked, write_atomically
from suite.records.provenance import machine, versions
from suite.records.result import FILE, read_file, write_result
from suite.report import tables
from suite.report.markdown import markdown, write_csv
from suite.report.terminal import show
from suite.statistics.compare import compare
from suite.types import EvalResult, RunResult, Task, UserError

RUNS = Path("results/runs")


def run_evaluation(
    model: str,
    config: EvalConfig,
    precision: str,
    engine: str,
    data_dir: Path | None,
    out: Path | None,
    console: Console,
) -> None:
    """Sample, grade, print the table; keep samples, result.json, table.md and accuracy.csv in the folder.

    Without `out` the folder is named by the model and by all that is asked of it, so that the same command finds what
    it left. What is there already is neither drawn nor graded again.
    """
    require_engine(engine, precision)
    chosen = tasks_named(config.tasks)
    require_sets({"eval": config.tasks}, data_dir)
    loaded = model_for_evaluation(model, precision)
    asked = replace(evaluation_sets(config, data_dir), setting="--max-new-tokens ", plain="--style plain")
    require_room(loaded.tokenizer, context_of(loaded.model.config), [asked])
    sampler = FrugalSampler(
        sampler_for(engine, loaded.model, loaded.tokenizer, precision, config.batch_size),
        lambda line: console.print(line, highlight=False, markup=False),
    )
    manifest = manifest_of(loaded, sampler.engine, chosen, config, data_dir, {**versions(), **machine()})
    out = out or RUNS / f"evaluate-{_slug(model)}-{digest_of(manifest['asked'])[:8]}"
    if (out / FILE).exists() and not (out / FOLDER / MANIFEST).exists():
        raise UserError(f"{out}: holds a result already, but not its samples; choose another --out")
    with locked(out):
        store = SampleStore(out / FOLDER)
        store.claim(manifest)
        evals = _with_bars(sampler, loaded.tokenizer, chosen, config, data_dir, store, console)
        accuracies = compare(evals, [], seed=config.seed).accuracies
        table = tables.evaluation_table(accuracies, evals)
        heading = f"{model}: avg@{config.samples} in per cent, 95 % intervals over problems"
        show(table, heading, console)
        kinds = _by_kind(evals, chosen, config, data_dir)
        if len(kinds):
            show(kinds, f"{heading}, by kind of problem", console)
        if (out / FILE).exists():
            _check_same(read_file(out / FILE), evals, out)
        else:
            digests = {"model": loaded.digest, "tokenizer": loaded.tokenizer_digest}
            settings = {"model": model, "precision": precision, "engine": engine, **plain_data(config)}
            environment = {**versions(), **machine(), "sampler": sampler.engine}
            write_csv(out / "accuracy.csv", accuracies)
            parts = [markdown(table), *([markdown(kinds)] if len(kinds) else [])]
            write_atomically(out / "table.md", "\n".join(parts))
            result = RunResult(PROTOCOL, "evaluation", config.seed, settings, evals, {}, digests, {}, environment)
            write_result(result, out)
    say = functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)
    say(f"result, table and samples: {out}")
    say(f"to read them: fspo samples {out} --wrong")


def _check_same(stored: RunResult, evals: Sequence[EvalResult], out: Path) -> None:
    """UserError where a result that is there already says something else than the samples beside it."""
    if tuple(stored.evals) != tuple(evals):
        raise UserError(f"{out / FILE}: not the result of the samples beside it; move it away to make it again")


def _with_bars(
    sampler: Sampler,
    tokenizer: Any,
    chosen: Sequence[Task],
    config: EvalConfig,
    data_dir: Path | None,
    store: SampleStore,
    console: Console,
) -> tuple[EvalResult, ...]:
    """The evaluation with a bar a task."""
    with progress_bar(console, "samples") as bar:
        rows = {}

        def on_progress(task: str, new: int, total: int) -> None:
            if task not in rows:  # what was there before is no speed
                rows[task] = bar.add_task(task, total=total, completed=new, kept=new)
                if new:
                    console.print(f"{task}: {new} of {total} samples are there already", highlight=False)
            else:
                bar.advance(rows[task], new)

        return tuple(evaluate(sampler, tokenizer, chosen, config, data_dir, on_progress, store))


def _by_kind(
    evals: Sequence[EvalResult], chosen: Sequence[Task], config: EvalConfig, data_dir: Path | None
) -> pd.DataFrame:
    """The table of the sets that have kinds of problems, a row a kind; empty where none has."""
    parts = [
        part
        for result, task in zip(evals, chosen, strict=True)
        if task.kind is not None
        for part in by_kind(result, task, evaluation_problems(task, data_dir, config))
    ]
    if not parts:
        return pd.DataFrame()
    accuracies = compare(parts, [], seed=config.seed).accuracies
    single = accuracies.take(np.flatnonzero(accuracies["task"] != MEAN))
    return tables.evaluation_table(single, parts).drop(columns=["truncated"])


def _slug(model: str) -> str:
    """A model reference as part of a folder's name."""
    return re.sub(r"[^a-z0-9.]+", "-", Path(model).name.lower()).strip("-.") or "model"
