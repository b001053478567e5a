"""A lab's files: Markdown, one self-contained HTML page, every table as CSV, every figure as PNG and SVG."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt

from suite import tables
from suite.bank import MANIFEST
from suite.environment import write_provenance
from suite.figure_style import save_figure
from suite.files import write_atomically
from suite.lab import Lab
from suite.lab_text import page_text

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; font-size: 12.5px; margin: 1rem 0; display: block; overflow-x: auto; }}
th, td {{ border-bottom: 1px solid #ddd; padding: .2rem .6rem; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child, td:last-child {{ text-align: left; }}
img {{ max-width: 100%; }}
code {{ background: #f4f4f4; padding: 0 .2rem; }}
h1, h2 {{ line-height: 1.2; }}
</style></head><body>
{body}
</body></html>
"""


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


def as_html(text: str, folder: Path) -> str:
    """Markdown as one HTML page with its pictures inside."""
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(text)

    def embedded(match: re.Match[str]) -> str:
        data = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{data}"'

    title = text.splitlines()[0].removeprefix("# ")
    return PAGE.format(title=title, body=re.sub(r'src="([\w.-]+\.png)"', embedded, body))
