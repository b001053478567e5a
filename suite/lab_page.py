"""A lab's files: Markdown, one self-contained HTML page, every table as CSV, every figure as PNG and SVG."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from suite import tables
from suite.bank import MANIFEST
from suite.environment import write_provenance
from suite.figure_style import save_figure
from suite.files import write_atomically
from suite.lab import Lab
from suite.lab_text import page_text
from suite.page import as_html


def write_lab(lab: Lab, out: Path, command: Sequence[str] = ()) -> Path:
    """Write lab.md, lab.html, CSV, figures and made.json into a folder; returns the page's path. Same bank, same bytes.

    UserError, before anything is computed, where a file of the bank was altered.
    """
    lab.bank.check()
    manifest = hashlib.sha256((lab.bank.folder / MANIFEST).read_bytes()).hexdigest()
    write_provenance(out, command, bank=lab.bank.folder.name, manifest_sha256=manifest)
    for name, frame in lab.tables().items():
        tables.write_csv(out / f"{name}.csv", frame)
    for name, figure in lab.figures().items():
        save_figure(figure, out, name)
    text = page_text(lab)
    write_atomically(out / "lab.md", text)
    page = out / "lab.html"
    write_atomically(page, as_html(text, out))
    return page
