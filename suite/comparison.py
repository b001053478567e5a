"""From finished cells to tables, figures and verdicts, by stored results alone. Part of the composition root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from fspo.fairness import clip_by_length, fairness_summary
from fspo.growth import growth_by_length, growth_sentence, growth_summary, quantiles_by_sign
from suite import figures, length_figures, tables
from suite.cards import card_digest, hyper_line
from suite.cells import load_comparison
from suite.config import PROTOCOL, CompareConfig
from suite.files import write_atomically
from suite.matching import common_rate, matched_ranges, recorded_updates
from suite.recipes import method_with
from suite.replay import UpdateLog, replay
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
        return recorded_updates([self.out / "cells" / f"{run.method}-seed{run.seed}" for run in self.runs])

    @cached_property
    def methods(self) -> dict[str, Method]:
        """The methods as they were trained."""
        return {name: method_with(name, self.config.options) for name in self.config.methods}

    @cached_property
    def cards(self) -> dict[str, str]:
        """Digest of the card that each method was trained with, as its results say."""
        return {run.method: run.digests["card"] for run in self.runs}

    @cached_property
    def target(self) -> float:
        """Mean clipped share that ranges are matched to: FSPO's own where it takes part, else the methods' median."""
        return common_rate(self.methods, self.updates)

    @cached_property
    def matched(self) -> tuple[dict[str, Method], list[str]]:
        """The methods with ranges scaled so that all clip the same mean share of the same responses, and for every
        method that cannot, why not."""
        found, reasons = matched_ranges(self.methods, self.updates, self.target)
        lines = [f"{name} has no matched range: {reason}" for name, reason in reasons.items()]
        return {name: one.method for name, one in found.items()}, lines

    @cached_property
    def responses(self) -> pd.DataFrame:
        """One row per method, range and response: `default` and `matched` on the responses of all cells."""
        frames = []
        for span, methods in (("default", self.methods), ("matched", self.matched[0])):
            for name, method in methods.items():
                frames.append(replay(method, self.updates, {}).assign(method=name, range=span))
        paper = pd.concat(frames[: len(self.methods)], ignore_index=True)
        own = paper[
            [cell.startswith(f"{name}-seed") for cell, name in zip(paper["cell"], paper["method"], strict=True)]
        ]
        return pd.concat([*frames, own.assign(range="default, own cells")], ignore_index=True)

    @cached_property
    def fairness(self) -> pd.DataFrame:
        """Clip rates, their slopes in length and LRE, one row per method and range."""
        return fairness_summary(self.responses, rng=np.random.default_rng(REPORT_SEED))

    def write(self) -> Path:
        """Write tables, figures and the report; returns the report's path."""
        by_length = clip_by_length(self.responses, rng=np.random.default_rng(REPORT_SEED))
        fairness = self.fairness
        pooled = replay(next(iter(self.methods.values())), self.updates, {})
        growth = growth_summary(pooled, rng=np.random.default_rng(REPORT_SEED))
        growth_bins = growth_by_length(pooled)
        stats = self.statistics
        for name, frame in {
            "accuracy": stats.accuracies, "differences": stats.differences, "by_seed": stats.by_seed,
            "curves": self.curves, "clip_by_length": by_length, "fairness": fairness,
            "growth": growth, "growth_by_length": growth_bins,
        }.items():  # fmt: skip
            if "method" in frame:
                frame = frame.assign(card=[self.cards.get(name) for name in frame["method"]])
            tables.write_csv(self.out / f"{name}.csv", frame)
        colours = figures.method_colours([*self.methods, BASE])
        shown = ("default", "matched") if self.matched[0] else ("default",)
        for name, figure in {
            "accuracy": figures.accuracy_figure(stats.accuracies, stats.by_seed, colours=colours),
            "reward": figures.reward_figure(self.curves, colours=colours, smooth=3),
            "clip_by_length": length_figures.clip_figure(by_length, fairness, colours=colours, rows=shown),
            "acceptance": length_figures.acceptance_figure(by_length, fairness, colours=colours, rows=shown),
            "growth": length_figures.growth_figure(growth_bins, quantiles_by_sign(pooled)),
        }.items():
            figures.save_png(figure, self.out / f"{name}.png")
        path = self.out / "report.md"
        write_atomically(path, self.text(fairness, growth))
        return path

    def text(self, fairness: pd.DataFrame, growth: pd.DataFrame) -> str:
        """The report as Markdown."""
        stats, train = self.statistics, self.config.train
        digests = {run.seed: run.digests["first_rollouts"][:12] for run in self.runs}
        cards = [f"- {name} ({self.cards[name]}): {hyper_line(m)}" for name, m in self.methods.items()]
        cards += [
            f"- {name} has changed since it was trained (card {card_digest(m)} today): replays show today's method"
            for name, m in self.methods.items()
            if card_digest(m) != self.cards[name]
        ]
        seeds = ", ".join(f"seed {seed}: {digest}" for seed, digest in sorted(digests.items()))
        return "\n".join(
            [
                f"# {self.config.name}: {len(self.methods)} methods x {len(self.config.seeds)} seeds",
                "",
                f"Accuracy in per cent, avg@{self.config.evaluation.samples}, 95 % intervals over seeds and problems.",
                "",
                tables.markdown(tables.accuracy_table(stats.accuracies, cards=self.cards)),
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
                "## Is S what the theory says?",
                "",
                tables.markdown(growth.round(5)),
                "![growth](growth.png)",
                "",
                *(f"- {growth_sentence(row)}" for row in growth.to_dict("records")),
                "",
                "## How this was made",
                "",
                f"- protocol {PROTOCOL}; bootstrap repetitions {self.config.bootstrap}",
                f"- rollouts: shared first step ({seeds}), then common random numbers: same problems, same token noise",
                f"- updates per rollout: {train.updates_per_rollout}; the first has ratio 1 everywhere and is left out "
                "of every clip statistic",
                "- `default` ranges (each paper's where it is public) and `matched` ones are replayed on the responses "
                "of all cells, the same bytes for every method; `own cells` are those that the method trained itself",
                f"- matched to a clipped share of {self.target:.3f}",
                "- a sequence ratio clips a response or not; of a token ratio the share of the response's tokens "
                "counts; PPO is replayed with group-centred rewards in place of its critic's advantages",
                "",
                *(f"- {reason}" for reason in self.matched[1]),
                *(f"- matched {name}: {hyper_line(m)}" for name, m in self.matched[0].items()),
                "",
                "Methods (card digest):",
                "",
                *cards,
                "",
            ]
        )
