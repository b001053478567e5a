"""What a finished comparison says, computed on demand from its stored results alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from suite.config import CompareConfig
from suite.evaluation.canary import SAME
from suite.experiments.cells import CANARY, FirstRolloutsJob
from suite.experiments.finished import load_comparison, replayed_cells
from suite.experiments.names import PAPER_BASELINES, REFERENCE
from suite.experiments.recipe_book import published
from suite.experiments.settings import method_in
from suite.findings import claims, rules, stability
from suite.findings.costs import gradient_cuts, ledger
from suite.findings.running_estimates import running_estimates
from suite.findings.stability import CURVES
from suite.methods.cards import code_digest
from suite.records.comparison_folder import recorded_code, stored_config
from suite.records.result import BASE
from suite.records.update_log import UpdateLog
from suite.replay.growth import growth_sentence
from suite.replay.matched_ranges import recorded_updates
from suite.replay.null_update import noise_by_change, noise_clips, null_outside
from suite.replay.replays import Arena
from suite.replay.resampling import quantile_edges
from suite.replay.update_directions import log_prob_bounds
from suite.statistics.compare import Estimates, compare, models_of
from suite.statistics.performance_profiles import profiles
from suite.types import Method, RunResult, UserError

REPORT_SEED = 0
LOGGED = ("reward/mean", *CURVES)
BOUND_BINS = 4
"""Length bins of the bound on cosines: with more of them K LRE soon reaches 1."""


@dataclass(frozen=True)
class Comparison:
    """Everything that a comparison's folder says, computed on demand."""

    config: CompareConfig
    out: Path
    base: RunResult
    runs: Sequence[RunResult]

    @classmethod
    def of(cls, config: CompareConfig, out: Path) -> Comparison:
        base, runs = load_comparison(config, out)
        return cls(config, out, base, runs)

    @classmethod
    def at(cls, out: Path) -> Comparison:
        """The report of the comparison in a folder; UserError where there is none, or it is unfinished or altered."""
        return cls.of(stored_config(out), out)

    @cached_property
    def statistics(self) -> Estimates:
        """Accuracies, differences and single seeds."""
        return compare(
            self.base.evals,
            self.runs,
            seed=REPORT_SEED,
            repetitions=self.config.bootstrap,
            primary=self.config.primary,
            focus=REFERENCE,
            rivals=PAPER_BASELINES,
        )

    @cached_property
    def profiles(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Interquartile means, and shares of (seed, set) scores above every accuracy."""
        models = models_of(self.base.evals, self.runs)
        return profiles(models, seed=REPORT_SEED, repetitions=self.config.bootstrap)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """What every run logged that figures show, by method, seed and step."""
        frames = []
        for run in self.runs:
            logged = {name: run.curves[name] for name in LOGGED if name in run.curves}
            frame = pd.DataFrame(logged).rename(columns={"reward/mean": "reward"})
            keys = pd.DataFrame({"method": run.method, "seed": run.seed, "step": frame.index})
            frames.append(keys.join(frame))
        return pd.concat(frames, ignore_index=True)

    @cached_property
    def updates(self) -> UpdateLog:
        """What every optimizer step of every cell saw: the responses on which all methods are replayed."""
        return recorded_updates(replayed_cells(self.config, self.out))

    @property
    def ratios_moved(self) -> bool:
        """Whether a rollout got a second update, without which no clip can act and nothing is replayed."""
        return self.updates.ratios_moved

    @property
    def any_ended(self) -> bool:
        """Whether a response of a second update ended before the token limit: else nothing is known by length."""
        return self.ratios_moved and not self.arena.growth_bins.empty

    @cached_property
    def methods(self) -> dict[str, Method]:
        """The methods as they were trained: with the hyper-parameters of their runs, whatever today's defaults are.

        UserError where a method of the user's own has other code today: its replays would be of another loss.
        """
        here, recorded = {name: method_in(self.config, name) for name in self.config.methods}, recorded_code(self.out)
        for name, method in here.items():
            if ":" in name and recorded.get(name) not in (None, code_digest(method)):
                raise UserError(
                    f"{self.out}: {name} has changed since it was trained, and a report replays it; bring its code "
                    "back, or compare it anew in another --out"
                )
        trained = {run.method: run.config.get("hyper", {}) for run in self.runs}
        return {name: as_trained(method, trained.get(name, {})) for name, method in here.items()}

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
    def published(self) -> dict[str, str]:
        """Public numbers of this recipe, by method: "math500 64.7, aime24 5.4" in per cent."""
        found: dict[str, list[str]] = {}
        for (method, task), (value, _) in published(self.config.name).items():
            found.setdefault(method, []).append(f"{task} {value:.1f}")
        return {method: ", ".join(numbers) for method, numbers in found.items()}

    @property
    def published_sources(self) -> list[str]:
        """Whose the public numbers are."""
        return list(dict.fromkeys(source for _, source in published(self.config.name).values()))

    @cached_property
    def arena(self) -> Arena:
        """All methods on the updates of all cells."""
        return Arena(self.methods, self.updates, reference=REFERENCE)

    @cached_property
    def fairness(self) -> pd.DataFrame:
        """Clip rates, slopes and LRE of the arena, with the word that the rules give every row."""
        return rules.with_words(self.arena.fairness)

    @property
    def growth_lines(self) -> list[str]:
        """One sentence a sign of the advantage: how mean and variance of S grow with length."""
        return [growth_sentence(row) for row in self.arena.growth.to_dict("records")]

    @cached_property
    def costs(self) -> pd.DataFrame:
        """Seconds, tokens and peak memory by method."""
        return ledger(self.runs, self.statistics.differences)

    @cached_property
    def gradient_cuts(self) -> pd.DataFrame:
        """Gradient norms by method, and the share of updates whose gradient was cut."""
        return gradient_cuts(self.runs)

    @cached_property
    def running_estimates(self) -> pd.DataFrame:
        """The drift and other running estimates that methods read while they trained."""
        return running_estimates(self.runs, self.methods)

    @cached_property
    def sweep(self) -> list[stability.RateRuns]:
        """This comparison and those of its learning-rate sweep."""
        return stability.sweep_of(self.out)

    @cached_property
    def stability(self) -> pd.DataFrame:
        """How steadily every run trained, those of the sweep included."""
        return stability.stability(self.sweep)

    @cached_property
    def gains(self) -> pd.DataFrame:
        """Points gained on the base model by learning rate and method."""
        return stability.gains(self.sweep, seed=REPORT_SEED, repetitions=self.config.bootstrap)

    @cached_property
    def bounds(self) -> pd.DataFrame:
        """What LRE promises for the cosine of clipped and true update, and what it is, at every replayed update."""
        edges = quantile_edges(self.updates.lengths, BOUND_BINS)
        return log_prob_bounds(self.methods, self.updates, {name: {} for name in self.methods}, edges)

    @cached_property
    def bound_summary(self) -> pd.DataFrame:
        """Real clips beside the bound of LRE, by method."""
        return claims.bound_summary(self.bounds, self.methods)

    @cached_property
    def claims(self) -> list[claims.Claim]:
        """The five claims of the paper's abstract, each with what these runs say of it."""
        replays = f"replays of {len(replayed_cells(self.config, self.out))} runs"
        judged = (REFERENCE, *PAPER_BASELINES)
        trained = f"{sum(run.method in judged for run in self.runs)} runs"
        at_all_rates = sum(name in judged for name in self.stability["method"])
        swept = trained if len(self.sweep) == 1 else f"{at_all_rates} runs at {len(self.sweep)} learning rates"
        clipping = (
            [
                claims.reweighting(self.fairness, self.methods, replays),
                claims.bounding(self.bound_summary, replays),
                claims.flattening(self.fairness, self.methods, replays),
            ]
            if self.ratios_moved
            else claims.without_clipping()
        )
        return [
            *clipping,
            claims.steadiness(self.stability, swept),
            claims.superiority(self.statistics.differences, trained),
        ]

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every tidy table, by file name; rows of methods carry the digest of the method's card."""
        return self.tables_of_results() | self.tables_of_replays()

    def tables_of_results(self) -> dict[str, pd.DataFrame]:
        """The tables that need the results of the runs alone, not what their updates saw."""
        stats = self.statistics
        frames = {
            "accuracy": stats.accuracies,
            "differences": stats.differences,
            "by_seed": stats.by_seed,
            "pairing": stats.pairing,
            "interquartile_means": self.profiles[0],
            "profiles": self.profiles[1],
            "curves": self.curves,
            "stability": self.stability,
            "learning_rates": self.gains,
            "gradient_cuts": self.gradient_cuts,
            "costs": self.costs,
        }
        if not self.running_estimates.empty:
            frames["running_estimates"] = self.running_estimates
        return self._with_cards(frames)

    def tables_of_replays(self) -> dict[str, pd.DataFrame]:
        """The tables that replay methods on the update logs. UserError where a cell keeps none."""
        frames = {"claims": claims.claims_table(self.claims)}
        if self.ratios_moved:
            arena = self.arena
            frames |= {
                "clip_by_length": arena.by_length,
                "clip_by_length_and_sign": arena.by_length_and_sign,
                "fairness": self.fairness,
                "bounds": self.bound_summary,
                "growth": arena.growth,
                "growth_by_length": arena.growth_bins,
                "growth_quantiles": arena.quantiles,
            }
        if self.null_log is not None:
            frames["null_update"] = noise_by_change(self.null_log)
            frames["null_update_clips"] = noise_clips(self.methods, self.null_log)
        return self._with_cards(frames)

    def _with_cards(self, frames: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
        """The tables, those with a method with the digest of its card."""
        return {
            name: frame.assign(card=[self.cards.get(method) for method in frame["method"]])
            if "method" in frame
            else frame
            for name, frame in frames.items()
        }


def as_trained(method: Method, stored: Mapping[str, Any]) -> Method:
    """The method with the hyper-parameters that a run stored; one that today's method no longer has is left out."""
    fields = [field.name for field in dataclasses.fields(method.hyper)]
    return dataclasses.replace(
        method, hyper=dataclasses.replace(method.hyper, **{name: stored[name] for name in fields if name in stored})
    )
