"""A comparison in words: every section of its report with the tables and the sentences that the numbers support."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from suite.config import CHECKPOINT_RULE, MEAN, PROTOCOL
from suite.experiments.recipe_book import primary_sentence
from suite.findings import rules
from suite.findings.claims import claims_table
from suite.findings.comparison import Comparison
from suite.findings.costs import ledger_table
from suite.findings.stability import RULES_TEXT, stability_summary
from suite.methods.cards import card_digest, hyper_line
from suite.records.packed import result_file
from suite.records.result import BASE
from suite.replay.null_update import noise_by_change
from suite.report import tables
from suite.report.html import slug
from suite.report.markdown import markdown
from suite.report.tables import accuracies_of
from suite.statistics.frames import ABSENT, Number, percent
from suite.types import RunResult


def report_text(report: Comparison) -> str:
    """The report as Markdown; the same stored results give the same bytes."""
    config = report.config
    blocks = [
        f"# {config.name}: {len(report.methods)} methods x {len(config.seeds)} seeds",
        *_claims(report),
        *_accuracies(report),
        *_across_sets(report),
        *_clipping(report),
        *_null_update(report),
        *_stability(report),
        *_growth(report),
        "## What it cost",
        "Means over the runs of a method; peak memory of sampling / scoring / update / evaluation, the largest over "
        "its runs. A point is one per cent of accuracy gained on the base model.",
        markdown(ledger_table(report.costs)),
        *_how_it_was_made(report),
        *_runs(report),
    ]
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def _claims(report: Comparison) -> Iterator[str]:
    yield "## What the paper claims, and what these runs say"
    yield (
        "The claims are those of the abstract of arXiv 2509.09177 in our words; the rules behind a verdict are ours, "
        f"dated {rules.DATED} (`suite/findings/rules.py`). A verdict is about these runs, this model and these sets."
    )
    found = claims_table(report.claims)
    yield markdown(found.drop(columns="measured"))
    yield _bullets([f"claim {row['']}, {row['verdict']}: {row['measured']}" for row in found.to_dict("records")])


def _accuracies(report: Comparison) -> Iterator[str]:
    stats, config = report.statistics, report.config
    yield "## Accuracy"
    yield (
        f"In per cent, avg@{config.evaluation.samples}, 95 % intervals over seeds and problems. {CHECKPOINT_RULE} "
        f"{primary_sentence(config)} Every cell leads to the runs behind it."
    )
    yield markdown(linked(accuracies_of(report)))
    notes = [f"`published`: {source}" for source in report.published_sources] + report.canary_lines
    if notes:
        yield _bullets(notes)
    yield "## Difference to the base model, in points"
    yield markdown(linked(tables.difference_table(stats.differences)))
    yield "## Verdicts"
    yield _bullets(tables.verdict_lines(stats.differences))
    yield "![accuracy](accuracy.png)\n![reward](reward.png)"


def linked(table: pd.DataFrame) -> pd.DataFrame:
    """The table with every number a link to the runs of its row's method, the first word of the first column."""

    def linked_cell(value: Any, anchor: str) -> Any:
        return replace(value, link=anchor) if isinstance(value, Number) and value != ABSENT else value

    rows = []
    for row in table.to_dict("records"):
        anchor = slug(f"Runs of {str(next(iter(row.values()))).split()[0]}")
        rows.append({name: linked_cell(value, anchor) for name, value in row.items()})
    return pd.DataFrame(rows, columns=table.columns)


def _across_sets(report: Comparison) -> Iterator[str]:
    """Means that no single set or seed decides, and what pairing was worth."""
    if len(report.base.evals) > 1:
        yield "## Across sets"
        yield (
            "The interquartile mean is the mean of the middle half of all (seed, set) accuracies. The profile shows "
            "the share of them above every accuracy, with pointwise 95 % bands."
        )
        yield markdown(linked(tables.interquartile_table(report.profiles[0])))
        yield "![profiles](profiles.png)"
    yield "## What pairing bought"
    yield (
        "Correlation of two models' accuracies over (seed, problem), of single samples within one (the common random "
        "numbers), and how many times larger the variance of the difference would be without pairing."
    )
    yield markdown(tables.pairing_table(report.statistics.pairing))


def _clipping(report: Comparison) -> Iterator[str]:
    fairness = report.fairness
    yield "## Who is clipped, by response length"
    yield markdown(tables.fairness_table(fairness))
    yield "![clip by length](clip_by_length.png)\n![acceptance](acceptance.png)"
    yield _bullets([f"{r['method']}, {r['range']} range: {r['sentence']}" for r in fairness.to_dict("records")])


