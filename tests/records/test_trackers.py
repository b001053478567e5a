"""Trackers show the numbers of metrics.jsonl, each step once, and change nothing, whatever they do or fail in."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from small_world import small_config, small_trainer
from strategies import METHODS
from suite.config import CompareConfig, plain_data
from suite.experiments.recipes import Changes, recipe, resolved
from suite.experiments.settings import with_options
from suite.records.comparison_folder import claim_folder
from suite.records.result import curves_of
from suite.records.run_log import read_log
from suite.records.trackers import Tracked, Trackers, keep_page, without_step
from suite.types import UserError

ABOUT = Tracked("comparison-1", "grpo seed 0", {"steps": 4, "digests": {"card": "abc"}})
STEPS = 4
with_wandb = pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed (the extra trackers)")
external = pytest.mark.external


class Interrupted(Exception):
    pass


def trained(
    folder: Path, *names: str, stop: int | None = None, broken: int | None = None, killed: int | None = None
) -> Any:
    """A trainer that ran with these trackers: stopped or killed after a step, or TensorBoard's file closed there."""
    with Trackers(names, folder, ABOUT) as trackers:

        def on_step(step: int, numbers: object) -> None:
            if step == killed:
                os.kill(os.getpid(), signal.SIGKILL)
            if step == broken:
                trackers.opened["tensorboard"].close(failed=False)
            if step == stop:
                raise Interrupted

        trainer = small_trainer(METHODS["grpo"], folder, small_config(steps=STEPS), on_step=on_step, trackers=trackers)
        trainer.run()
    return trainer


