"""Where a number was made: libraries that are loaded before all others stand in the record."""

from __future__ import annotations

import pytest

from suite.records.provenance import machine


def test_preloaded_libraries_are_recorded_by_name_and_nothing_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    plain = machine()
    assert "preloaded" not in plain
    monkeypatch.setenv("LD_PRELOAD", "/somewhere/mkl_avx512.so:/elsewhere/libjemalloc.so.2")
    assert machine() == plain | {"preloaded": "mkl_avx512.so libjemalloc.so.2"}
