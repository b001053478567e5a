"""The page of the methods, baselines/README.md: a row and a section for each, with today's numbers."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from strategies import METHODS
from suite.methods.trial_batches import batch_for, judged

PAGE = (Path(__file__).resolve().parents[2] / "baselines" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_section_with_todays_numbers(name: str) -> None:
    sections = re.split(r"^#{2,3} ", PAGE, flags=re.MULTILINE)
    found = [section for section in sections if section.splitlines()[0].strip() == name]
    assert len(found) == 1, f"baselines/README.md has {len(found)} sections {name}"
    for field in dataclasses.fields(METHODS[name].hyper):
        row = f"| {field.name} | {getattr(METHODS[name].hyper, field.name)} | {field.metadata['provenance']} |"
        assert row in found[0], row
    assert "J_i" in found[0]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_a_row_that_says_how_it_clips_and_what_divides_it(name: str) -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| [{name}](#{name}) |")]
    assert len(rows) == 1, f"baselines/README.md has {len(rows)} rows of {name} in its table of methods"
    _, _weight, _band, divided_by, _advantage, clip, growth = (cell.strip() for cell in rows[0].strip("|").split(" | "))
    method = METHODS[name]
    assert clip == method.clip
    assert growth.replace("(t)", "(L)") == method.growth
    assert divided_by.removeprefix("own length, ") == judged(method, batch_for(method, 0)).divisor
