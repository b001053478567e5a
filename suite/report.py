"""The files of a report: Markdown, one HTML page, LaTeX tables, every table as CSV, every figure as PNG and SVG."""

from __future__ import annotations

from pathlib import Path

from suite import tables
from suite.claims import claims_table
from suite.comparison import Report
from suite.figure_style import save_figure
from suite.files import write_atomically
from suite.page import as_html
from suite.report_text import report_text


def write_report(report: Report) -> Path:
    """Write everything into the comparison's folder; returns the Markdown's path. Same stored results, same bytes."""
    for name, frame in report.tables().items():
        tables.write_csv(report.out / f"{name}.csv", frame)
    for name, figure in report.figures().items():
        save_figure(figure, report.out, name)
    write_atomically(report.out / "tables.tex", latex(report))
    text = report_text(report)
    path = report.out / "report.md"
    write_atomically(path, text)
    write_atomically(report.out / "report.html", as_html(text, report.out))
    return path


def latex(report: Report) -> str:
    """Accuracies, differences and claims as LaTeX tables (packages booktabs and tabularx)."""
    shown = {
        "Accuracy in per cent with 95\\,\\% intervals over seeds and problems.": report.accuracy_table,
        "Difference to the base model in points.": tables.difference_table(report.statistics.differences),
        "Claims of the paper and what these runs say.": claims_table(report.claims),
    }
    return "\n".join(
        frame.to_latex(index=False, escape=True, caption=caption, column_format="l" * len(frame.columns))
        for caption, frame in shown.items()
    )
