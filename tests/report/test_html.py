"""Markdown as a page of its own: nothing is loaded from elsewhere, and nothing in a text becomes markup."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from suite.report.comparison_text import linked
from suite.report.html import as_html, slug
from suite.report.markdown import markdown, without_html
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
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize(
    "page",
    ["# <img src=x> 1\n\n| a |\n", "`a` <b>`c` <!-- d -->", "a ``` b <i>", "`a\n\n<b> `", "```text\n<b>\n\n```\n<i>"],
)
def test_a_page_of_markdown_holds_no_tag_where_html_is_allowed(page: str) -> None:
    shown = MarkdownIt("commonmark", {"html": True}).render(without_html(page))
    assert not re.search(r"<(?:img|b|i)\b|<!--", shown)
    assert without_html(without_html(page)) == without_html(page)


def test_slugs_are_those_of_code_hosts() -> None:
    assert slug("Is S what the theory says?") == "is-s-what-the-theory-says"
    assert slug(" Runs of dr_grpo ") == "runs-of-dr_grpo"


def test_numbers_lead_to_the_runs_of_their_row_and_digests_do_not() -> None:
    accuracy, seeds = Number("+4.7 [4.4, 5.0]"), Number("3")
    row = {"model": "fspo − base", "accuracy": accuracy, "card": "575633152000", "n": seeds, "null update": ABSENT}
    cells = markdown(linked(pd.DataFrame([row]))).splitlines()[-1].strip("| ").split(" | ")
    assert cells == ["fspo − base", "[+4.7 [4.4, 5.0]](#runs-of-fspo)", "575633152000", "3", "–"], "the first alone"
