"""A comparison in words: every section of its report with the tables and the sentences that the numbers support."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from suite.config import CHECKPOINT_RULE, MEAN, PROTOCOL
from suite.experiments.names import PAPER_BASELINES, REFERENCE
from suite.experiments.recipe_book import primary_sentence
from suite.findings import rules
from suite.findings.claims import claims_table
from suite.findings.comparison import Comparison
from suite.findings.costs import cut_sentence, gradient_table, ledger_table
from suite.findings.running_estimates import SENTENCE, estimates_table
from suite.findings.stability import rules_text, stability_summary
from suite.methods.cards import card_digest, hyper_line
from suite.records.comparison_folder import grown_by, recorded_code, recorded_growth
from suite.records.packed import result_file
from suite.records.result import BASE
from suite.replay.fairness import too_few_problems
from suite.replay.null_update import noise_by_change
from suite.replay.replays import NO_CLIP_ACTS
from suite.report import tables
from suite.report.html import slug
from suite.report.markdown import markdown
from suite.report.tables import accuracies_of
from suite.statistics.frames import ABSENT, Number, percent, records
from suite.statistics.intervals import MEASURED_FAMILY, few_seeds
from suite.types import RunResult, reward_of, task_name

NOBODY = (
    f"No response is clipped: every rollout got one update, and {NO_CLIP_ACTS}. Methods can differ in their advantages "
    "and sums alone."
)
"""Who is clipped where no rollout got a second update."""


def report_text(report: Comparison) -> str:
    """The report as Markdown, figures and single sets first; the same stored results give the same bytes."""
    config = report.config
    blocks = [
        f"# {config.name}: {len(report.methods)} methods x {len(config.seeds)} seeds",
        *_first_look(report),
        *_declared(report),
        *_claims(report),
        *_accuracies(report),
        *_exploratory(report),
        *_clipping(report),
        *_null_update(report),
        *_gradients(report),
        *_estimates(report),
        *_stability(report),
        *_growth(report),
        *_across_sets(report),
        "## What it cost",
        "Means over the runs of a method; peak memory of sampling / scoring / update / evaluation, the largest over "
        "its runs. Seconds are the wall clock's, with whatever else the machine did: compare tokens and memory. A "
        "point is one percentage point of accuracy gained on the base model; seconds a point stand where the gain's "
        "interval lies above 0.",
        markdown(ledger_table(report.costs)),
        *_how_it_was_made(report),
        *_runs(report),
    ]
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def settings_line(report: Comparison) -> str:
    """What was compared, in one line."""
    config = report.config
    train = config.train
    return (
        f"{config.name}: {len(report.methods)} methods x {len(config.seeds)} seeds on {train.model}, {train.steps} "
        f"steps of {train.problems_per_step} problems x {train.samples_per_problem} responses and "
        f"{train.updates_per_rollout} updates at a learning rate of {train.learning_rate:g}"
    )


def _first_look(report: Comparison) -> Iterator[str]:
    """What was compared, and its figures."""
    sets = ", ".join(f"{e.task} ({len(e.problem_ids)})" for e in report.base.evals)
    samples = report.config.evaluation.samples
    yield f"{settings_line(report)}; evaluated on {sets}: problems in brackets, {samples} responses to each."
    yield from _own_rewards(report)
    yield from _added(report)
    figures = ["accuracy", *(["clip_by_length"] if report.any_ended else []), "reward"]
    if len(tables.declared_rows(report.statistics.differences)):
        figures.insert(1, "differences")
    yield "\n".join(f"![{name.replace('_', ' ')}]({name}.png)" for name in figures)


def _added(report: Comparison) -> Iterator[str]:
    """What was added to the comparison after it was begun, and what that may do to its verdicts."""
    added = [
        f"{grown_by(facts)} (`{facts['command']}`, commit {facts['versions']['commit'][:12]})"
        for facts in recorded_growth(report.out)
    ]
    if added:
        yield (
            f"Added after the comparison was begun: {'; '.join(added)}. Where differences seen before decided that, "
            "p-values are too small."
        )


def _own_rewards(report: Comparison) -> Iterator[str]:
    """Which rewards are the user's own: the accuracies of their sets are not by a grader of the suite."""
    rewards = dict.fromkeys(reward for task in report.config.all_tasks if (reward := reward_of(task)))
    code = recorded_code(report.out) if rewards else {}
    for name in rewards:
        sets = [task_name(task) for task in report.config.all_tasks if reward_of(task) == name]
        yield (
            f"The reward of {', '.join(dict.fromkeys(sets))} is the user's own, `{name}` (source "
            f"{code.get(name, 'not recorded')}), and not a grader of the suite: a response counts as right from a "
            "reward of 1 on, and training also saw what it gave below 1."
        )


