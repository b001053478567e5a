"""`train.sampler=auto`: what draws faster is measured once, kept, and the same for all cells."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from suite.commands.compare import code_of
from suite.config import CompareConfig
from suite.experiments import sampler_choice
from suite.experiments.recipes import Changes, recipe
from suite.experiments.record_bank import record_rollouts
from suite.experiments.sampler_choice import (
    AUTO,
    Choice,
    SpeedJob,
    require_choice,
    with_engine,
    with_sampler_chosen,
)
from suite.planning.plan_text import planned
from suite.policy.engines import ENGINES
from suite.records.comparison_folder import CONFIG_FILE, claim_folder
from suite.types import UserError
from vllm_here import vllm_is_installed

QUIET = Console(quiet=True)


def automatic() -> CompareConfig:
    config = with_engine(recipe("smoke"), AUTO)
    return replace(config, train=replace(config.train, max_new_tokens=24))


def test_a_named_engine_is_not_measured(tmp_path: Path) -> None:
    config = recipe("smoke")
    assert with_sampler_chosen(config, tmp_path, QUIET) == (config, None)


@pytest.mark.skipif(vllm_is_installed(), reason="vLLM is installed, so there are two engines to measure")
def test_the_only_engine_is_chosen_without_measuring(tmp_path: Path) -> None:
    config, choice = with_sampler_chosen(automatic(), tmp_path, QUIET)
    assert config == with_engine(automatic(), "transformers")
    assert choice == Choice("transformers", {"vllm": "cannot start here", "transformers": "the only engine here"})
    assert "chosen by train.sampler=auto" in choice.words()


def test_the_speed_of_an_engine_is_that_of_drawing_a_first_step(tmp_path: Path) -> None:
    job = SpeedJob(automatic(), "transformers", tmp_path)
    assert not job.done()
    line = job.run()
    assert job.done()
    assert job.speed() > 0
    assert line == f"{job.speed():.0f} tokens/s"


@pytest.mark.parametrize("faster", ENGINES)
def test_the_faster_of_two_engines_is_chosen_and_kept(
    faster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured speeds are given here: both orders must be seen on a machine that has one engine."""
    speeds = {name: 500.0 if name == faster else 100.0 for name in ENGINES}
    monkeypatch.setattr(sampler_choice, "require_engine", lambda *_, **__: None)
    monkeypatch.setattr(sampler_choice, "run_jobs", lambda *_: None)
    monkeypatch.setattr(SpeedJob, "speed", lambda job: speeds[job.engine])
    config, choice = with_sampler_chosen(automatic(), tmp_path, QUIET)
    assert config.train.sampler == faster
    assert choice == Choice(faster, speeds)
    assert choice.words().startswith(f"sampler: {faster}, chosen by train.sampler=auto (")
    assert "500 tokens/s" in choice.words()

    claim_folder(config, tmp_path, ["fspo"], code_of(config), sampler_choice=choice.facts())
    monkeypatch.setattr(SpeedJob, "speed", lambda job: 1000 - speeds[job.engine])
    assert with_sampler_chosen(automatic(), tmp_path, QUIET) == (config, choice)


def test_processes_of_torchrun_cannot_choose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler_choice, "under_torchrun", lambda: True)
    with pytest.raises(UserError, match=r"train\.sampler=auto: not under torchrun"):
        with_sampler_chosen(automatic(), tmp_path, QUIET)


def test_machines_of_a_cluster_cannot_choose() -> None:
    with pytest.raises(UserError, match=r"train\.sampler=auto: not on Ray"):
        require_choice(automatic(), on_ray=True)
    require_choice(recipe("smoke"), on_ray=True)


def test_an_engine_that_does_not_start_leaves_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_jobs(stages: Sequence[Sequence[SpeedJob]], *rest: object) -> None:
        if stages[0][0].engine == "vllm":
            raise UserError("no room for keys and values")

    monkeypatch.setattr(sampler_choice, "require_engine", lambda *_, **__: None)
    monkeypatch.setattr(sampler_choice, "run_jobs", run_jobs)
    monkeypatch.setattr(SpeedJob, "speed", lambda job: 100.0)
    config, choice = with_sampler_chosen(automatic(), tmp_path, QUIET)
    assert config.train.sampler == "transformers"
    assert choice is not None
    assert choice.measured == {
        "transformers": 100.0,
        "vllm": "does not start here: no room for keys and values",
    }


def test_a_folder_with_something_else_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty and no comparison"):
        with_sampler_chosen(automatic(), tmp_path, QUIET)


def test_a_bank_wants_its_engine_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a bank is added to later"):
        record_rollouts(automatic(), tmp_path / "bank", "none", ["fspo"], QUIET)


def test_a_plan_takes_what_the_device_is_likely_to_choose() -> None:
    changes = Changes(set=("train.sampler=auto",))
    for device, engine in (("cpu", "transformers"), ("h100-80gb", "vllm")):
        named = planned("smoke", Changes(set=(f"train.sampler={engine}",)), device, 1, None)
        automatically = planned("smoke", changes, device, 1, None)
        assert [lines for *_, lines in named[1:-1]] == [lines for *_, lines in automatically[1:-1]]


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.xdist_group("vllm")
@pytest.mark.skipif(not vllm_is_installed(), reason="vLLM is not installed: make test-vllm brings it")
def test_both_engines_are_measured_where_both_can_start(tmp_path: Path) -> None:
    config, choice = with_sampler_chosen(automatic(), tmp_path, QUIET)
    assert choice is not None
    speeds = {name: speed for name, speed in choice.measured.items() if isinstance(speed, float)}
    assert speeds.keys() == set(ENGINES)
    assert config.train.sampler == choice.engine == max(speeds, key=lambda name: speeds[name])


@pytest.mark.slow
def test_a_comparison_records_how_its_sampler_was_chosen(tmp_path: Path) -> None:
    words = [
        "compare",
        "smoke",
        "--set",
        "train.sampler=auto",
        "train.steps=1",
        "evaluation.limit=2",
        "--methods",
        "grpo",
    ]
    command = [sys.executable, "-m", "suite.commands.main", *words, "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "chosen by train.sampler=auto" in done.stdout
    found = json.loads((tmp_path / "out" / CONFIG_FILE).read_text())
    assert found["config"]["train"]["sampler"] == found["sampler_choice"]["engine"]
    assert set(found["sampler_choice"]["measured"]) == set(ENGINES)
