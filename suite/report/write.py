"""The files of a report and of a bank's page: Markdown, one HTML page, LaTeX tables, CSV, PNG and SVG."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from suite.findings.bank_questions import DRAWN, Lab
from suite.findings.claims import claims_table
from suite.findings.comparison import Comparison
from suite.records.bank import MANIFEST
from suite.records.files import write_atomically
from suite.records.provenance import write_provenance
from suite.records.result import BASE
from suite.replay.replays import Arena
from suite.report import growth_figures, length_figures, stability_figures, tables
from suite.report.accuracy_figures import profile_figure
from suite.report.bank_text import page_text
from suite.report.comparison_text import report_text
from suite.report.first_look import comparison_look, lab_figures, lab_look, main_figures
from suite.report.html import as_html
from suite.report.markdown import markdown, without_html, write_csv
from suite.report.style import method_colours, save_figure
from suite.report.tables import accuracies_of


def write_report(report: Comparison) -> Path:
    """Write everything into the comparison's folder; returns the Markdown's path. Same stored results, same bytes."""
    for name, frame in report.tables().items():
        write_csv(report.out / f"{name}.csv", frame)
    for name, figure in comparison_figures(report).items():
        save_figure(figure, report.out, name)
    write_atomically(report.out / "tables.tex", latex(report))
    text = without_html(report_text(report))
    path = report.out / "report.md"
    write_atomically(path, text)
    write_atomically(report.out / "report.html", as_html(text, report.out, comparison_look(report, report.out)))
    return path


def latex(report: Comparison) -> str:
    """Accuracies, differences and claims as LaTeX tables (packages booktabs and tabularx)."""
    shown = {
        "Accuracy in per cent with 95\\,\\% intervals over seeds and problems.": accuracies_of(report),
        "Differences of the declared pairs in points.": tables.declared_table(report.statistics.differences),
        "Claims of the paper and what these runs say.": claims_table(report.claims),
    }
    return "\n".join(
        frame.map(str).to_latex(index=False, escape=True, caption=caption, column_format="l" * len(frame.columns))
        for caption, frame in shown.items()
    )


def comparison_figures(report: Comparison) -> dict[str, Figure]:
    """Every figure, by file name."""
    colours = method_colours([*report.methods, BASE])
    swept = (
        {}
        if len(report.sweep) == 1
        else {"learning_rates": stability_figures.sweep_figure(report.gains, report.stability, colours=colours)}
    )
    return {
        **main_figures(report),
        "profiles": profile_figure(report.profiles[1], colours=colours),
        "training": stability_figures.training_figure(report.curves, colours=colours),
        **(_replayed_figures(report.arena, colours) if report.any_ended else {}),
        **swept,
    }


def _replayed_figures(arena: Arena, colours: Mapping[str, str]) -> dict[str, Figure]:
    """Who is accepted, and how S grows."""
    wanted = (arena.by_length, arena.fairness)
    shown = ("default", "matched") if arena.matched else ("default",)
    return {
        "acceptance": length_figures.acceptance_figure(*wanted, colours=colours, rows=shown),
        "growth": growth_figures.growth_figure(arena.growth_bins, arena.quantiles),
    }


def write_changes(changes: pd.DataFrame, out: Path, command: Sequence[str]) -> Path:
    """Write changes.csv, changes.md and made.json into the folder; returns the Markdown's path."""
    write_csv(out / "changes.csv", changes)
    write_provenance(out, command)
    path = out / "changes.md"
    write_atomically(path, f"# After minus before, in points\n\n{markdown(tables.changes_table(changes))}")
    return path


def write_lab(lab: Lab, out: Path, command: Sequence[str] = ()) -> Path:
    """Write lab.md, lab.html, CSV, figures and made.json into a folder; returns the page's path. Same bank, same bytes.

    UserError, before anything is computed, where a file of the bank was altered; before anything is written, where the
    bank says too little.
    """
    lab.bank.check()
    found, figures = lab.tables(), bank_figures(lab)
    manifest = hashlib.sha256((lab.bank.folder / MANIFEST).read_bytes()).hexdigest()
    write_provenance(out, command, bank=lab.bank.folder.name, manifest_sha256=manifest)
    for name, frame in found.items():
        write_csv(out / f"{name}.csv", frame)
    for name, figure in figures.items():
        save_figure(figure, out, name)
    text = without_html(page_text(lab))
    write_atomically(out / "lab.md", text)
    page = out / "lab.html"
    write_atomically(page, as_html(text, out, lab_look(lab, out)))
    return page


def bank_figures(lab: Lab) -> dict[str, Figure]:
    """What the page shows."""
    predicted = lab.arena.predicted
    sequence = predicted.take(np.flatnonzero(predicted["method"].isin(DRAWN)))
    span = "matched" if "matched" in set(sequence["range"]) else "default"
    return {
        **lab_figures(lab),
        "updates": growth_figures.update_figure(lab.arena.growth_by_update),
        "predicted": growth_figures.predicted_figure(sequence, span, colours=method_colours(DRAWN)),
    }
