"""A plan as tables and plain sentences: of a recipe on a device, and of a claim from finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from suite.cells import load_comparison
from suite.config import CompareConfig
from suite.devices import DECODING_SHARE, TRAINING_SHARE, Device, device_named
from suite.folder import stored_config
from suite.intervals import FEW_SEEDS
from suite.memory_model import Term, sampling, total_gib, updating
from suite.model_shapes import ModelShape, model_shape
from suite.plan import Lengths, cell_lines, hours, load_of
from suite.plan_inputs import lengths_of, questions_of
from suite.power import chosen_pairs, design_table, designs, enough, pairs_of, rates_of, sentence
from suite.recipes import EMBEDDED_MODEL, method_with, recipe, with_options
from suite.types import UserError

Section = tuple[str, pd.DataFrame | None, list[str]]
"""A title, a table or None, and lines below it."""


def planned(
    name: str,
    device_name: str,
    count: int,
    model: str | None,
    response_tokens: float | None,
    data_dir: Path | None,
    options: Sequence[str],
) -> list[Section]:
    """Memory a device, tokens and hours of a recipe with the command line's changes. Loads no weights."""
    config = with_options(recipe(name), options)
    changes = {key: value for key, value in (("model", model), ("data_dir", data_dir)) if value is not None}
    config = replace(config, train=replace(config.train, **changes))
    device, shape = device_named(device_name), model_shape(config.train.model, EMBEDDED_MODEL)
    lengths = lengths_of(config, response_tokens)
    needs_values = {m: "values" in method_with(m, config.options).needs for m in config.methods}
    sections: list[Section] = [(name, None, [shape.facts, lengths.source, _device_line(device, count)])]
    for critic in sorted(set(needs_values.values())):
        who = ", ".join(m for m, needs in needs_values.items() if needs == critic)
        sections += _memory(config, shape, device, count, lengths, critic, who)
    return [*sections, _hours(config, shape, device, count, lengths, needs_values)]


def _device_line(device: Device, count: int) -> str:
    return (
        f"{count} x {device.name}: {device.memory_gib:.0f} GiB, peak {device.bfloat16 / 1e12:g} TFLOP/s in bfloat16, "
        f"{device.float32 / 1e12:g} in float32, {device.bandwidth / 1e9:g} GB/s ({device.source}); assumed: "
        f"{TRAINING_SHARE:.0%} of the peak, {DECODING_SHARE:.0%} of the bandwidth"
    )


def _memory(
    config: CompareConfig, shape: ModelShape, device: Device, count: int, lengths: Lengths, critic: bool, who: str
) -> list[Section]:
    """Both phases of the cells of some methods, term by term, and whether a cell fits on one device."""
    load = load_of(config, shape, device, lengths, critic)
    phases = {"sample": sampling(shape, load), "update": updating(shape, load)}
    rows = [
        {"phase": phase, "term": term.name, "formula in bytes": term.formula, "GiB": f"{term.gib:.2f}"}
        for phase, terms in phases.items()
        for term in (*terms, Term("in all", "", sum(t.bytes for t in terms)))
    ]
    peak = max(phases.values(), key=total_gib)
    need, room = total_gib(peak), device.memory_gib
    verdict = "fits" if need <= room else f"does not fit into {room:.0f} GiB"
    lines = [f"A cell of {who} needs {need:.1f} GiB on one device: {verdict}."]
    if need > room:
        worst = max(peak, key=lambda term: term.bytes)
        lines.append(f"The largest part is {worst.name} ({worst.gib:.1f} GiB = {worst.formula}).")
    if count > 1:
        shared = total_gib(peak, count)
        lines.append(
            f"Weights, gradients and states sharded over {count} devices (torchrun --nproc-per-node {count} -m "
            f"suite.cli train ...; what draws stays whole beside them): {shared:.1f} GiB a device, which "
            f"{'fits' if shared <= room else 'does not fit either'}."
        )
    return [(f"memory of a cell of {who}, responses at their limit", pd.DataFrame(rows), lines)]


def _hours(
    config: CompareConfig,
    shape: ModelShape,
    device: Device,
    count: int,
    lengths: Lengths,
    needs_values: dict[str, bool],
) -> Section:
    """Tokens and hours of a cell without a critic, phase by phase, and of the comparison."""
    questions, asked = questions_of(config)
    by_method = {
        method: cell_lines(config, shape, device, lengths, questions, critic) for method, critic in needs_values.items()
    }
    shown = min(by_method, key=lambda method: needs_values[method])
    rows = [
        {
            "phase": line.phase,
            "tokens": f"{line.tokens:,.0f}",
            "hours": f"{line.seconds / 3600:.3g}",
            "formula in seconds": line.formula,
        }
        for line in by_method[shown]
    ]
    seeds, train = len(config.seeds), config.train
    total = seeds * sum(hours(lines) for lines in by_method.values())
    tokens = seeds * sum(line.tokens for lines in by_method.values() for line in lines)
    cells = seeds * len(config.methods)
    rounds = -(-cells // count)
    lines = [
        f"{cells} cells ({len(config.methods)} methods x {seeds} seeds) of {train.steps} steps, "
        f"{train.steps * train.updates_per_rollout} updates, "
        f"{train.steps * train.problems_per_step * train.samples_per_problem:,} responses; {asked}.",
        f"In all {tokens:,.0f} tokens and {total:.3g} device "
        f"hours; one cell a device, {count} side by side: {total * rounds / cells:.3g} hours.",
    ]
    if train.dynamic_sampling:
        lines.append(f"Dynamic sampling may draw up to {1 + train.dynamic_sampling} times the responses.")
    return (f"tokens and hours of a cell ({shown})", pd.DataFrame(rows), lines)


def claimed(runs: Path, detect: float, pair: str | None) -> tuple[str, pd.DataFrame, list[str]]:
    """The designs that find `detect` points, the cheapest first, or those that come nearest; and what it means."""
    if not detect > 0:
        raise UserError(f"--detect {detect:g}: a difference in points above 0")
    config = stored_config(runs)
    base, results = load_comparison(config, runs)
    about, pairs = chosen_pairs(pairs_of(base, results), pair)
    only_one = all(reference == "base" for _, reference in pairs)
    names = {run.environment.get("accelerator", "none") for run in results}
    machine = "GPU hours" if names != {"none"} else "hours of this machine"
    found = designs(pairs, rates_of(results), 1 if only_one else 2)
    able = enough(found, detect)
    nearest = sorted(found, key=lambda design: design.detectable)[:6]
    lines = [sentence(about, pairs, found, detect, machine)]
    models = "one model" if only_one else "two models"
    lines.append(
        f"{machine[0].upper()}{machine[1:]}: {models}, one cell after another, training and evaluation as measured "
        f"({', '.join(sorted(names))} as accelerator)."
    )
    seeds = min(parts.seeds for parts in pairs.values())
    if seeds <= FEW_SEEDS:
        lines.append(f"The variances were estimated from {seeds} seeds: that is a rough guess; plan again with more.")
    if next(iter(pairs.values())).samples < 2:
        lines.append("With one sample a problem its noise is not known: more samples seem to help nothing.")
    return f"designs for {detect:g} points: {about}", design_table(able or nearest, machine), lines
