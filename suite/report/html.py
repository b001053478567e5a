"""Markdown as one self-contained HTML page: an open first look, then what folds; legible on a phone and in grey.

Nothing is loaded: pictures and figures are inside, and a policy forbids every script but the page's own few lines.
"""

from __future__ import annotations

import base64
import hashlib
import html
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

SCRIPT = """
const reveal = () => {
  const goal = document.querySelector(":target");
  for (let part = goal?.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
  goal?.scrollIntoView();
};
addEventListener("hashchange", reveal);
addEventListener("load", reveal);
addEventListener("click", ({target}) => { if (target.closest("a[href^='#']")) setTimeout(reveal); });
addEventListener("pointerover", ({target}) => {
  const title = target.closest("figure g:has(> title)")?.querySelector("title");
  if (title) target.closest("figure").querySelector("output").textContent = title.textContent;
});
let closed = [];
addEventListener("beforeprint", () => {
  closed = [...document.querySelectorAll("details:not([open])")];
  closed.forEach((part) => { part.open = true; });
});
addEventListener("afterprint", () => closed.forEach((part) => { part.open = false; }));
"""
"""All that a page runs: it opens what a link leads into, says what a mark is, and prints everything."""

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{policy}'">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222; }}
body {{ overflow-wrap: break-word; }}
table {{ border-collapse: collapse; font-size: 12.5px; margin: 1rem 0; display: block; overflow-x: auto; }}
th, td {{ border-bottom: 1px solid #ddd; padding: .2rem .6rem; text-align: left; vertical-align: top; }}
td {{ min-width: 4rem; overflow-wrap: normal; }}
td[style*=right], td:first-child {{ white-space: nowrap; }}
th:first-child, td:first-child {{ position: sticky; left: 0; background: #fff; }}
td a {{ color: inherit; text-decoration-color: #bbb; }}
p:has(img) {{ overflow-x: auto; }}
img {{ max-width: 100%; min-width: 44rem; }}
code {{ background: #f4f4f4; padding: 0 .2rem; overflow-wrap: anywhere; }}
h1, h2, h3 {{ line-height: 1.2; }}
summary {{ cursor: pointer; padding: .35rem 0; }}
summary h2 {{ display: inline; font-size: inherit; }}
body > details {{ border-top: 1px solid #ddd; }}
body > details > summary {{ font-size: 1.15rem; font-weight: bold; }}
figure {{ margin: 1.5rem 0; }}
svg {{ display: block; width: 100%; height: auto; margin: 0 auto; stroke-linejoin: round; stroke-linecap: butt; }}
figcaption {{ color: #555; font-size: 13px; min-height: 3em; text-align: center; }}
.narrow {{ display: none; }}
@media screen and (max-width: 44rem) {{
  .wide {{ display: none; }}
  .narrow {{ display: block; }}
  td {{ min-width: 8rem; }}
  td:first-child {{ white-space: normal; overflow-wrap: break-word; max-width: 45vw; min-width: 3rem; }}
}}
</style></head><body>
{body}
<script>{script}</script>
</body></html>
"""

LONG = 12
"""Rows above which a table folds."""
FIRST = 3
"""Figures that are open from the start."""

_OWN = re.compile(r"#[\w%.-]*|[\w./-]+\.(?:png|svg|csv|md|html|json)|https://(?:arxiv\.org|github\.com)/[\w./#?=&-]*")
"""What a page may point to: its own parts, files beside it, and papers and sources by https. It loads none of them."""


@dataclass(frozen=True)
class Drawn:
    """One figure as SVG, for a page and for a phone, with what it shows in a few words."""

    shows: str
    wide: str
    narrow: str


@dataclass(frozen=True)
class FirstLook:
    """What a page shows before everything else: sentences, and figures by the file name of the picture in the text."""

    sentences: Sequence[str] = ()
    figures: Mapping[str, Drawn] = field(default_factory=dict)


def _is_ours(url: str) -> bool:
    return _OWN.fullmatch(url) is not None


def slug(heading: str) -> str:
    """The anchor of a heading, as code hosts make it from Markdown.

    >>> slug("Who is clipped, by response length")
    'who-is-clipped-by-response-length'
    """
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def as_html(text: str, folder: Path, look: FirstLook | None = None) -> str:
    """Markdown as one HTML page with the pictures of that folder inside.

    The first look stands below the first paragraph; a picture that it has as a figure is a link to it elsewhere. Every
    `## ` section folds, and so does every table of more than LONG rows.
    """
    look = look or FirstLook()
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("autolink")
    parser.validateLink = _is_ours

    def picture(tokens: Sequence[Token], place: int, options: Any, env: Any) -> str:
        name, shows = str(tokens[place].attrs["src"]), html.escape(tokens[place].content)
        if name.removesuffix(".png") in look.figures:
            return f'<a href="#figure-{name.removesuffix(".png")}">figure: {shows}</a>'
        if not re.fullmatch(r"[\w.-]+\.png", name):
            return shows
        data = base64.b64encode((folder / name).read_bytes()).decode()
        return f'<img src="data:image/png;base64,{data}" alt="{shows}">'

    parser.add_render_rule("image", lambda _, tokens, place, options, env: picture(tokens, place, options, env))
    tokens = parser.parse(text)
    for opening, content in itertools.pairwise(tokens):
        if opening.type == "heading_open":
            opening.attrSet("id", slug(content.content))
    first = next((i for i, token in enumerate(tokens) if token.type == "heading_open" and token.tag == "h2"), None)
    head, rest = tokens[:first], tokens[len(tokens) if first is None else first :]
    shown = [*_looked_at(head, look), *_folded(rest)]
    policy = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    title = _plain(tokens[1]) if len(tokens) > 1 and tokens[0].type == "heading_open" else ""
    body = parser.renderer.render([*_short(shown)], parser.options, {})
    return PAGE.format(title=html.escape(title), policy=policy, body=body, script=SCRIPT)


def _plain(heading: Token) -> str:
    """A heading's text without the Markdown that it is written in."""
    return "".join(child.content for child in heading.children or ())


def _markup(text: str) -> Token:
    return Token("html_block", "", 0, content=text)


def _looked_at(head: Sequence[Token], look: FirstLook) -> Iterator[Token]:
    """The tokens before the first section, with the first look behind the first paragraph, without lines of figures."""
    drawn = {f"{name}.png" for name in look.figures}
    waiting = bool(look.sentences or look.figures)
    skipped = 0
    for place, token in enumerate(head):
        children = head[place + 1].children or [] if token.type == "paragraph_open" else []
        pictures = {str(child.attrs["src"]) for child in children if child.type == "image"}
        skipped = 3 if pictures and pictures <= drawn else skipped
        if skipped:
            skipped -= 1
            continue
        yield token
        if waiting and token.type == "paragraph_close":
            waiting = False
            yield _markup(first_look(look))
    if waiting:
        yield _markup(first_look(look))


def first_look(look: FirstLook) -> str:
    """Sentences and figures as HTML; figures from the fourth on fold."""
    figures = [
        f'<figure id="figure-{name}"><div class="wide">{_inline(one.wide, f"{name}-", one.shows)}</div>'
        f'<div class="narrow">{_inline(one.narrow, f"{name}-narrow-", one.shows)}</div>'
        f"<figcaption>{html.escape(one.shows)}. <output>Point at a mark, or touch it, to read it.</output></figcaption>"
        "</figure>\n"
        for name, one in look.figures.items()
    ]
    more = [
        f"<details><summary>{html.escape(one.shows)}</summary>{figure}</details>\n"
        for one, figure in zip(look.figures.values(), figures, strict=True)
    ]
    said = "".join(f"<li>{html.escape(sentence)}</li>\n" for sentence in look.sentences)
    return (f'<ul class="look">\n{said}</ul>\n' if said else "") + "".join([*figures[:FIRST], *more[FIRST:]])


def _inline(svg: str, prefix: str, shows: str) -> str:
    """A figure's SVG as an element of a page: no size or style for the whole page, and ids that no other figure has."""
    head, _, body = svg.partition("<svg ")[2].partition(">")
    width, height = re.findall(r"[\d.]+", head.partition("viewBox=")[2])[2:4]
    body = re.sub(r"<metadata>.*?</metadata>|<defs>\s*<style.*?</defs>|<!--.*?-->", "", body, flags=re.DOTALL)
    used = set(re.findall(r"(?:href=\"|url\()#([^\")]+)", body))
    body = re.sub(r' id="([^"]*)"', lambda found: f' id="{prefix}{found[1]}"' if found[1] in used else "", body)
    body = re.sub(r"(href=\"|url\()#", rf"\g<1>#{prefix}", body)
    body = re.sub(r' (?:d|x|y)="[^"]*"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), body)
    size = f'viewBox="0 0 {width} {height}" style="max-width: {1.3 * float(width):.0f}px"'
    return f'<svg {size} role="img" aria-label="{html.escape(shows)}">' + re.sub(r"\n\s*", "\n", body)


def _folded(tokens: Sequence[Token]) -> Iterator[Token]:
    """Sections that fold: every heading of the second level is what one sees of a closed one."""
    for place, token in enumerate(tokens):
        heading = token.type in ("heading_open", "heading_close") and token.tag == "h2"
        if heading and token.nesting == 1:
            yield _markup("</details>\n<details><summary>" if place else "<details><summary>")
        yield token
        if heading and token.nesting == -1:
            yield _markup("</summary>\n")
    if tokens:
        yield _markup("</details>\n")


def _short(tokens: Sequence[Token]) -> Iterator[Token]:
    """The tokens, with every long table folded under its number of rows and its columns."""
    long = False
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            rest = itertools.takewhile(lambda one: one.type != "table_close", itertools.islice(tokens, place, None))
            table = list(rest)
            rows = sum(one.type == "tr_open" for one in table) - 1
            long = rows > LONG
            if long:
                names = [_plain(cell) for opening, cell in itertools.pairwise(table) if opening.type == "th_open"]
                columns = html.escape(", ".join(filter(None, names)))
                yield _markup(f"<details><summary>Table of {rows} rows: {columns}</summary>\n")
        yield token
        if token.type == "table_close" and long:
            yield _markup("</details>\n")
