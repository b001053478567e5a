"""FSPO's open questions on one bank, answered by replay: tables, figures, and the sentence that each supports."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console

from fspo.fairness import fairness_summary
from fspo.growth import growth_sentence, quantiles_by_sign
from fspo.resampling import quantile_edges
from suite import figures, length_figures, tables
from suite.arena import SEED, Arena
from suite.bank import Bank
from suite.cards import card_digest, hyper_line
from suite.directions import OWN, cosine_summary, log_prob_bounds, log_prob_cosines
from suite.figure_style import select
from suite.printing import show
from suite.recipes import METHODS, known_methods, method_with
from suite.replay import replay
from suite.types import Method, State
from suite.weights import overlap, response_gradients, weight_summary

DRAWN = ("rloo", "grpo", "gspo", "ctpo", "fspo")
"""Methods that figures show; the tables have all."""
RIVALS = ("rloo", "gspo")
QUESTIONS: Mapping[str, Mapping[str, dict[str, float | str | None]]] = {
    "the width c": {f"c = {c}": {"c_low": c, "c_high": c} for c in (0.01, 0.02, 0.03, 0.05, 0.1)},
    "the width by a target clip rate": {f"target {p}": {"target_clip_rate": p} for p in (0.05, 0.1, 0.2, 0.4)},
    "the centre mu": {f"mu {mu}": {"drift": mu} for mu in ("zero", "batch", "ema")},
    "two widths": {"both .03": {}, ".025 below, .05 above": {"c_low": 0.025, "c_high": 0.05}},
    "the dual clip": {"off": {}, "c_dual .06": {"c_dual": 0.06}, "c_dual .12": {"c_dual": 0.12}},
}
"""Settings of FSPO to compare, by question [ours: the paper's own values are not public]."""


def replayed(
    folder: Path, names: Sequence[str] | None, out: Path, options: Sequence[str], console: Console
) -> list[str]:
    """Replay methods on a bank and write clip_by_length.csv and fairness.csv; the sentences, one a method and range."""
    bank = Bank.open(folder)
    methods = {name: method_with(name, options) for name in (names or known_methods())}
    arena = Arena(methods, bank.updates())
    tables.write_csv(out / "clip_by_length.csv", arena.by_length)
    tables.write_csv(out / "fairness.csv", arena.fairness)
    show(tables.fairness_table(arena.fairness), "clipping by length, the same responses for every method", console)
    rows = arena.fairness.to_dict("records")
    return [f"{row['method']}, {row['range']} range: {row['sentence']}" for row in rows]


@dataclass(frozen=True)
class Lab:
    """All methods of the suite, and FSPO's variants, on one bank; computed on demand."""

    bank: Bank

    @cached_property
    def arena(self) -> Arena:
        """Every method at its own range and at the range where it clips as often as FSPO."""
        return Arena(METHODS, self.bank.updates())

    @cached_property
    def variants(self) -> pd.DataFrame:
        """FSPO's settings: clip rates, slopes and LRE, one row per question and setting."""
        rows = []
        for question, settings in QUESTIONS.items():
            frames = []
            for name, change in settings.items():
                method = self._fspo(change)
                frames.append(replay(method, self.arena.log, {}).assign(method=name, range=question))
            rows.append(fairness_summary(pd.concat(frames, ignore_index=True), rng=np.random.default_rng(SEED)))
        return pd.concat(rows, ignore_index=True)

    def _fspo(self, change: Mapping[str, float | str | None]) -> Method:
        return dataclasses.replace(METHODS["fspo"], hyper=dataclasses.replace(METHODS["fspo"].hyper, **change))

    @cached_property
    def weights(self) -> pd.DataFrame:
        """Importance weights, effective sample sizes and shares of the gradient, by method and length."""
        edges = quantile_edges(self.arena.log.lengths, 6)
        frames = {name: response_gradients(method, self.arena.log, {}) for name, method in METHODS.items()}
        found = {name: weight_summary(frame, edges) for name, frame in frames.items()}
        return pd.concat(found, names=["method"]).reset_index(level=0)

    @cached_property
    def overlaps(self) -> pd.DataFrame:
        """Jaccard index of the responses that two methods clip, at matched ranges."""
        return overlap({name: frame for (name, span), frame in self.arena.frames.items() if span == "matched"})

    @cached_property
    def turns(self) -> pd.DataFrame:
        """Cosine of every method's clipped update with its own unclipped one, in log-prob space, over the updates."""
        states: dict[str, State] = {name: {} for name in METHODS}
        found = cosine_summary(log_prob_cosines(METHODS, self.arena.log, states))
        return select(found, against=OWN).drop(columns="against")

    @cached_property
    def bounds(self) -> pd.DataFrame:
        """What LRE promises for that cosine and what it is, by method: means over the updates."""
        methods = {name: METHODS[name] for name in DRAWN}
        edges = quantile_edges(self.arena.log.lengths, 4)
        found = log_prob_bounds(methods, self.arena.log, {name: {} for name in methods}, edges)
        columns = ["lre", "concentration", "bound", "scaled", "cosine", "departure", "violated"]
        rows = [{"method": name, **select(found, method=name)[columns].mean().to_dict()} for name in DRAWN]
        return pd.DataFrame(rows)

    def verdict(self) -> str:
        """Whether FSPO's LRE is below half of RLOO's and GSPO's at the matched clip rate, with intervals apart.

        `lre_max` of every method beside `lre_noise`, what equal acceptance would show by chance.
        """
        rows = {row["method"]: row for row in self.arena.fairness.to_dict("records") if row["range"] == "matched"}
        mine = rows["fspo"]
        parts, holds = [], True
        for rival in RIVALS:
            its = rows[rival]
            half, apart = mine["lre_max"] < its["lre_max"] / 2, mine["lre_max_high"] < its["lre_max_low"]
            holds &= half and apart
            relation = "below half of" if half else "not below half of"
            parts.append(
                f"{relation} {rival}'s {its['lre_max']:.3f} [{its['lre_max_low']:.3f}, {its['lre_max_high']:.3f}], "
                f"intervals {'apart' if apart else 'overlap'}"
            )
        head = "holds" if holds else "does not hold on this bank"
        why = "" if holds else (
            f"; chance alone shows {mine['lre_noise']:.3f} with this many responses, and the spread of S per root "
            "token is not constant in length (see below)"
        )  # fmt: skip
        own = f"FSPO's LRE {mine['lre_max']:.3f} [{mine['lre_max_low']:.3f}, {mine['lre_max_high']:.3f}]"
        return f"The claim {head}: at {self.arena.target:.3f} clipped, {own} is {' and '.join(parts)}{why}."

    def figures(self) -> dict[str, Figure]:
        """What the page shows."""
        arena = self.arena
        wanted = (arena.by_length, arena.fairness)
        shown, summary = (frame.take(np.flatnonzero(frame["method"].isin(DRAWN))) for frame in wanted)
        colours = figures.method_colours(DRAWN)
        spans = ("default", "matched")
        return {
            "clip_by_length": length_figures.clip_figure(shown, summary, colours=colours, rows=spans),
            "acceptance": length_figures.acceptance_figure(shown, summary, colours=colours, rows=spans),
            "growth": length_figures.growth_figure(arena.growth_bins, quantiles_by_sign(arena.pooled)),
        }

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table as tidy numbers, by file name."""
        arena = self.arena
        return {
            "clip_by_length": arena.by_length, "fairness": arena.fairness, "growth": arena.growth,
            "growth_by_length": arena.growth_bins, "fspo_settings": self.variants, "weights": self.weights,
            "directions": self.turns, "directions_bound": self.bounds,
            "overlap": self.overlaps.reset_index(names="method"),
        }  # fmt: skip

    def text(self) -> str:
        """The page as Markdown."""
        arena, log = self.arena, self.arena.log
        by_range = {span: select(arena.fairness, range=span) for span in ("default", "matched")}
        sections = [
            "# What each clip does to the same responses",
            f"{len(self.bank.recordings)} recordings, {len(log)} judged responses of {log.lengths.min()} to "
            f"{log.lengths.max()} tokens ({100 * log.truncated.mean():.1f} % cut), no model run. The first update of a "
            "rollout has ratio 1 and is left out.",
            f"**{self.verdict()}**",
            "## Who is clipped, by length",
            "![clip by length](clip_by_length.png)\n\n![acceptance](acceptance.png)",
            f"Every method at the range where it clips {arena.target:.3f} of the responses with a gradient:",
            tables.markdown(tables.fairness_table(by_range["matched"]).drop(columns="range")),
            "Every method at its own range:",
            tables.markdown(tables.fairness_table(by_range["default"]).drop(columns="range")),
            "\n".join(f"- {name} has no matched range: {reason}" for name, reason in arena.matching[1].items()),
            "## Is S what the theory says?",
            "![growth](growth.png)",
            "\n".join(f"- {growth_sentence(row)}" for row in arena.growth.to_dict("records")),
            tables.markdown(arena.growth.round(5)),
            "## FSPO's settings",
            *self._questions(),
            "## Who carries the gradient",
            self._weights_text(),
            "## Which way the update turns",
            "Cosine of the clipped update with the method's own unclipped one, in log-prob space, over the updates:",
            tables.markdown(pd.DataFrame(self.turns).map(_short)),
            "The bound that LRE gives holds for an update that scales each length as a whole (`scaled`). A real clip "
            "picks responses within a length by their ratio and sign; `departure` is how far it is from such a "
            "scaling, and `violated` the share of updates whose cosine lies below the bound.",
            tables.markdown(self.bounds.map(_short)),
            "## Who clips the same responses",
            "Jaccard index of the clipped sets at matched ranges.",
            tables.markdown(_rounded(self.overlaps)),
            "## How this was made",
            *self._provenance(),
        ]
        return "\n\n".join(section for section in sections if section) + "\n"

    def _questions(self) -> list[str]:
        parts = []
        for question in QUESTIONS:
            part = select(self.variants, range=question)
            parts += [f"### {question}", tables.markdown(tables.fairness_table(part).drop(columns="range"))]
            flattest = part.loc[part["outside_slope"].abs().idxmin()]
            parts.append(f"- flattest: {flattest['method']}, {flattest['sentence']}")
        return parts

    def _weights_text(self) -> str:
        whole = select(self.weights, bin="all", sign="all")
        columns = ["method", "ess_weight", "ess_gradient", "mean_weight", "weight_q01", "weight_q99", "loss_scale"]
        return (
            "Effective sample size as a share of the responses, over importance weights and over gradient norms; "
            "`loss_scale` is what the clip leaves of the summed gradient norms.\n\n"
            + tables.markdown(pd.DataFrame(whole[columns]).map(_short))
        )

    def _provenance(self) -> list[str]:
        lines = [
            f"- {name}: `{' '.join(facts.get('command', []))}`, driven by {facts['driver']['method']} "
            f"(card {facts['driver']['card']}), start model {facts['digests']['model'][:12]}, "
            f"torch {facts['environment'].get('torch', '?')}"
            for name, facts in self.bank.recordings.items()
        ]
        cards = [f"- {name} ({card_digest(m)}): {hyper_line(m)}" for name, m in METHODS.items()]
        return ["\n".join(lines), "Methods (card digest) at their own range:", "\n".join(cards)]


def _rounded(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.map(_short).reset_index(names="")


def _short(value: object) -> object:
    if not isinstance(value, float):
        return value
    return tables.NOTHING if math.isnan(value) else f"{value:.3g}"
