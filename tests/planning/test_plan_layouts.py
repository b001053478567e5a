"""One answer of a plan: what fits, in how many hours, and a command that can be started."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from suite.commands import main
from suite.experiments.layouts import VISIBLE, layout_for
from suite.experiments.recipes import recipe
from suite.experiments.settings import with_options
from suite.planning import dry_run
from suite.planning.cost_model import Lengths
from suite.planning.devices import device_named
from suite.planning.memory_model import total_gib
from suite.planning.model_shapes import model_shape
from suite.planning.plan_layouts import CellLayout, Planned, best, cell_layouts
from suite.policy.ranks import Ranks
from torchrun_processes import torchrun

LENGTHS = Lengths(prompt=200, longest_prompt=1000, response=2048, limit=4096, source="")
HUB = ("--model", "Qwen/Qwen3-0.6B")


def plan(name: str, device: str, count: int, *options: str, model: str | None = None) -> Planned:
    """A plan of a recipe whose methods have no critic, but for PPO."""
    config = with_options(recipe(name), options)
    shape = model_shape(model or config.train.model)
    critics = {method: method == "ppo" for method in config.methods}
    return Planned(config, shape, device_named(device), count, LENGTHS, 900, critics)


def chosen(*words: str, **more: str) -> CellLayout | None:
    name, device, count, *options = words
    return best(cell_layouts(plan(name, device, int(count), *options, **more)))


# --- what fits ------------------------------------------------------------------------------------


def test_eight_billion_parameters_take_all_devices_and_smaller_models_one_each() -> None:
    """16 bytes each of 8.19e9 parameters are 122 GiB, of 1.72e9 25.6 GiB; a device has 78."""
    large, small = chosen("qwen3-8b-dapo", "h100-80gb", "8"), chosen("qwen3-1.7b-dapo", "h100-80gb", "8")
    assert large is not None
    assert (large.at_once, large.processes) == (1, 8)
    assert small is not None
    assert (small.at_once, small.processes) == (8, 1)
    assert chosen("qwen3-8b-dapo", "h100-80gb", "1") is None
    adapters = chosen("qwen3-8b-dapo", "h100-80gb", "8", "train.lora_rank=32")
    assert adapters is not None
    assert adapters.processes == 1, "adapters need no second device"


def test_an_engine_that_does_not_sleep_counts_all_the_time() -> None:
    need = {}
    for sleep in ("true", "false"):
        layouts = cell_layouts(plan("qwen3-8b-dapo", "h100-80gb", 8, f"train.vllm.sleep={sleep}"))
        need[sleep] = [total_gib(layout.phases(False)["update"]) for layout in layouts]
    for asleep, awake in zip(need["true"], need["false"], strict=True):
        assert awake - asleep == pytest.approx(0.45 * 78 - 0.5)


def test_what_stands_in_the_way_is_said() -> None:
    few = plan("qwen3-8b-dapo", "h100-80gb", 8, "train.mini_batches=128")  # 512 responses, 4 an optimizer step
    assert cell_layouts(few)[1].obstacles == ["4 responses in an optimizer step for 8 processes"]
    wide = cell_layouts(plan("qwen3-8b-dapo", "h100-80gb", 8, "train.vllm.tensor_parallel_size=4"))
    assert [(layout.at_once, layout.devices) for layout in wide] == [(2, 4), (1, 1)]
    assert "torchrun starts an engine a process" in wide[1].obstacles[0]
    tight = cell_layouts(plan("qwen3-8b-dapo", "h100-80gb", 8, "train.vllm.gpu_memory_utilization=0.1"))
    assert "does not hold its weights and a response: 16" in tight[1].obstacles[0]
    assert cell_layouts(plan("qwen3-8b-dapo", "h100-80gb", 1, "train.vllm.tensor_parallel_size=4")) == []


def test_hours_are_those_of_rounds_of_cells_and_of_all_devices() -> None:
    """Fifteen cells on eight devices take two rounds; on all devices together they take one after another."""
    here = plan("qwen3-1.7b-dapo", "h100-80gb", 8)
    apart, together = cell_layouts(here)
    assert apart.hours == pytest.approx(apart.cell_hours * 2 / 15)
    assert apart.device_hours == pytest.approx(apart.cell_hours)
    assert together.hours == pytest.approx(together.cell_hours)
    assert together.device_hours == pytest.approx(8 * together.hours)
    assert apart.cell_hours / 8 <= together.cell_hours < apart.cell_hours


def test_cells_side_by_side_on_a_cpu_share_its_memory() -> None:
    """As many as find room there beside each other, two of them on two cores at most."""
    here = plan("demo", "cpu", 1, "train.tokens_per_micro_batch=512", model="smollm2")
    here = replace(here, lengths=Lengths(prompt=7, longest_prompt=8, response=48, limit=96, source=""))
    one = CellLayout(here, 1).need_gib
    at_once = {}
    for factor in (0.5, 1.5, 2.5, 9.5):
        room = replace(here, device=replace(here.device, memory_gib=factor * one))
        (layout,) = cell_layouts(room)
        assert layout.need_gib == pytest.approx(layout.at_once * one)
        at_once[factor] = layout.at_once if layout.fits else 0
    assert at_once == {0.5: 0, 1.5: 1, 2.5: 2, 9.5: 2}


def test_compare_starts_as_many_cells_as_the_plan_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)
    for count in (1, 3, 8):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        for name in ("qwen3-1.7b-dapo", "hispo-1.7b"):
            here = plan(name, "h100-80gb", count)
            assert cell_layouts(here)[0].at_once == layout_for(here.config.train, here.cells).workers


# --- the command that is printed ------------------------------------------------------------------


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    monkeypatch.setattr(sys, "argv", ["fspo", *words])
    main.main()
    return capsys.readouterr().out


def command_in(text: str) -> list[str]:
    """The words of the command that a plan says to start."""
    (found,) = re.findall(r"^Start it with: (.*)$", text, re.MULTILINE)
    return shlex.split(found)


def passes(command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, out: Path) -> str:
    """What the command says as a dry run, in this process in the place of the leading one of those it starts."""
    if command[0] == "torchrun":
        count = int(command[command.index("--nproc-per-node") + 1])
        assert command[3:5] == ["--no-python", "fspo"]
        words = command[5:]
        monkeypatch.setattr("suite.policy.ranks.ranks_here", lambda: Ranks(0, count, sharded=True))
        monkeypatch.setattr("suite.policy.ranks.leave", lambda ranks: None)
    else:
        words = command[1:]
    return printed(capsys, monkeypatch, *words, "--dry-run", "--out", str(out))


@pytest.mark.parametrize(
    ("words", "starts"),
    [
        (("demo",), "fspo compare demo --workers 2"),
        (("demo", "--device", "h100-80gb", "--count", "8", *HUB), "fspo compare demo --workers 8 --model Qwen/"),
        (
            ("demo", "--device", "h200", "--count", "8", "--model", "Qwen/Qwen3-8B"),
            "torchrun --nproc-per-node 8 --no-python fspo",
        ),
        (
            ("demo", "--device", "h100-80gb", "--count", "2", *HUB, "--set", "train.steps=9", "fspo.c_low=0.05"),
            "fspo compare demo --workers 2 --model Qwen/Qwen3-0.6B --set train.steps=9 fspo.c_low=0.05",
        ),
    ],
)
def test_the_command_of_a_plan_passes_a_dry_run(
    words: tuple[str, ...],
    starts: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    command = command_in(printed(capsys, monkeypatch, "plan", *words))
    assert shlex.join(command).startswith(starts)
    said = passes(command, capsys, monkeypatch, tmp_path / "out")
    assert said.splitlines()[-1] == f"would run demo in {tmp_path / 'out'}"
    if command[0] == "torchrun":
        assert "workers: 8 processes share a cell" in said
        assert "1 methods x 1 seeds = 1 cells" in said


@pytest.mark.external
def test_the_paper_s_larger_model_has_one_consistent_answer(
    shared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What vLLM needs of a machine is asked elsewhere: here it counts as installed."""
    monkeypatch.setattr(dry_run, "require_engine", lambda *given, **named: None)
    words = ("qwen3-8b-dapo", "--device", "h100-80gb", "--count", "8", "--data-dir", str(shared / "data"))
    text = printed(capsys, monkeypatch, "plan", *words)
    assert "side by side: " not in text
    assert re.search(r"on one device: does not fit into 78 GiB", text)
    assert re.search(r"on each of 8 devices: fits", text)
    command = command_in(text)
    assert command[:3] == ["torchrun", "--nproc-per-node", "8"]
    said = passes(command, capsys, monkeypatch, tmp_path / "out")
    assert "model: Qwen/Qwen3-8B-Base, " in said
    assert "workers: 8 processes share a cell" in said


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.xdist_group("torchrun")
def test_torchrun_itself_takes_a_dry_run(tmp_path: Path) -> None:
    words = ("train", "smoke", "--method", "fspo", "--dry-run", "--out", str(tmp_path / "out"))
    done = torchrun("-m", "suite.commands.main", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("workers: 2 processes share a cell, on the CPU") == 1, "one process prints"
    assert not (tmp_path / "out").exists()