def _null_update(report: Comparison) -> Iterator[str]:
    """What arithmetic alone does to ratios that must be 1, where it was recorded."""
    if report.null_log is None:
        return
    yield "## The null update"
    yield (
        "The start model scores the same responses twice, in micro-batches of other sizes: every log ratio is "
        "noise, in nats. The column `null update` of the accuracy table is the largest share of responses that this "
        "puts outside a method's band."
    )
    yield markdown(tables.noise_cells(noise_by_change(report.null_log)))


def _stability(report: Comparison) -> Iterator[str]:
    rates = [f"{part.rate:g}" for part in report.sweep]
    yield "## How steadily each method trains"
    yield (
        f"Over {len(report.stability)} runs at learning rate{'s' if len(rates) > 1 else ''} {', '.join(rates)} [rules "
        f"ours]: {RULES_TEXT}."
    )
    yield markdown(tables.stability_table(stability_summary(report.stability, report.gains)))
    yield "![training](training.png)" + ("\n![learning rates](learning_rates.png)" if len(rates) > 1 else "")


def _growth(report: Comparison) -> Iterator[str]:
    yield "## Is S what the theory says?"
    yield markdown(report.arena.growth.round(5))
    yield "![growth](growth.png)"
    yield _bullets(report.growth_lines)


def _how_it_was_made(report: Comparison) -> Iterator[str]:
    """Protocol, rollouts, ranges, cards."""
    arena, config = report.arena, report.config
    matched, reasons = arena.matching
    digests = {run.seed: run.digests["first_rollouts"][:12] for run in report.runs}
    first = ", ".join(f"seed {seed}: {digest}" for seed, digest in sorted(digests.items()))
    replayed = f" of seeds {', '.join(map(str, config.replayed))}" if config.replayed != config.seeds else ""
    yield "## How this was made"
    yield _bullets(
        [
            f"protocol {PROTOCOL}; bootstrap repetitions {config.bootstrap}",
            f"rollouts: shared first step ({first}), then common random numbers: same problems, same token noise",
            f"updates per rollout: {config.train.updates_per_rollout}; the first has ratio 1 everywhere and is left "
            "out of every clip statistic",
            "`default` ranges (each paper's where it is public) and `matched` ones are replayed on the responses of "
            f"all cells{replayed}, the same bytes for every method; `own cells` are those that the method trained "
            "itself",
            f"matched to a clipped share of {arena.target:.3f}",
            "a sequence ratio clips a response or not; of a token ratio the share of the response's tokens counts; PPO "
            "is replayed with group-centred rewards in place of its critic's advantages",
            *(f"{name} has no matched range: {reason}" for name, reason in reasons.items()),
            *(f"matched {name}: {hyper_line(one.method)}" for name, one in matched.items()),
        ]
    )
    yield "Methods (card digest):"
    yield _bullets(
        [f"{name} ({report.cards[name]}): {hyper_line(m)}" for name, m in report.methods.items()]
        + [
            f"{name} has changed since it was trained (card {card_digest(m)} today): replays show today's method"
            for name, m in report.methods.items()
            if card_digest(m) != report.cards[name]
        ]
    )


def _runs(report: Comparison) -> Iterator[str]:
    """Every run behind the tables, under a heading of its own method."""
    yield "## The runs"
    yield f"### Runs of {BASE}"
    yield _bullets([f"{_linked(report.out, BASE)}, model {report.base.digests['model'][:12]}"])
    means = report.statistics.by_seed
    last = MEAN if MEAN in set(means["task"]) else report.base.evals[0].task
    rows = [row for row in means.to_dict("records") if row["task"] == last]
    accuracy = {(row["method"], row["seed"]): float(row["accuracy"]) for row in rows}
    for method in report.methods:
        yield f"### Runs of {method}"
        runs = [run for run in report.runs if run.method == method]
        yield _bullets([_run_line(report.out, run, accuracy[method, run.seed]) for run in runs])


def _linked(folder: Path, run: str) -> str:
    """A link to the file that holds a run's result."""
    path = result_file(folder / run).relative_to(folder).as_posix()
    return f"[{path}]({path})"


def _run_line(folder: Path, run: RunResult, accuracy: float) -> str:
    made, model = run.environment.get("commit", "not recorded")[:12], run.digests["final_model"][:12]
    file = _linked(folder, f"cells/{run.method}-seed{run.seed}")
    return f"seed {run.seed}: {percent(accuracy)} %, {file}, final model {model}, commit {made}"


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
