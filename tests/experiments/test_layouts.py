"""Who computes where: a worker a core or a device, devices dealt round robin, an engine of vLLM alone on its own."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from suite.commands import main
from suite.config import VllmConfig
from suite.experiments import layouts
from suite.experiments.layouts import VISIBLE, Layout, layout_for, processes_words, visible_devices
from suite.experiments.recipes import recipe
from suite.types import UserError

CORES = os.cpu_count() or 1
DEMO = recipe("demo").train
VLLM = replace(DEMO, sampler="vllm", portable=False)


@pytest.fixture
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that says it has eight GPUs."""
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)


@pytest.fixture
def nothing_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No number of threads in the environment."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.usefixtures("nothing_asked")
def test_jobs_share_the_cores_where_there_are_no_devices() -> None:
    assert Layout.of(1) == Layout(1, CORES)
    assert Layout.of(100) == Layout(CORES, 1)
    assert Layout.of(100, workers=3).workers == 3
    assert str(Layout(2, 1)) == "2 processes x 1 threads"
    assert layout_for(VLLM, 100) == Layout(CORES, 1)


@pytest.mark.parametrize(
    ("value", "threads"), [("1", 1), ("3", 3), (" 3,2", 3), ("", 5), ("0", 5), ("-1", 5), ("many", 5)]
)
def test_threads_that_the_user_asks_for_win(monkeypatch: pytest.MonkeyPatch, value: str, threads: int) -> None:
    """What OpenMP itself would not take leaves the cores to be shared."""
    monkeypatch.setattr(layouts.os, "cpu_count", lambda: 10)
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert Layout.of(2) == Layout(2, threads)
    assert Layout.of(2, None, ("0", "1")).threads == threads


@pytest.mark.usefixtures("eight", "nothing_asked")
def test_there_is_a_worker_a_device_and_no_more_than_jobs() -> None:
    assert layout_for(DEMO, 15) == Layout(8, max(1, CORES // 8), tuple("01234567"))
    assert layout_for(DEMO, 3).devices == ("0", "1", "2")
    assert layout_for(DEMO, 15, workers=2).devices == ("0", "1")


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 9))
def test_more_workers_than_devices_are_dealt_round_robin(jobs: int, workers: int, count: int) -> None:
    seen = Layout.of(jobs, workers, tuple(f"GPU-{i}" for i in range(count))).devices
    assert len(seen) == min(jobs, workers)
    loads = [seen.count(f"GPU-{i}") for i in range(count)]
    assert max(loads) - min(loads) <= 1
    assert seen[:count] == tuple(f"GPU-{i}" for i in range(min(len(seen), count)))


@pytest.mark.usefixtures("eight")
def test_engines_of_vllm_have_their_devices_to_themselves() -> None:
    assert layout_for(VLLM, 15).workers == 8
    with pytest.raises(UserError, match=r"--workers 9: every worker starts an engine of vLLM.* at most 8, or --set"):
        layout_for(VLLM, 15, workers=9)
    assert layout_for(VLLM, 3, workers=9).workers == 3, "three cells start three engines"
    wide = replace(VLLM, vllm=VllmConfig(tensor_parallel_size=3))
    assert layout_for(wide, 15).devices == ("0,1,2", "3,4,5")
    assert layout_for(replace(wide, sampler="transformers"), 15).workers == 8
    with pytest.raises(UserError, match="at most 2"):
        layout_for(wide, 15, workers=3)
    with pytest.raises(UserError, match=r"tensor_parallel_size = 16: a cell takes 16 devices, and 8 can be seen"):
        layout_for(replace(VLLM, vllm=VllmConfig(tensor_parallel_size=16)), 15)


def test_no_workers_are_refused() -> None:
    with pytest.raises(UserError, match="--workers 0: at least 1"):
        Layout.of(3, workers=0)


@pytest.mark.parametrize(
    ("said", "count", "seen"),
    [
        (None, 2, ("0", "1")),
        ("3,1", 2, ("3", "1")),
        ("GPU-8f, GPU-2c", 2, ("GPU-8f", "GPU-2c")),
        ("4,5,99", 2, ("4", "5")),  # CUDA stops at the first that is not there
        ("", 0, ()),
        ("-1", 0, ()),
        (None, 0, ()),
    ],
)
def test_devices_are_named_as_the_user_named_them(
    said: str | None, count: int, seen: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    if said is not None:
        monkeypatch.setenv(VISIBLE, said)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert visible_devices() == seen


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["fspo", *words])
    main.main()
    return capsys.readouterr().out


@pytest.mark.usefixtures("eight", "nothing_asked")
def test_a_dry_run_on_eight_devices_shows_eight_workers_with_their_devices(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ("compare", "demo", "--dry-run", "--out", str(tmp_path / "out"))
    said = printed(capsys, monkeypatch, *words)
    each = "1: 0; 2: 1; 3: 2; 4: 3; 5: 4; 6: 5; 7: 6; 8: 7"
    assert f"workers: 8 processes x {max(1, CORES // 8)} threads, a device of its own for each ({each})" in said
    monkeypatch.setenv(VISIBLE, "GPU-a,GPU-b")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    said = printed(capsys, monkeypatch, *words, "--workers", "3")
    assert "3 processes x" in said
    assert "devices dealt round robin (1: GPU-a; 2: GPU-b; 3: GPU-a)" in said
    assert "workers: 1 processes" in printed(
        capsys, monkeypatch, "train", "demo", "--method", "fspo", "--dry-run", "--out", str(tmp_path / "out")
    )
    assert not (tmp_path / "out").exists()


def test_processes_of_one_run_have_a_device_each(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processes_words(2) == "2 processes share a cell, on the CPU"
    monkeypatch.setenv(VISIBLE, "6,7")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert processes_words(2) == "2 processes share a cell, a device each (6, 7)"


def test_options_of_a_cluster_are_refused_in_a_dry_run_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["fspo", "compare", "smoke", "--dry-run", "--gpus-per-cell", "0.5"])
    with pytest.raises(SystemExit):
        main.main()
    assert "are for --on ray" in capsys.readouterr().err
