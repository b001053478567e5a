"""One run over several processes: the same steps, checkpoints and results as one process, with torchrun and gloo."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import Tensor

from conftest import REPORTED
from sharded_steps import DTYPES, VARIANTS, all_steps, loaded_learner, moments_of, save_learner, trained_learner
from suite.config import CompareConfig
from suite.experiments.finished import comparison_stages
from suite.experiments.local_jobs import run_together
from suite.experiments.recipes import Changes, resolved
from suite.policy.ranks import ALONE
from suite.records.comparison_folder import claim_folder
from suite.records.packed import read_result
from suite.types import RunResult
from torchrun_processes import torchrun

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("torchrun")]
ROOT = Path(__file__).resolve().parents[2]
NATIVE = "train.portable=false"
BOUNDS = {"float64": 1e-10, "float32": 1e-5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes wrote."""
    place = tmp_path_factory.mktemp("processes")
    save_learner(place / "one.safetensors", trained_learner(ALONE, 2), writes=True)
    done = torchrun("tests/sharded_steps.py", str(place))
    assert done.returncode == 0, done.stdout + done.stderr
    return place


@pytest.fixture(scope="module")
def alone() -> dict[str, Tensor]:
    return all_steps(ALONE)


def distance(a: Tensor, b: Tensor) -> float:
    """|a - b| / |b|, of whole vectors, and 0 for two that are 0."""
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-300))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_take_the_steps_of_one(name: str, dtype: str, folder: Path, alone: Mapping[str, Tensor]) -> None:
    many = load_file(folder / "steps.safetensors")
    assert many.keys() == alone.keys()
    mine = [key for key in alone if key.startswith(f"{name}/{dtype}/")]
    assert len(mine) >= 4 * 6 + 1
    for key in mine:
        if key.endswith("rows"):
            assert torch.equal(many[key], alone[key]), key
        else:
            assert distance(many[key], alone[key]) <= BOUNDS[dtype], key


@pytest.mark.parametrize("dtype", DTYPES)
def test_how_far_apart_the_steps_are(
    dtype: str, folder: Path, alone: Mapping[str, Tensor], record_property: Callable[[str, object], None]
) -> None:
    many = load_file(folder / "steps.safetensors")
    for what in ("losses", "gradient", "weights"):
        keys = [key for key in alone if f"/{dtype}/" in key and key.endswith(what) and "log weights" not in key]
        far, key = max((distance(many[key], alone[key]), key) for key in keys)
        record_property(REPORTED, f"2 processes against 1, {dtype}: {what} at most {far:.1e} apart ({key})")
        assert far <= BOUNDS[dtype]


def test_the_compared_steps_clip_and_move(alone: Mapping[str, Tensor]) -> None:
    """Else their agreement would say little."""
    clipping = {key.partition("/")[0] for key, x in alone.items() if key.endswith("clipped") and x.any()}
    assert len(clipping) > len(VARIANTS) / 2
    assert all(x.any() for key, x in alone.items() if key.endswith("gradient"))
    assert all(x.any() for key, x in alone.items() if key.endswith("log ratios") and "/0 " not in key)


def test_a_checkpoint_of_two_processes_is_one_of_one_process(folder: Path) -> None:
    trained, read = moments_of(trained_learner(ALONE, 2)), loaded_learner(folder / "many.safetensors", ALONE)
    assert read.keys() == trained.keys()
    for name in trained:
        assert distance(read[name], trained[name]) < 1e-4, name
    many, one = load_file(folder / "many.safetensors"), load_file(folder / "one.safetensors")
    assert {name: (x.shape, x.dtype) for name, x in many.items()} == {n: (x.shape, x.dtype) for n, x in one.items()}


def test_two_processes_go_on_from_a_checkpoint_of_one(folder: Path) -> None:
    read, trained = load_file(folder / "read.safetensors"), moments_of(trained_learner(ALONE, 2))
    assert read.keys() == trained.keys()
    for name in trained:
        assert torch.equal(read[name], trained[name]), name


# --- the command ------------------------------------------------------------------------------------


def smoke() -> CompareConfig:
    """The cell that `fspo train smoke --method fspo --steps 2` trains, computed as this process computes."""
    return resolved("smoke", Changes(steps=2, set=(NATIVE,)), ["fspo"])


def test_a_cell_of_two_processes_ends_like_one_of_one(tmp_path: Path) -> None:
    one, many = tmp_path / "one", tmp_path / "many"
    config = smoke()
    claim_folder(config, one, ["fspo"], {})
    run_together(comparison_stages(config, one), ALONE, Console(quiet=True))
    done = torchrun(
        "-m",
        "suite.commands.main",
        "train",
        "smoke",
        "--method",
        "fspo",
        "--steps",
        "2",
        "--set",
        NATIVE,
        "--out",
        str(many),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("fspo seed 0") == 1, "one process prints"
    a, b = (read_result(path / "cells/fspo-seed0") for path in (one, many))
    assert b.environment["processes"] == "2"
    assert b.environment["canary"] == "same"
    assert_same_numbers(a, b)
    weights = [load_file(path / "cells/fspo-seed0/model/model.safetensors") for path in (one, many)]
    assert weights[0].keys() == weights[1].keys()
    for name, x in weights[0].items():
        assert distance(weights[1][name], x) < 1e-4, name
    assert (
        json.loads((many / "comparison.json").read_text())["config"]
        == json.loads((one / "comparison.json").read_text())["config"]
    )


def assert_same_numbers(a: RunResult, b: RunResult) -> None:
    """All that goes into a result's digest, as float32 sums in another order leave it.

    Gradient norms and the like are compared relatively, at more than the bound of a single step: AdamW magnifies the
    rounding of small gradients. Log ratios, which are differences of numbers around 1, and what is made of them are
    compared absolutely.
    """
    assert (a.method, a.seed, a.config) == (b.method, b.seed, b.config)
    assert a.evals == b.evals
    differs = {name for name in a.digests if a.digests[name] != b.digests[name]}
    assert differs <= {"first_rollouts", "final_model"}, "the sampler's log-probs and the weights are rounded"
    assert a.curves.keys() == b.curves.keys()
    for name in a.curves:
        tolerance = 1e-4 if name.startswith("sampler_gap/") else 2e-6
        for x, y in zip(a.curves[name], b.curves[name], strict=True):
            assert (x is None) == (y is None), name
            assert x is None or y == pytest.approx(x, rel=1e-4, abs=tolerance), name


def test_torchrun_is_for_training_alone() -> None:
    done = torchrun("-m", "suite.commands.main", "compare", "smoke", processes=1)
    assert done.returncode != 0
    assert "torchrun is for one training run" in done.stderr


def test_fewer_responses_than_processes_are_refused(tmp_path: Path) -> None:
    words = ("--set", "train.mini_batches=64", "--out", str(tmp_path / "out"))
    done = torchrun("-m", "suite.commands.main", "train", "smoke", "--method", "fspo", "--steps", "1", *words)
    assert done.returncode != 0
    assert "1 responses in an optimizer step for 2 processes" in done.stderr
