"""The benchmark of matrix products: both kinds of process run, and the file says what was measured. No times."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import matrix_products
from suite.types import UserError


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc builds the library")
def test_a_quick_run_writes_both_kinds(tmp_path: Path) -> None:
    matrix_products.run(quick=True, out=tmp_path / "products.json")
    found = json.loads((tmp_path / "products.json").read_text())
    assert found["quick"] is True
    told, plain = found["gflops"][matrix_products.TOLD], found["gflops"][matrix_products.AS_IT_COMES]
    assert len(told) == len(plain) == 1
    assert found["ratios"][0]["ratio"] == told[0] / plain[0]


def test_a_machine_without_gcc_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="gcc is not here"):
        matrix_products.telling_library(tmp_path)
