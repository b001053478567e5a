"""A plan as tables and plain sentences: of a recipe on a device, and of a claim from finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from suite.config import MEAN
from suite.experiments.finished import load_whole_seeds
from suite.experiments.recipes import Changes, changed
from suite.experiments.sampler_choice import AUTO, with_engine
from suite.experiments.settings import method_in
from suite.planning.cost_model import HOUR
from suite.planning.devices import DECODING_SHARE, TRAINING_SHARE, Device, device_named
from suite.planning.lengths import expected_lengths, questions_of
from suite.planning.memory_model import Term, total_gib
from suite.planning.model_shapes import model_shape
from suite.planning.plan_layouts import CellLayout, Planned, best, cell_layouts
from suite.records.comparison_folder import stored_config
from suite.statistics.intervals import FEW_SEEDS
from suite.statistics.power import chosen_pairs, design_table, designs, enough, pairs_of, power_sentence, rates_of
from suite.types import UserError

PHASES = {
    "start": "the whole model stands on every device",
    "sample": "responses are drawn",
    "update": "the policy is updated",
    "checkpoint": "a checkpoint is written",
}
"""What happens in each phase."""
Section = tuple[str, pd.DataFrame | None, list[str]]
"""A title, a table or None, and lines below it."""


def planned(name: str, changes: Changes, device_name: str, count: int, response_tokens: float | None) -> list[Section]:
    """Memory, layouts, tokens and hours of a recipe with the command line's changes. Loads no weights."""
    config = changed(name, changes)
    device, shape = device_named(device_name), model_shape(config.train.model)
    if config.train.sampler == AUTO:
        config = with_engine(config, "vllm" if device.is_gpu else "transformers")
    lengths = expected_lengths(config, response_tokens)
    questions, asked = questions_of(config)
    critics = {m: "values" in method_in(config, m).needs for m in config.methods}
    plan = Planned(config, shape, device, count, lengths, questions, critics)
    layouts = cell_layouts(plan)
    sections: list[Section] = [(name, None, [shape.facts, lengths.source, _device_line(device, count)])]
    for layout in layouts:
        sections += [_memory(layout, critic) for critic in sorted(set(critics.values()))]
    chosen = best(layouts)
    sections.append(_tokens(plan, chosen, asked))
    if chosen is not None and device.is_gpu:
        sections.append(_host(chosen))
    command = None if chosen is None else chosen.command(name, changes)
    return [*sections, _answer(plan, layouts, chosen, command)]


def _device_line(device: Device, count: int) -> str:
    return (
        f"{count} x {device.name}: {device.memory_gib:.0f} GiB, peak {device.bfloat16 / 1e12:g} TFLOP/s in bfloat16, "
        f"{device.float32 / 1e12:g} in float32, {device.bandwidth / 1e9:g} GB/s ({device.source}); assumed: "
        f"{TRAINING_SHARE:.0%} of the peak, {DECODING_SHARE:.0%} of the bandwidth"
    )


def _memory(layout: CellLayout, critic: bool) -> Section:
    """All phases of the cells of some methods in a layout, term by term, and the largest part."""
    plan, found = layout.plan, layout.phases(critic)
    who = ", ".join(method for method, needs in plan.critics.items() if needs == critic)
    rows = [row for phase, terms in found.items() for row in _term_rows(phase, terms)]
    peak = max(found, key=lambda phase: total_gib(found[phase]))
    need = total_gib(found[peak])
    worst = max(found[peak], key=lambda term: term.bytes)
    fits = "fits" if need <= plan.device.memory_gib else f"does not fit into {plan.device.memory_gib:.0f} GiB"
    where = f"each of {layout.processes} devices" if layout.processes > 1 else "one device"
    lines = [
        f"A cell of {who} needs {need:.1f} GiB on {where}: {fits}. It needs most while {PHASES[peak]}; the largest "
        f"part is {worst.name} ({worst.gib:.1f} GiB = {worst.formula})."
    ]
    return (f"memory of a cell of {who}, responses at their limit: {layout.words}", pd.DataFrame(rows), lines)


def _term_rows(phase: str, terms: Sequence[Term]) -> list[dict[str, str]]:
    """The terms of a phase and their sum, a row each."""
    whole = [*terms, Term("in all", "", sum(term.bytes for term in terms))]
    return [
        {"phase": phase, "term": term.name, "formula in bytes": term.formula, "GiB": f"{term.gib:.2f}"}
        for term in whole
    ]