def _declared(report: Comparison) -> Iterator[str]:
    """The declared pairs, set by set before their mean, with the verdicts."""
    differences = report.statistics.differences
    if tables.declared_rows(differences).empty:
        return
    yield "## Differences of the declared pairs, in points, set by set"
    yield (
        f"{primary_sentence(report.config)} Single sets stand before their mean, because a mean of sets can hide "
        "opposite effects. Intervals are 95 % intervals of one difference each, paired by seed and problem, "
        "uncorrected; verdicts are corrected (Holm), those of single sets over pairs and sets. `p (Holm)` is that of "
        "no difference, `p equal (Holm)` that of a difference of one point or more; `detectable` is the true "
        "difference that this design finds with 80 % power after the correction. Of a pair the larger of its own "
        f"and the pooled seed variance counts; {MEASURED_FAMILY}. The rule, dated 2026-11-29, is in "
        "`suite/statistics/verdicts.py` [ours]."
    )
    if stand_ins(differences):
        yield "None of those pairs was run here: all pairs of methods stand in their place."
    yield markdown(linked(tables.declared_table(differences)))
    yield _bullets([line for line in tables.verdict_lines(differences) if line.startswith("single sets")])
    yield (
        "All methods had one learning rate and one limit on the norm of a gradient, which acts on some methods at "
        "nearly every update and on others rarely (see `Gradients that were cut`): differences are of whole recipes."
    )


def stand_ins(differences: pd.DataFrame) -> bool:
    """Whether all pairs of methods stand in the place of the declared ones, of which none was run."""
    rows = records(tables.declared_rows(differences))
    return any(row["method"] != REFERENCE or row["reference"] not in PAPER_BASELINES for row in rows)


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
        f"In per cent, avg@{config.evaluation.samples}, 95 % intervals over seeds and problems"
        f"{few_seeds(len(config.seeds))}. {CHECKPOINT_RULE} Beside the mean, over the sets: the mean length of a "
        "response in tokens, and the shares of responses cut at the token limit and without an answer, in per cent. "
        "A row's first number leads to the list of its runs."
    )
    yield markdown(linked(accuracies_of(report)))
    notes = [f"`published`: {source}" for source in report.published_sources] + report.canary_lines
    if notes:
        yield _bullets(notes)
    if len(report.base.evals) > 1:
        yield "## Accuracy, length and missing answers, set by set"
        yield markdown(tables.by_set_table(stats.accuracies))


def _exploratory(report: Comparison) -> Iterator[str]:
    """All other differences that are shown, without verdicts."""
    table = tables.exploratory_table(report.statistics.differences)
    if table.empty:
        return
    yield "## Other differences, in points: exploratory"
    yield (
        "Nothing was declared about these pairs: 95 % intervals of one difference each, not corrected for their number,"
        " and no verdicts. Pairs of two rivals are in `differences.csv`."
    )
    yield markdown(linked(table))


def _gradients(report: Comparison) -> Iterator[str]:
    """On which methods the cut of the gradient's norm acts."""
    yield "## Gradients that were cut"
    yield cut_sentence(report.gradient_cuts, report.config.train.max_grad_norm)
    yield markdown(gradient_table(report.gradient_cuts))


def _estimates(report: Comparison) -> Iterator[str]:
    """The drift and other running estimates that methods read while they trained, where any does."""
    if report.running_estimates.empty:
        return
    yield "## Running estimates that methods read"
    yield SENTENCE
    yield markdown(estimates_table(report.running_estimates))
    yield _bullets(
        [f"{name}: {report.methods[name].facts['band']}" for name in dict.fromkeys(report.running_estimates["method"])]
    )


