"""Markdown as a page of its own: nothing is loaded from elsewhere, and nothing in a text becomes markup."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from matplotlib.figure import Figure

from suite.report.comparison_text import linked
from suite.report.html import LONG, Drawn, FirstLook, as_html, slug
from suite.report.markdown import markdown, without_html
from suite.report.style import says, svg
from suite.statistics.frames import ABSENT, Number

PNG = b"\x89PNG of a figure"


def test_pictures_are_inside_and_headings_can_be_linked_to(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    page = as_html("# Title\n\n[12 [10, 14]](#runs-of-fspo)\n\n![a](a.png)\n\n### Runs of fspo\n", tmp_path)
    assert "<title>Title</title>" in page
    assert f'src="data:image/png;base64,{base64.b64encode(PNG).decode()}"' in page
    assert '<a href="#runs-of-fspo">12 [10, 14]</a>' in page
    assert '<h3 id="runs-of-fspo">' in page
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', page)


def test_text_is_no_markup(tmp_path: Path) -> None:
    page = as_html("# T\n\n<script>alert(1)</script> | x |\n", tmp_path)
    assert page.count("<script>") == 1, "the page's own"
    assert "&lt;script&gt;alert(1)" in page


@pytest.mark.parametrize(
    "page",
    ["# <img src=x> 1\n\n| a |\n", "`a` <b>`c` <!-- d -->", "a ``` b <i>", "`a\n\n<b> `", "```text\n<b>\n\n```\n<i>"],
)
def test_a_page_of_markdown_holds_no_tag_where_html_is_allowed(page: str) -> None:
    shown = MarkdownIt("commonmark", {"html": True}).render(without_html(page))
    assert not re.search(r"<(?:img|b|i)\b|<!--", shown)
    assert without_html(without_html(page)) == without_html(page)


def test_a_page_runs_its_own_script_alone(tmp_path: Path) -> None:
    """The policy allows what has this digest, pictures that are inside, and nothing that would be loaded."""
    page = as_html("# T\n", tmp_path)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = re.findall(r'Content-Security-Policy"\s+content="([^"]*)"', page)
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_sections_and_long_tables_fold_and_what_comes_first_does_not(tmp_path: Path) -> None:
    tables = [markdown(pd.DataFrame({"<n>": range(rows), "b": range(rows)})) for rows in (LONG, LONG + 1)]
    page = as_html(f"# T\n\nfirst\n\n## One\n\n{tables[0]}\n\n## Two & a\n\n{tables[1]}\n\nlast\n", tmp_path)
    body = page[page.index("<body>") :]
    folds = re.findall(r"<details>\s*<summary>(.*?)</summary>", body, re.DOTALL)
    assert folds == ['<h2 id="one">One</h2>\n', '<h2 id="two--a">Two &amp; a</h2>\n', "Table of 13 rows: &lt;n&gt;, b"]
    assert body.count("<details>") == body.count("</details>") == 3
    assert body.index("first") < body.index("<details>")
    assert body.index("last") < body.rindex("</details>"), "within its section"


def test_a_title_is_shown_without_what_markdown_escapes(tmp_path: Path) -> None:
    assert "<title>a&lt;b&gt;_c: 1</title>" in as_html("# a\\<b>\\_c: 1\n", tmp_path)


def test_a_first_look_has_its_figures_once_and_three_of_them_open(tmp_path: Path) -> None:
    """Ids are those of one figure; the picture of a figure is a link to it; lines of figures alone are gone."""
    axes = (figure := Figure()).add_subplot()
    axes.plot([1, 2], "o")
    says(axes, 0, 1, 'a "quoted" <name>, 12.345')
    names = ("a", "b", "c", "d")
    look = FirstLook(["S & T."], {name: Drawn(f"Figure {name}", svg(figure), svg(figure)) for name in names})
    page = as_html("# T\n\nwhat\n\n![a](a.png)\n![b](b.png)\n\n## One\n\n![c](c.png)\n", tmp_path, look)
    body = page[page.index("<body>") :]
    assert "<li>S &amp; T.</li>" in body
    assert "<title>a &quot;quoted&quot; &lt;name&gt;, 12.345</title>" in body
    ids = re.findall(r'\bid="([^"]*)"', body)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]*)', body)) <= set(ids)
    assert body.count("<figure") == 4
    assert re.findall(r"<summary>(.*?)\n?</summary>", body) == ["Figure d", '<h2 id="one">One</h2>']
    assert '<p><a href="#figure-c">figure: c</a></p>' in body
    assert "figure: a" not in body
    assert page == as_html("# T\n\nwhat\n\n![a](a.png)\n![b](b.png)\n\n## One\n\n![c](c.png)\n", tmp_path, look)


def test_slugs_are_those_of_code_hosts() -> None:
    assert slug("Is S what the theory says?") == "is-s-what-the-theory-says"
    assert slug(" Runs of dr_grpo ") == "runs-of-dr_grpo"


def test_numbers_lead_to_the_runs_of_their_row_and_digests_do_not() -> None:
    accuracy, seeds = Number("+4.7 [4.4, 5.0]"), Number("3")
    row = {"model": "fspo − base", "accuracy": accuracy, "card": "575633152000", "n": seeds, "null update": ABSENT}
    cells = markdown(linked(pd.DataFrame([row]))).splitlines()[-1].strip("| ").split(" | ")
    assert cells == ["fspo − base", "[+4.7 [4.4, 5.0]](#runs-of-fspo)", "575633152000", "3", "–"], "the first alone"
