"""Markdown as one self-contained HTML page: pictures inside, anchors at headings, legible on a phone and in grey."""

from __future__ import annotations

import base64
import html
import itertools
import re
from pathlib import Path

from markdown_it import MarkdownIt

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; font-size: 12.5px; margin: 1rem 0; display: block; overflow-x: auto; }}
th, td {{ border-bottom: 1px solid #ddd; padding: .2rem .6rem; text-align: left; vertical-align: top; }}
td {{ min-width: 4rem; }}
td[style*=right], td:first-child {{ white-space: nowrap; }}
th:first-child, td:first-child {{ position: sticky; left: 0; background: #fff; }}
td a {{ color: inherit; text-decoration-color: #bbb; }}
p:has(img) {{ overflow-x: auto; }}
img {{ max-width: 100%; min-width: 44rem; }}
code {{ background: #f4f4f4; padding: 0 .2rem; overflow-wrap: anywhere; }}
h1, h2, h3 {{ line-height: 1.2; }}
</style></head><body>
{body}
</body></html>
"""


_OWN = re.compile(r"#[\w%.-]*|[\w./-]+\.(?:png|svg|csv|md|html)|https://(?:arxiv\.org|github\.com)/[\w./#?=&-]*")
"""What a page may point to: its own parts, files beside it, and papers and sources by https. It loads the first two."""


def _is_ours(url: str) -> bool:
    return _OWN.fullmatch(url) is not None


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts make it from Markdown.

    >>> slug("Who is clipped, by response length")
    'who-is-clipped-by-response-length'
    """
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def as_html(text: str, folder: Path) -> str:
    """Markdown as one HTML page with the pictures of that folder inside."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("autolink")
    parser.validateLink = _is_ours
    tokens = parser.parse(text)
    for opening, content in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            opening.attrSet("id", slug(content.content))
    body = parser.renderer.render(tokens, parser.options, {})

    def embedded(match: re.Match[str]) -> str:
        data = base64.b64encode((folder / match[1]).read_bytes()).decode()
        return f'src="data:image/png;base64,{data}"'

    title = html.escape(text.splitlines()[0].removeprefix("# "))
    return PAGE.format(title=title, body=re.sub(r'src="([\w.-]+\.png)"', embedded, body))
