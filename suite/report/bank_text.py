"""A lab in words: every section with its table, its figure and the sentence that the numbers support."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from suite.experiments.names import METHODS
from suite.findings import rules
from suite.findings.bank_model import bound_sentence, turn_table
from suite.findings.bank_questions import DRAWN, QUESTIONS, Lab
from suite.findings.claims import flattening
from suite.methods.cards import card_digest, hyper_line
from suite.records.other_runs import trainer_of
from suite.replay.fairness import too_few_problems
from suite.replay.growth import growth_sentence
from suite.replay.null_update import LAYOUTS
from suite.replay.update_directions import OWN
from suite.report import tables
from suite.report.markdown import markdown
from suite.statistics.frames import ABSENT, Number, names_of, numbers_of, percent, records, select

FEWEST = 0.01
"""Clip rate below which a setting is not called even: nothing can be uneven where nothing is clipped."""

ALIKE = 0.05
"""Relative slopes that differ by less than this per doubling are not told apart."""


def claim_sentence(lab: Lab) -> str:
    """The third claim on this bank, by the rules of `suite.findings.rules`: are clip rates flat under FSPO alone?"""
    arena = lab.arena
    found = flattening(arena.fairness, METHODS, "this bank")
    spread = numbers_of(select(arena.growth_bins, sign="all"), "spread")
    spread = spread[~np.isnan(spread)]
    theory = (
        f"; std(S) / sqrt(L) goes from {spread.min():.3g} to {spread.max():.3g} over the length bins, where "
        "the theory has one number"
        if len(spread)
        else ""
    )
    at = f"At {arena.target:.3f} clipped: {found.measured}" if arena.matched else "No method has a matched range"
    return f"{found.claim}: {found.verdict} on this bank, by the rule of {rules.DATED}. {at}{theory}."


def warnings_of(lab: Lab) -> list[str]:
    """Why a page can say little: too few problems, a clip rate that leaves nothing to compare; each a sentence."""
    rate, said = lab.arena.target, [too_few_problems(lab.arena.pooled)]
    if lab.target is None and not math.isnan(rate) and not FEWEST <= rate <= 1 - FEWEST:
        said.append(
            f"FSPO clips {percent(rate)} % of the responses with a gradient here, so that lengths can hardly differ: "
            "choose another target with --target, for instance --target 0.2."
        )
    return [sentence for sentence in said if sentence]


def page_text(lab: Lab) -> str:
    """The page as Markdown."""
    sections = [
        "# What each clip does to the same responses",
        _rows(lab),
        *_other_trainers(lab),
        *(f"**{sentence}**" for sentence in warnings_of(lab)),
        f"**{claim_sentence(lab)}**",
        *_clipping(lab),
        *_growth(lab),
        "## FSPO's settings",
        *_questions(lab),
        "## Who carries the gradient",
        _weights(lab),
        *_directions(lab),
        *_overlaps(lab),
        *_noise(lab),
        "## How this was made",
        *_provenance(lab),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _rows(lab: Lab) -> str:
    """How many rows the bank has, and which of them are judged."""
    log, count = lab.arena.log, len(lab.bank.recordings)
    return (
        f"{count} recording{'s' * (count != 1)}, {len(log)} rows, one for each response at each of its updates, of "
        f"{log.lengths.min()} to {log.lengths.max()} tokens ({100 * log.truncated.mean():.1f} % cut). At the first "
        f"update of a rollout every ratio is 1, so {int((log.update > 0).sum())} rows are judged; the tables count "
        "such rows as responses."
    )


def _other_trainers(lab: Lab) -> Iterator[str]:
    """What runs of other trainers are, and what their records cannot tell: a line for all that say the same."""
    said: dict[str, list[str]] = {}
    for name, facts in lab.bank.recordings.items():
        if (trainer := trainer_of(facts)) is not None:
            kept = "every rollout" if facts["every"] == 1 else f"one rollout in {facts['every']}"
            line = (
                f"run of {trainer} with the loss {facts['loss']}, {kept}. Advantages are "
                f"{facts['advantages']}, also for methods with a rule of their own. Not known: "
                f"{'; '.join(facts['unknown'])}."
            )
            said.setdefault(line, []).append(name)
    yield "\n".join(f"- {', '.join(names)}: {line}" for line, names in said.items())


def _clipping(lab: Lab) -> Iterator[str]:
    arena = lab.arena
    found = rules.with_words(arena.fairness)
    by_range = {span: select(found, range=span) for span in ("default", "matched")}
    yield "## Who is clipped, by length"
    yield "![clip by length](clip_by_length.png)\n\n![acceptance](acceptance.png)"
    if arena.matched:
        yield f"Every method at the range where it clips {arena.target:.3f} of the responses with a gradient:"
        yield markdown(tables.fairness_table(by_range["matched"]).drop(columns="range"))
    yield "Every method at its own range:"
    yield markdown(tables.fairness_table(by_range["default"]).drop(columns="range"))
    reasons = arena.matching[1]
    if len(set(reasons.values())) == 1 and not arena.matched:
        yield f"No method has a matched range: {next(iter(reasons.values()))}."
    else:
        yield "\n".join(f"- {name} has no matched range: {reason}" for name, reason in reasons.items())
    yield "Both signs of the advantage apart, and bins of powers of two: `clip_by_length_and_sign.csv`."


def _growth(lab: Lab) -> Iterator[str]:
    arena = lab.arena
    yield "## Is S what the theory says?"
    yield "![growth](growth.png)"
    yield "\n".join(f"- {growth_sentence(row)}" for row in arena.growth.to_dict("records"))
    yield markdown(arena.growth.round(5).map(lambda x: ABSENT if isinstance(x, float) and math.isnan(x) else x))
    yield "Update by update, drift and sigma grow as the policy leaves the one that drew the responses:"
    yield "![updates](updates.png)"
    yield "What the normal tail predicts from these, with every method's own band, against what was measured:"
    yield "![predicted](predicted.png)"
    yield "\n".join(f"- {line}" for line in predicted_sentences(arena.predicted))


def predicted_sentences(predicted: pd.DataFrame) -> list[str]:
    """A line per method and range: measured and predicted share outside the band, and the bin that is furthest off."""
    lines = []
    for method, span in ((m, s) for s in ("default", "matched") for m in DRAWN):
        part = select(predicted, method=method, range=span, truncated=False)
        if part.empty:
            continue
        responses, outside, tail = (numbers_of(part, name) for name in ("responses", "outside_band", "predicted"))
        measured, expected = (float(responses @ x / responses.sum()) for x in (outside, tail))
        worst = part.iloc[int(np.abs(outside - tail).argmax())]
        lines.append(
            f"{method}, {span} range: {percent(measured)} % outside, the normal tail predicts "
            f"{percent(expected)} %; furthest off at {worst['bin']} tokens: "
            f"{percent(worst['outside_band'], worst['outside_band_low'], worst['outside_band_high'])} % "
            f"against {percent(worst['predicted'])} %"
        )
    return lines


def _questions(lab: Lab) -> Iterator[str]:
    yield (
        "A setting that clips more has larger slopes. `relative slope` is the slope of the clip rate as a share of "
        "it: 0 is even, +0.5 says that a doubling of the length adds half of it."
    )
    for question in QUESTIONS:
        wanted = select(lab.variants, range=question)
        part = rules.equal_rows_joined(rules.with_words(wanted))
        relative = numbers_of(part, "relative_slope")
        table = tables.fairness_table(part).drop(columns="range")
        table.insert(4, "relative slope", [Number.of(x, "+.2f") for x in relative])
        yield f"### {question}"
        yield markdown(table)
        yield from _missed(question, wanted)
        clipped = numbers_of(part, "mean_clipped")
        enough = (clipped >= FEWEST) & (clipped <= 1 - FEWEST)
        if not enough.any():
            most = f" to {1 - FEWEST:.0%}" if (clipped > FEWEST).any() else ""
            yield f"- no setting clips {FEWEST:.0%}{most} of the responses"
            continue
        sizes = np.where(enough, np.abs(relative), np.nan)
        if not np.isfinite(sizes).any():
            yield "- no slope: the responses are too much alike in length"
            continue
        if len(part) == 1:
            yield "- all settings give the same numbers"
            continue
        shown = relative[np.isfinite(sizes)]
        if shown.max() - shown.min() < ALIKE:
            ends = dict.fromkeys(f"{end + 0.0:+.2f}" for end in (shown.min(), shown.max()))
            yield f"- all alike for what they clip: {' to '.join(ends)} per doubling"
            continue
        sizes[part["word"].to_numpy() == rules.UNEVEN] = np.nan
        if not np.isfinite(sizes).any():
            word = rules.shown_word({"word": rules.UNEVEN, "seeds": part["seeds"].iloc[0]})
            yield f"- every setting that clips {FEWEST:.0%} of the responses is {word}"
            continue
        best = int(np.nanargmin(sizes))
        row = part.iloc[best]
        yield f"- evenest for what it clips: {row['method']} ({relative[best]:+.2f} per doubling), {row['sentence']}"


def _missed(question: str, settings: pd.DataFrame) -> Iterator[str]:
    """Target clip rates that the replay did not come to: the share outside the band, whose interval leaves them out."""
    said = []
    for row in records(settings):
        target = QUESTIONS[question][row["method"]].get("target_clip_rate")
        low, high = row["mean_outside_band_low"], row["mean_outside_band_high"]
        if isinstance(target, float) and (target < low or target > high):
            said.append(f"{row['method']} ({percent(row['mean_outside_band'], low, high)} % outside the band)")
    if said:
        yield f"- not reached: {', '.join(said)}; the width takes S for normal, with the sigma of earlier updates"


def _weights(lab: Lab) -> str:
    whole = select(lab.arena.weights, bin="all", sign="all")
    columns = ["method", "ess_weight", "ess_gradient", "mean_weight", "weight_q01", "weight_q99", "loss_scale"]
    return (
        "Effective sample size as a share of the responses, over importance weights and over gradient norms; "
        "`loss_scale` is what the clip leaves of the summed gradient norms. Shares by length: `weights.csv`.\n\n"
        + markdown(_shortened(pd.DataFrame(whole[columns])))
    )


def _directions(lab: Lab) -> Iterator[str]:
    yield "## Which way the update turns"
    yield "Cosine of the clipped update with the method's own unclipped one, in log-prob space, over the updates:"
    yield markdown(_shortened(lab.turns))
    yield (
        "The bound that LRE gives holds for an update that scales each length as a whole (`scaled`). A real clip "
        "picks responses within a length by their ratio and sign; `departure` is how far it is from such a "
        "scaling, and `violated` the share of the updates that have a bound (K LRE < 1) whose cosine lies below it. A "
        "method that weighs tokens is none that the bound is about. Means over the updates:"
    )
    yield markdown(_shortened(lab.bounds))
    if lab.model is None:
        return
    cosine, bound, gap = lab.model.turns
    updates = sorted(set(cosine["update"].tolist()))
    yield "### On the model itself"
    yield (
        f"Gradients of every method at update{'s' if len(updates) > 1 else ''} {', '.join(map(str, updates))} of the "
        f"first recorded rollouts, with the driver's steps taken again (their log-probs differ from the recorded ones "
        f"by at most {gap:.2g} nats). Mean cosine with the method's own unclipped update:"
    )
    yield markdown(_shortened(turn_table(cosine, OWN)))
    numbers = ["lre", "concentration", "bound", "scaled", "cosine", "departure", "violated"]
    means = bound.groupby(["space", "method"], sort=False)[numbers].mean()
    yield markdown(_shortened(pd.DataFrame(means).reset_index()))
    yield bound_sentence(bound)


def _overlaps(lab: Lab) -> Iterator[str]:
    if lab.arena.matched:
        yield "## Who clips the same responses"
        yield "Jaccard index of the clipped sets at matched ranges; by sign and length in `overlap_by_length.csv`."
        yield markdown(_shortened(lab.arena.overlaps.reset_index(names="")))


def _noise(lab: Lab) -> Iterator[str]:
    if lab.noise is None or lab.noise_clips is None:
        return
    yield "## The null update"
    yield (
        "The start model scores the same responses twice. Nothing was learned, so every ratio should be 1: what is "
        "not is noise, in nats. `sigma` is what it adds to the spread of S per square root of a token."
    )
    yield markdown(tables.noise_cells(lab.noise))
    yield (
        "Share of responses (of a token ratio: of tokens) that this noise alone puts outside the band, in per cent. By "
        "precision: the worst change of layout or padding. Then: where old log-probs come from elsewhere."
    )
    yield markdown(noise_clip_table(lab.noise_clips))


def noise_clip_table(found: pd.DataFrame) -> pd.DataFrame:
    """Rows methods; per precision the largest share over the layouts, then every other change, in per cent."""
    rows = []
    for method in names_of(found, "method"):
        row: dict[str, str | Number] = {"method": method}
        mine = select(found, method=method)
        for precision in names_of(mine, "precision"):
            shares = [select(mine, precision=precision, change=change) for change in LAYOUTS]
            row[precision] = Number.percent(numbers_of(pd.concat(shares), "outside_band").max())
        for other in mine.to_dict("records"):
            if other["change"] not in LAYOUTS:
                row[f"{other['precision']}: {other['change']}"] = Number.percent(other["outside_band"])
        rows.append(row)
    return pd.DataFrame(rows)


def _provenance(lab: Lab) -> Iterator[str]:
    yield "\n".join(
        f"- {name}: `{' '.join(facts.get('command', []))}`, {_made_by(facts)}, "
        f"torch {facts['environment'].get('torch', '?')}"
        for name, facts in lab.bank.recordings.items()
    )
    yield "Methods (card digest) at their own range:"
    yield "\n".join(f"- {name} ({card_digest(m)}): {hyper_line(m)}" for name, m in METHODS.items())


def _made_by(facts: Mapping[str, Any]) -> str:
    if (trainer := trainer_of(facts)) is not None:
        settings = ", ".join(f"{name}={value}" for name, value in facts["settings"].items())
        return f"{trainer}, start model {facts.get('model', 'unknown')}, {settings}"
    driver = facts["driver"]
    return f"driven by {driver['method']} (card {driver['card']}), start model {facts['digests']['model'][:12]}"


def _shortened(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(frame).map(_short)


def _short(value: object) -> object:
    return Number.of(value, ".3g") if isinstance(value, float) else value