def linked(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the first number of each row a link to the runs of its method, which its first word names."""
    rows = []
    for row in table.to_dict("records"):
        anchor = slug(f"Runs of {str(next(iter(row.values()))).split()[0]}")
        first = next((name for name, cell in row.items() if isinstance(cell, Number) and cell != ABSENT), None)
        rows.append({name: replace(cell, link=anchor) if name == first else cell for name, cell in row.items()})
    return pd.DataFrame(rows, columns=table.columns)


def _across_sets(report: Comparison) -> Iterator[str]:
    """Means that no single set or seed decides, and what common draws were worth."""
    if len(report.base.evals) > 1:
        yield "## Across sets"
        yield (
            "The interquartile mean is the mean of all (seed, set) accuracies without the lowest and the highest "
            "quarter (rounded down, as rliable does). The profile shows "
            "the share of them above every accuracy, with pointwise 95 % bands."
        )
        yield markdown(linked(tables.interquartile_table(report.profiles[0])))
        yield "![profiles](profiles.png)"
    pairing = tables.pairing_table(report.statistics.pairing, report.statistics.differences)
    if pairing.empty:
        return
    yield "## What common seeds, problems and token noise bought"
    yield (
        "Correlation of two models' accuracies over (seed, problem), and of single samples within one (the common "
        "random numbers). `variance of separate draws` compares the variance of the difference as it was measured with "
        "that of two models trained on different seeds and evaluated on different problems drawn from the same sets: "
        "how many times larger that one is. It is no gain on a study that evaluates both on the same problems."
    )
    yield markdown(pairing)


def _clipping(report: Comparison) -> Iterator[str]:
    yield "## Who is clipped, by response length"
    if not report.ratios_moved:
        yield NOBODY
        return
    yield (
        "All methods are replayed on the same recorded responses. `clipped` is the share of responses with a gradient "
        "whose gradient the clip cuts, in per cent (the side of the band that the min makes active); `slope` its "
        "change in points when the length doubles, over finished responses; `slope, all` takes truncated ones in, at "
        "the length at which they were cut. `evenness` is the word of the rules: `flat` is shown by an equivalence "
        "test, `uneven` by a test of slope and bend whose errors are the larger of two, over problems and over seeds; "
        "the intervals of the slopes here are over problems. LRE, length reweighting error, is the largest relative "
        "deviation of a length bin's acceptance from the mean one; beside it stands what chance alone would show. "
        "`outside band` counts both sides, "
        "and responses without a gradient. More in docs/reading-a-report.md."
    )
    if said := too_few_problems(report.arena.pooled):
        yield said
    yield markdown(tables.fairness_table(rules.equal_rows_joined(report.fairness)))
    if report.any_ended:
        yield "![clip by length](clip_by_length.png)\n![acceptance](acceptance.png)"


def _null_update(report: Comparison) -> Iterator[str]:
    """What arithmetic alone does to ratios that must be 1, where it was recorded."""
    if report.null_log is None:
        return
    yield "## The null update"
    yield (
        "The start model scores the same responses twice, in micro-batches of other sizes: every log ratio is "
        "noise, in nats. "
        + (
            "It puts no response outside the band of any method."
            if not any(report.null_outside.values())
            else "The largest share of responses that this puts outside a method's band is the column `null update` of "
            "the accuracy table."
        )
        + " `sigma` is what the noise adds to the spread of S, in nats per square root of a token."
    )
    yield markdown(tables.noise_cells(noise_by_change(report.null_log)))


def _stability(report: Comparison) -> Iterator[str]:
    rates = [f"{part.rate:g}" for part in report.sweep]
    yield "## How steadily each method trains"
    yield (
        f"Over {len(report.stability)} runs at learning rate{'s' if len(rates) > 1 else ''} {', '.join(rates)} [rules "
        f"ours]: {rules_text(report.config.train.steps)}."
    )
    yield markdown(tables.stability_table(stability_summary(report.stability, report.gains)))
    yield "![training](training.png)" + ("\n![learning rates](learning_rates.png)" if len(rates) > 1 else "")


def _growth(report: Comparison) -> Iterator[str]:
    if not report.ratios_moved:
        return
    yield "## Is S what the theory says?"
    if not report.any_ended:
        yield "Not to be seen here: no response of a second update ended before the token limit."
        return
    yield (
        "S is the sequence log ratio of a response, in nats. The theory behind a band that grows as sqrt(L): its mean "
        "is L times a drift, its variance L sigma^2, and it is Gaussian. `mean slope`, of S on L, is then the drift; "
        "`variance slope`, of (S - L drift)^2 on L, is sigma^2; skewness and excess kurtosis are 0. `all` has the "
        "responses without a gradient (A = 0), too."
    )
    yield markdown(tables.growth_table(report.arena.growth))
    yield "![growth](growth.png)"
    yield _bullets(report.growth_lines)


def _how_it_was_made(report: Comparison) -> Iterator[str]:
    """Protocol, rollouts, ranges, cards."""
    config = report.config
    digests = {run.seed: run.digests["first_rollouts"][:12] for run in report.runs}
    first = ", ".join(f"seed {seed}: {digest}" for seed, digest in sorted(digests.items()))
    yield "## How this was made"
    yield _bullets(
        [
            f"protocol {PROTOCOL}; bootstrap repetitions {config.bootstrap}",
            f"rollouts: shared first step ({first}), then common random numbers: same problems, same token noise",
            f"updates per rollout: {config.train.updates_per_rollout}; the first has ratio 1 everywhere and is left "
            "out of every clip statistic",
            *(_how_it_was_replayed(report) if report.ratios_moved else ()),
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


def _how_it_was_replayed(report: Comparison) -> Iterator[str]:
    """On which responses, at which ranges."""
    arena, config = report.arena, report.config
    matched, reasons = arena.matching
    replayed = f" of seeds {', '.join(map(str, config.replayed))}" if config.replayed != config.seeds else ""
    yield (
        "`default` ranges (each paper's where it is public) and `matched` ones are replayed on the responses of "
        f"all cells{replayed}, the same bytes for every method; `own cells` are those that the method trained itself"
    )
    yield f"matched to a clipped share of {arena.target:.3f}"
    yield (
        "a sequence ratio clips a response or not; of a token ratio the share of the response's tokens counts; PPO "
        "is replayed with group-centred rewards in place of its critic's advantages"
    )
    yield from (f"{name} has no matched range: {reason}" for name, reason in reasons.items())
    yield from (f"matched {name}: {hyper_line(one.method)}" for name, one in matched.items())


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
