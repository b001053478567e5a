"""The demo's page as people look at it: in a headless Chromium, wide and on a phone; skips where none is installed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from browser import CHROMIUM, Browser, browser
from suite.findings.comparison import Comparison
from suite.report.first_look import comparison_look, main_figures
from suite.report.html import as_html
from suite.report.style import save_svg
from suite.statistics.compare import Estimates

DEMO = Path(__file__).parents[2] / "results" / "demo"
WIDE, PHONE = 1280, 400
LARGEST = 3_000_000
"""Bytes of a page."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made from the committed tables and text: replaying for them takes a minute, and another test does it."""
    folder = tmp_path_factory.mktemp("page")
    report = Comparison.at(DEMO)
    names = {"accuracies": "accuracy", "differences": "differences", "by_seed": "by_seed", "pairing": "pairing"}
    tables = {field: pd.read_csv(DEMO / f"{name}.csv") for field, name in names.items()}
    fairness = pd.read_csv(DEMO / "fairness.csv")
    replayed = {"by_length": pd.read_csv(DEMO / "clip_by_length.csv"), "fairness": fairness, "growth_bins": fairness}
    vars(report).update(
        statistics=Estimates(**tables),
        fairness=fairness,
        updates=SimpleNamespace(ratios_moved=True),
        arena=SimpleNamespace(matched=report.methods, **replayed),
    )
    for picture in DEMO.glob("*.png"):
        shutil.copy(picture, folder)
    shutil.copy(DEMO / "growth.png", folder / "training.png")  # which is not committed
    for name, figure in main_figures(report).items():
        save_svg(figure, folder / f"{name}.svg")
    (folder / "report.html").write_text(
        as_html((DEMO / "report.md").read_text(), folder, comparison_look(report, folder))
    )
    return folder / "report.html"


@pytest.fixture(scope="module")
def window(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs chromium, chromium-browser or google-chrome")
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


def test_a_page_is_small_and_begins_with_five_sentences(page: Path) -> None:
    text = page.read_text()
    assert page.stat().st_size < LARGEST
    assert text[: text.index("<figure")].count("<li>") == 5
    assert text[: text.index("<details>")].count("<figure") == 3


@pytest.mark.external
@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_nothing_is_loaded_nothing_fails_and_nothing_sticks_out(page: Path, window: Browser, width: int) -> None:
    """Folded and unfolded: the page is as wide as its window, and it alone is asked for."""
    window.open(page, width=width)
    assert window.value("document.querySelectorAll('details[open]').length") == 0
    assert window.value("document.documentElement.scrollWidth <= innerWidth")
    window.value("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert window.value("document.documentElement.scrollWidth <= innerWidth")
    told = window.events
    asked = [one["params"]["request"]["url"] for one in told if one["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith("data:")] == [f"file://{page}"]
    loud = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
    assert [one for one in told if one["method"] in loud] == []


@pytest.mark.external
@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_a_figure_is_seen_in_grey_and_is_as_wide_as_its_text_needs(page: Path, window: Browser, width: int) -> None:
    """Of each figure the version for that width is there, at nine tenths of its drawn size or more."""
    window.open(page, width=width)
    boxes = window.value(
        "[...document.querySelectorAll('body > figure svg')].map((svg) => "
        "[svg.getBoundingClientRect().width, svg.viewBox.baseVal.width])"
    )
    seen = [(shown, drawn) for shown, drawn in boxes if shown]
    assert len(seen) == 3
    assert all(shown >= 0.9 * drawn for shown, drawn in seen)
    window.call("Emulation.setEmulatedVisionDeficiency", type="achromatopsia")
    window.value("document.querySelector('#figure-accuracy').scrollIntoView()")
    shown = window.picture().astype(int)
    window.call("Emulation.setEmulatedVisionDeficiency", type="none")
    assert np.ptp(shown, axis=2).max() <= 8, "grey"
    assert np.mean(shown.min(axis=2) < 200) > 0.005, "not blank"


@pytest.mark.external
def test_a_link_into_a_folded_section_opens_it(page: Path, window: Browser) -> None:
    """From elsewhere, and from a table of the page; other sections stay closed."""
    opened = "[...document.querySelectorAll('details[open] > summary h2')].map((one) => one.id)"
    window.open(page, "#runs-of-fspo")
    assert window.value(opened) == ["the-runs"]
    window.open(page)
    window.value("document.querySelector('#accuracy').closest('details').open = true")
    window.value("document.querySelector('td a[href=\"#runs-of-gspo\"]').click()")
    assert window.value(f"new Promise((done) => setTimeout(() => done({opened}), 100))") == ["accuracy", "the-runs"]
    assert 0 <= window.value("document.querySelector('#runs-of-gspo').getBoundingClientRect().top") < 1000


@pytest.mark.external
def test_a_mark_is_read_by_pointing_at_it(page: Path, window: Browser) -> None:
    window.open(page)
    marks = "[...document.querySelectorAll('#figure-accuracy .wide g:has(> title)')]"
    find = f"{marks}.find((one) => one.textContent.startsWith('fspo, mean of sets'))"
    window.value(f"{find}.scrollIntoView({{block: 'center'}})")
    x, y, width, height = window.value(
        f"(({{x, y, width, height}}) => [x, y, width, height])({find}.getBoundingClientRect())"
    )
    window.call("Input.dispatchMouseEvent", type="mouseMoved", x=x + width / 2, y=y + height / 2)
    row = pd.read_csv(DEMO / "accuracy.csv").set_index(["method", "task"]).loc[("fspo", "mean")]
    said = window.value("document.querySelector('#figure-accuracy output').textContent")
    assert said == "fspo, mean of sets: {:.1f} [{:.1f}, {:.1f}] %".format(*(100 * row[["accuracy", "low", "high"]]))


@pytest.mark.external
def test_printing_shows_everything_and_folds_it_again(page: Path, window: Browser) -> None:
    window.open(page)
    count = "document.querySelectorAll('details:not([open])').length"
    folded = window.value(count)
    assert folded > 10
    window.value("dispatchEvent(new Event('beforeprint'))")
    assert window.value(count) == 0
    window.value("dispatchEvent(new Event('afterprint'))")
    assert window.value(count) == folded