def shown_by_tensorboard(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def in_log(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    rows = read_log(folder)
    return {n: [(int(row["step"]), pytest.approx(row[n], rel=1e-6)) for row in rows] for n in without_step(rows[0])}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run without trackers."""
    return trained(tmp_path_factory.mktemp("plain"))


def same_training(one: Any, other: Any) -> bool:
    weights = zip(one.source.model.parameters(), other.source.model.parameters(), strict=True)
    return curves_of(read_log(one.folder)) == curves_of(read_log(other.folder)) and all(
        torch.equal(a, b) for a, b in weights
    )


# --- TensorBoard ----------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [("tensorboard",), ()])
def test_tensorboard_shows_the_numbers_of_the_log_of_a_resumed_run(before: Sequence[str], plain: Any, tmp_path: Path):
    with pytest.raises(Interrupted):
        trained(tmp_path, *before, stop=2)
    resumed = trained(tmp_path, "tensorboard")
    assert shown_by_tensorboard(tmp_path) == in_log(tmp_path)
    assert len(read_log(tmp_path)) == STEPS
    assert same_training(resumed, plain)


def test_a_tracker_that_fails_in_the_middle_is_given_up_with_one_line(
    plain: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert same_training(trained(tmp_path, "tensorboard", broken=1), plain)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("grpo seed 0: no more tensorboard, training goes on: AssertionError")
    assert max(step for step, _ in shown_by_tensorboard(tmp_path)["reward/mean"]) == 1


def test_a_tracker_that_cannot_begin_is_given_up_with_one_line(
    plain: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tensorboard").write_text("a file in the place of the folder")
    assert same_training(trained(tmp_path, "tensorboard"), plain)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("grpo seed 0: no more tensorboard, training goes on: ")


# --- settings -------------------------------------------------------------------------------------


def tracking(*names: str) -> CompareConfig:
    return with_options(recipe("smoke"), [f"train.trackers={','.join(names) or 'none'}"])


def test_trackers_are_no_part_of_what_a_folder_or_a_result_records(tmp_path: Path) -> None:
    assert tracking("wandb", "tensorboard").train.trackers == ("wandb", "tensorboard")
    assert tracking().train.trackers == ()
    assert plain_data(tracking("wandb")) == plain_data(tracking()) == plain_data(recipe("smoke"))
    assert "trackers" not in plain_data(tracking("wandb").train)
    claim_folder(tracking(), tmp_path, ["fspo"], {})
    claim_folder(tracking("wandb"), tmp_path, ["fspo"], {})
    with pytest.raises(UserError, match="trackers"):
        tracking("wandb", "wandb")
    with pytest.raises(UserError, match="did you mean wandb"):
        tracking("wand")


@pytest.mark.skipif(find_spec("wandb") is not None, reason="wandb is installed")
def test_a_tracker_that_is_not_installed_is_refused_before_anything_is_trained() -> None:
    with pytest.raises(UserError, match=r"wandb is not installed; run `pip install .*\[trackers\]'`"):
        resolved("smoke", Changes(set=("train.trackers=tensorboard,wandb",)))


# --- Weights & Biases, the real one, offline ------------------------------------------------------


def records(file: Path) -> Iterator[Any]:
    """What an offline file holds. It is a LevelDB log, blocks of 32 KiB, whose entries are wandb's protobuf records."""
    from wandb.proto.wandb_internal_pb2 import Record  # pyright: ignore[reportMissingImports]

    data, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (room := 32768 - place % 32768) < 7:
            place += room
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a full entry, or the last part of one
            yield Record.FromString(whole)
            whole = b""


def offline_files(folder: Path) -> list[Path]:
    return sorted((folder / "wandb").glob("offline-run-*/*.wandb"))


def plainly(items: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def history(file: Path) -> list[dict[str, float]]:
    """The logged steps of an offline run, without wandb's own clocks."""
    rows = [plainly(record.history.item) for record in records(file) if record.WhichOneof("record_type") == "history"]
    return [{"step": row.pop("_step"), **{k: x for k, x in row.items() if not k.startswith("_")}} for row in rows]


def same_rows(one: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]]) -> bool:
    """Whether all numbers are equal, and what is no number in one is none in the other."""

    def plain(rows: Sequence[Mapping[str, float]]) -> list[dict[str, float | None]]:
        return [{k: None if math.isnan(float(x)) else float(x) for k, x in row.items()} for row in rows]

    return plain(one) == plain(other)


@external
@with_wandb
def test_wandb_has_the_numbers_of_the_log_after_a_kill_and_a_resumption(
    plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    program = (
        "import sys; from pathlib import Path; sys.path[:0] = sys.argv[2:]\n"
        "from test_trackers import trained\n"
        "trained(Path(sys.argv[1]), 'wandb', killed=2)\n"
    )
    here = Path(__file__).parent
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path), str(here), str(here.parent)])
    assert killed.returncode == -signal.SIGKILL
    (first,) = offline_files(tmp_path)
    resumed = trained(tmp_path, "wandb")
    (file,) = offline_files(tmp_path)
    assert (file.name, file != first) == (first.name, True)
    assert same_rows(history(file), read_log(tmp_path))
    assert len(read_log(tmp_path)) == STEPS
    assert same_training(resumed, plain)


@external
@with_wandb
def test_wandb_is_told_group_settings_digests_and_what_came_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    (tmp_path / "report.html").write_text("<p>page</p>")
    with Trackers(("wandb",), tmp_path / "cell", ABOUT) as trackers:
        trackers.begin([{"step": 0, "reward/mean": 0.25}])
        trackers.conclude({"accuracy": 0.5, "digest/result": "d1"})
    keep_page(("tensorboard", "wandb"), tmp_path, Tracked("comparison-1", "report", {}), tmp_path / "report.html")
    (cell,), (page,) = offline_files(tmp_path / "cell"), offline_files(tmp_path)
    run = next(r.run for r in records(cell) if r.WhichOneof("record_type") == "run")
    assert (run.run_group, run.display_name, run.project) == ("comparison-1", "grpo seed 0", "fspo")
    assert {"steps": 4, "digests": {"card": "abc"}}.items() <= plainly(run.config.update).items()
    told = [plainly(r.summary.update) for r in records(cell) if r.WhichOneof("record_type") == "summary"]
    assert {"accuracy": 0.5, "digest/result": "d1"}.items() <= {k: x for one in told for k, x in one.items()}.items()
    kept = [r.artifact for r in records(page) if r.WhichOneof("record_type") == "artifact"]
    kept += [r.request.log_artifact.artifact for r in records(page) if r.WhichOneof("record_type") == "request"]
    assert [(one.name, one.type) for one in kept if one.name] == [("comparison-1-report", "report")]
    assert not (tmp_path / "tensorboard").exists()
