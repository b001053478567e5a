"""`fspo evaluate`: one model on some sets, a table, and on request every response."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from rich.console import Console

from suite import tables
from suite.config import PROTOCOL, EvalConfig, plain
from suite.engines import require_engine, sampler_for
from suite.environment import machine, versions
from suite.evaluate import evaluate
from suite.fetch import located
from suite.files import write_atomically
from suite.grid import progress_bar
from suite.models import load_model
from suite.printing import show
from suite.recipes import EMBEDDED_MODEL, tasks_named
from suite.results import write_result
from suite.statistics import compare
from suite.types import RunResult, UserError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def run_evaluation(
    model: str,
    config: EvalConfig,
    precision: str,
    engine: str,
    data_dir: Path | None,
    out: Path | None,
    console: Console,
) -> None:
    """Sample, grade, print the table; with `out`, write result.json and responses.jsonl there."""
    if precision not in PRECISIONS:
        raise UserError(f"--precision {precision!r}: float32 or bfloat16")
    require_engine(engine)
    if out is not None and (out / "result.json").exists():
        raise UserError(f"{out}: holds a result already; choose another --out")
    chosen = tasks_named(config.tasks)
    for task in chosen:
        task.load("eval", data_dir)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loaded = load_model(located(model), dtype=PRECISIONS[precision], device=device, embedded_folder=EMBEDDED_MODEL)
    sampler = sampler_for(engine, loaded.model, loaded.tokenizer, precision, config.batch_size)
    with progress_bar(console) as bar:
        rows = {}

        def on_progress(task: str, new: int, total: int) -> None:
            if task not in rows:
                rows[task] = bar.add_task(task, total=total)
            bar.advance(rows[task], new)

        found = evaluate(sampler, loaded.tokenizer, chosen, config, data_dir, on_progress)
    evals = tuple(result for result, _ in found)
    accuracies = compare(evals, [], seed=config.seed).accuracies
    table = tables.accuracy_table(accuracies, {"base": model}).drop(columns="seeds")
    show(table, f"avg@{config.samples} in per cent, 95 % intervals over problems", console)
    for result, rollouts in found:
        tokens = sum(len(r.response_ids) for r in rollouts)
        console.print(
            f"{result.task}: {len(result.problem_ids)} problems x {config.samples} samples, {tokens} tokens, "
            f"{100 * result.truncated_share:.1f} % cut at the limit",
            highlight=False,
        )
    if out is not None:
        digests = {"model": loaded.digest, "tokenizer": loaded.tokenizer_digest}
        settings = {"model": model, "precision": precision, "engine": engine, **plain(config)}
        environment = {**versions(), **machine(), "sampler": sampler.engine}
        lines = [
            {"task": result.task, "problem": r.problem_id, "sample": r.sample_index, "verdict": r.verdict,
             "finish": r.finish_reason, "response": loaded.tokenizer.decode(list(r.response_ids))}
            for result, rollouts in found
            for r in rollouts
        ]  # fmt: skip
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_atomically(out / "responses.jsonl", text)
        write_result(RunResult(PROTOCOL, "evaluation", config.seed, settings, evals, {}, digests, {}, environment), out)
        console.print(f"result and responses: {out}", highlight=False)
