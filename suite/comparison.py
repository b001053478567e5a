"""From finished cells to tables, figures and verdicts, by stored results alone. Part of the composition root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from fspo.growth import growth_sentence
from suite import figures, growth_figures, length_figures, tables
from suite.arena import Arena
from suite.canary import SAME
from suite.cards import card_digest, hyper_line
from suite.cells import CANARY, FirstRolloutsJob, load_comparison, replayed_cells
from suite.config import PROTOCOL, CompareConfig
from suite.figure_style import method_colours, save_figure
from suite.files import write_atomically
from suite.matching import recorded_updates
from suite.null_update import noise_clips, noise_table, null_outside
from suite.recipes import method_with
from suite.replay import UpdateLog
from suite.statistics import BASE, Comparison, compare
from suite.types import Method, RunResult

REPORT_SEED = 0


@dataclass(frozen=True)
class Report:
    """Everything that a comparison's folder says, computed on demand."""

    config: CompareConfig
    out: Path
    base: RunResult
    runs: Sequence[RunResult]

    @classmethod
    def of(cls, config: CompareConfig, out: Path) -> Report:
        base, runs = load_comparison(config, out)
        return cls(config, out, base, runs)

    @cached_property
    def statistics(self) -> Comparison:
        """Accuracies, differences and single seeds."""
        return compare(self.base.evals, self.runs, seed=REPORT_SEED, repetitions=self.config.bootstrap)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """Mean reward by method, seed and step."""
        rows = [
            {"method": run.method, "seed": run.seed, "step": step, "reward": reward}
            for run in self.runs
            for step, reward in enumerate(run.curves["reward/mean"])
        ]
        return pd.DataFrame(rows)

    @cached_property
    def updates(self) -> UpdateLog:
        """What every optimizer step of every cell saw: the responses on which all methods are replayed."""
        return recorded_updates(replayed_cells(self.config, self.out))

    @cached_property
    def methods(self) -> dict[str, Method]:
        """The methods as they were trained."""
        return {name: method_with(name, self.config.options) for name in self.config.methods}

    @cached_property
    def cards(self) -> dict[str, str]:
        """Digest of the card that each method was trained with, as its results say."""
        return {run.method: run.digests.get("card", "not recorded") for run in self.runs}

    @cached_property
    def null_log(self) -> UpdateLog | None:
        """The null update of the first seed; None in a folder from before it was recorded."""
        path = FirstRolloutsJob(self.config, self.out, self.config.seeds[0]).noise
        return UpdateLog.load(path) if path.exists() else None

    @cached_property
    def null_outside(self) -> dict[str, float]:
        """Share of responses that each method finds outside its band with unchanged weights; empty if not recorded."""
        return {} if self.null_log is None else null_outside(self.methods, self.null_log)

    @cached_property
    def canaries(self) -> dict[str, str]:
        """Methods with rows that are not comparable, and the seeds in whose runs the start model answered otherwise."""
        seeds: dict[str, list[int]] = {}
        for run in self.runs:
            if run.environment.get(CANARY, SAME) != SAME:
                seeds.setdefault(run.method, []).append(run.seed)
        found = {name: "seeds " + ", ".join(map(str, sorted(those))) for name, those in seeds.items()}
        return found | ({BASE: "resumed"} if self.base.environment.get(CANARY, SAME) != SAME else {})

    @property
    def canary_lines(self) -> list[str]:
        """One sentence for every run whose row is not comparable."""
        return [
            f"not comparable: {run.method} seed {run.seed}: {run.environment[CANARY]}"
            for run in (self.base, *self.runs)
            if run.environment.get(CANARY, SAME) != SAME
        ]

    @property
    def accuracy_table(self) -> pd.DataFrame:
        """Accuracies as people read them, with cards, the null update and, where it was not the same, the canary."""
        return tables.accuracy_table(
            self.statistics.accuracies, cards=self.cards, noise=self.null_outside, canaries=self.canaries
        )

    @cached_property
    def arena(self) -> Arena:
        """All methods on the updates of all cells."""
        return Arena(self.methods, self.updates)

    def write(self) -> Path:
        """Write tables, figures and the report; returns the report's path."""
        arena, stats = self.arena, self.statistics
        by_length, fairness = arena.by_length, arena.fairness
        noise = {} if self.null_log is None else {
            "null_update": noise_table(self.null_log), "null_update_clips": noise_clips(self.methods, self.null_log),
        }  # fmt: skip
        for name, frame in {
            "accuracy": stats.accuracies, "differences": stats.differences, "by_seed": stats.by_seed,
            "curves": self.curves, "clip_by_length": by_length, "clip_by_length_and_sign": arena.by_length_and_sign,
            "fairness": fairness, "growth": arena.growth, "growth_by_length": arena.growth_bins,
            "growth_quantiles": arena.quantiles, **noise,
        }.items():  # fmt: skip
            if "method" in frame:
                frame = frame.assign(card=[self.cards.get(name) for name in frame["method"]])
            tables.write_csv(self.out / f"{name}.csv", frame)
        colours = method_colours([*self.methods, BASE])
        shown = ("default", "matched") if arena.matched else ("default",)
        for name, figure in {
            "accuracy": figures.accuracy_figure(stats.accuracies, stats.by_seed, colours=colours),
            "reward": figures.reward_figure(self.curves, colours=colours, smooth=3),
            "clip_by_length": length_figures.clip_figure(by_length, fairness, colours=colours, rows=shown),
            "acceptance": length_figures.acceptance_figure(by_length, fairness, colours=colours, rows=shown),
            "growth": growth_figures.growth_figure(arena.growth_bins, arena.quantiles),
        }.items():
            save_figure(figure, self.out, name)
        path = self.out / "report.md"
        write_atomically(path, self.text())
        return path

    def text(self) -> str:
        """The report as Markdown."""
        stats, fairness, growth = self.statistics, self.arena.fairness, self.arena.growth
        return "\n".join(
            [
                f"# {self.config.name}: {len(self.methods)} methods x {len(self.config.seeds)} seeds",
                "",
                f"Accuracy in per cent, avg@{self.config.evaluation.samples}, 95 % intervals over seeds and problems.",
                "",
                tables.markdown(self.accuracy_table),
                *(f"- {line}" for line in self.canary_lines),
                *([""] if self.canary_lines else []),
                "## Difference to the base model, in points",
                "",
                tables.markdown(tables.difference_table(stats.differences)),
                "## Verdicts",
                "",
                *(f"- {line}" for line in tables.verdict_lines(stats.differences)),
                "",
                "![accuracy](accuracy.png)",
                "![reward](reward.png)",
                "",
                "## Who is clipped, by response length",
                "",
                tables.markdown(tables.fairness_table(fairness)),
                "![clip by length](clip_by_length.png)",
                "![acceptance](acceptance.png)",
                "",
                *(f"- {r['method']}, {r['range']} range: {r['sentence']}" for r in fairness.to_dict("records")),
                "",
                *self._null_update(),
                "## Is S what the theory says?",
                "",
                tables.markdown(growth.round(5)),
                "![growth](growth.png)",
                "",
                *(f"- {growth_sentence(row)}" for row in growth.to_dict("records")),
                "",
                *self._how_it_was_made(),
                "",
            ]
        )

    def _replayed(self) -> str:
        """Which seeds' cells replays read, where it is not all."""
        seeds = self.config.replayed
        return f" of seeds {', '.join(map(str, seeds))}" if len(seeds) < len(self.config.seeds) else ""

    def _null_update(self) -> list[str]:
        """What arithmetic alone does to ratios that must be 1, where it was recorded."""
        if self.null_log is None:
            return []
        return [
            "## The null update",
            "",
            "The start model scores the same responses twice, with other micro-batches and padding: every log ratio is "
            "noise, in nats. The column `null update` of the first table is the largest share of responses that this "
            "puts outside a method's band.",
            "",
            tables.markdown(tables.noise_table(noise_table(self.null_log))),
        ]

    def _how_it_was_made(self) -> list[str]:
        """The report's last section: protocol, rollouts, ranges, cards."""
        arena, train, (matched, reasons) = self.arena, self.config.train, self.arena.matching
        digests = {run.seed: run.digests["first_rollouts"][:12] for run in self.runs}
        seeds = ", ".join(f"seed {seed}: {digest}" for seed, digest in sorted(digests.items()))
        cards = [f"- {name} ({self.cards[name]}): {hyper_line(m)}" for name, m in self.methods.items()]
        cards += [
            f"- {name} has changed since it was trained (card {card_digest(m)} today): replays show today's method"
            for name, m in self.methods.items()
            if card_digest(m) != self.cards[name]
        ]
        return [
            "## How this was made",
            "",
            f"- protocol {PROTOCOL}; bootstrap repetitions {self.config.bootstrap}",
            f"- rollouts: shared first step ({seeds}), then common random numbers: same problems, same token noise",
            f"- updates per rollout: {train.updates_per_rollout}; the first has ratio 1 everywhere and is left out "
            "of every clip statistic",
            "- `default` ranges (each paper's where it is public) and `matched` ones are replayed on the responses "
            f"of all cells{self._replayed()}, the same bytes for every method; `own cells` are those that the method "
            "trained itself",
            f"- matched to a clipped share of {arena.target:.3f}",
            "- a sequence ratio clips a response or not; of a token ratio the share of the response's tokens "
            "counts; PPO is replayed with group-centred rewards in place of its critic's advantages",
            "",
            *(f"- {name} has no matched range: {reason}" for name, reason in reasons.items()),
            *(f"- matched {name}: {hyper_line(one.method)}" for name, one in matched.items()),
            "",
            "Methods (card digest):",
            "",
            *cards,
        ]