def _tokens(plan: Planned, chosen: CellLayout | None, asked: str) -> Section:
    """Tokens of a cell without a critic, phase by phase, and its hours in the chosen layout."""
    config, train = plan.config, plan.config.train
    shown = min(config.methods, key=lambda method: plan.critics[method])
    some = CellLayout(plan, 1)
    rows = [
        {"phase": line.phase, "tokens": f"{line.tokens:,.0f}"}
        | ({} if chosen is None else {"hours": f"{line.seconds / HOUR:.3g}", "formula in seconds": line.formula})
        for line in (chosen or some).lines(shown)
    ]
    tokens = len(config.seeds) * sum(line.tokens for method in config.methods for line in some.lines(method))
    lines = [
        f"{plan.cells} cells ({len(config.methods)} methods x {len(config.seeds)} seeds) of {train.steps} steps, "
        f"{train.steps * train.updates_per_rollout} updates, "
        f"{train.steps * train.problems_per_step * train.samples_per_problem:,} responses; {asked}.",
        f"In all {tokens:,.0f} tokens.",
    ]
    if train.dynamic_sampling:
        lines.append(f"Dynamic sampling may draw up to {1 + train.dynamic_sampling} times the responses.")
    return (f"tokens{' and hours' if chosen else ''} of a cell ({shown})", pd.DataFrame(rows), lines)


def _host(layout: CellLayout) -> Section:
    """What the machine's own memory has to hold in a layout."""
    terms = layout.host()
    lines = [f"The machine needs {total_gib(terms):.0f} GiB of memory beside its devices; this plan does not know it."]
    table = pd.DataFrame(_term_rows("host", terms)).drop(columns="phase")
    return (f"memory of the machine: {layout.words}", table, lines)


def _answer(plan: Planned, layouts: Sequence[CellLayout], chosen: CellLayout | None, command: str | None) -> Section:
    """The layouts beside each other, and what to start."""
    rows = [
        {
            "layout": layout.words,
            "GiB needed": f"{layout.need_gib:.1f} of {plan.room_gib:.0f}",
            "fits": "yes" if layout.fits else "no",
            "hours": f"{layout.hours:.3g}" if layout.fits else "-",
            "device hours": f"{layout.device_hours:.3g}" if layout.fits else "-",
        }
        for layout in layouts
    ]
    lines = [f"Not possible, {layout.words}: {'; '.join(layout.obstacles)}." for layout in layouts if not layout.fits]
    if chosen is None or command is None:
        lines.append(f"Nothing here fits {plan.count} x {plan.device.name}.")
    else:
        lines += [f"Start it with: {command}", f"All {plan.cells} cells take {chosen.hours:.3g} hours: {chosen.words}."]
        if chosen.processes > 1:
            lines.append(
                f"The command trains one of the {plan.cells} cells: repeat it for every --method and --seed. What "
                "processes send each other is not in the hours."
            )
    return ("layouts", pd.DataFrame(rows) if rows else None, lines)


def claimed(runs: Path, detect: float, pair: str | None) -> tuple[str, pd.DataFrame, list[str]]:
    """The designs that find `detect` points, the cheapest first, or those that come nearest; and what it means."""
    if not 0.01 <= detect <= 100:
        raise UserError(f"--detect {detect:g}: a difference in points, from 0.01 to 100")
    config = stored_config(runs)
    base, results, seeds = load_whole_seeds(config, runs)
    about, pairs = chosen_pairs(pairs_of(base, results, config.primary), pair)
    only_one = all(reference == "base" for _, reference in pairs)
    names = {run.environment.get("accelerator", "none") for run in results}
    machine = "GPU hours" if names != {"none"} else "hours of this machine"
    found = designs(pairs, rates_of(results), 1 if only_one else 2)
    able = enough(found, detect)
    nearest = sorted(found, key=lambda design: design.detectable)[:6]
    lines = [power_sentence(about, pairs, found, detect, machine)]
    models = "one model" if only_one else "two models"
    lines.append(
        f"{machine[0].upper()}{machine[1:]}: {models}, one cell after another, training and evaluation as measured "
        f"({', '.join(sorted(names))} as accelerator)."
    )
    outcome = "the mean over all sets" if config.primary == MEAN else config.primary
    lines.append(f"Planned for the comparison's primary outcome, {outcome}.")
    if config.seeds == tuple(range(config.seeds[0], config.seeds[0] + len(config.seeds))):
        first = f" --first-seed {config.seeds[0]}" if config.seeds[0] else ""
        lines.append(f"Seeds can be added to {runs}: its command again, with a larger --seeds COUNT{first}.")
    if len(seeds) < len(config.seeds):
        lines.append(f"Not finished: from {len(seeds)} of its {len(config.seeds)} seeds, those that every method has.")
    if len(seeds) <= FEW_SEEDS:
        lines.append(
            f"The variances were estimated from {len(seeds)} seeds: that is a rough guess; plan again with more."
        )
    if next(iter(pairs.values())).samples < 2:
        lines.append("With one sample a problem its noise is not known: more samples seem to help nothing.")
    return f"designs for {detect:g} points: {about}", design_table(able or nearest, machine), lines
