"""Cells on a Ray cluster of two machines, one of which is killed: they end as they would have anywhere."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from rich.console import Console
from test_local_jobs import Toy

from conftest import REPORTED
from suite.commands.arguments import Where
from suite.commands.compare import run_comparison
from suite.config import CompareConfig
from suite.experiments.finished import comparison_stages
from suite.experiments.local_jobs import run_together
from suite.experiments.ray_jobs import ATTEMPTS, _gpus, run_jobs_on_ray
from suite.experiments.recipes import Changes, resolved
from suite.policy.ranks import ALONE
from suite.records.comparison_folder import claim_folder
from suite.records.packed import read_result
from suite.records.result import digest
from suite.records.run_log import read_log
from suite.types import UserError

CELLS = ("grpo-seed0", "fspo-seed0")


def test_without_ray_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suite.experiments.ray_jobs.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^--on ray: Ray is not installed; run `make install-ray`"):
        run_jobs_on_ray([], Console(quiet=True))


def test_options_of_a_cluster_are_refused_without_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--gpus-per-cell and --ray-address are for --on ray"):
        run_comparison(smoke(), tmp_path, Where(gpus_per_cell=0.5))


def smoke() -> CompareConfig:
    """Two cells; long enough for one of them to be killed between two checkpoints."""
    return resolved(
        "smoke", Changes(steps=4, set=("train.portable=false",)), [cell.partition("-")[0] for cell in CELLS]
    )


class Nodes:
    """What `_gpus` asks of Ray: a cluster of one machine without GPUs and one with some."""

    def __init__(self, gpus: int) -> None:
        self.gpus = gpus

    def nodes(self) -> list[dict[str, Any]]:
        """As ray.nodes() lists them, a dead machine among them."""
        return [
            {"Alive": True, "Resources": {"CPU": 4.0}},
            {"Alive": True, "Resources": {"CPU": 4.0, "GPU": float(self.gpus)} if self.gpus else {"CPU": 4.0}},
            {"Alive": False, "Resources": {"GPU": 64.0}},
        ]


def test_a_cell_takes_a_gpu_where_there_is_one_and_an_engine_whole_ones() -> None:
    assert _gpus(Nodes(0), None) == 0
    assert _gpus(Nodes(0), None, engine=1) == 0, "vLLM for a CPU"
    assert _gpus(Nodes(8), None) == 1
    assert _gpus(Nodes(8), 0.25) == 0.25
    assert _gpus(Nodes(8), None, engine=1) == 1
    assert _gpus(Nodes(8), None, engine=4) == 4
    assert _gpus(Nodes(8), 1.0, engine=1) == 1
    with pytest.raises(UserError, match=r"--gpus-per-cell 0\.5: a cell with vLLM takes 1, all of it"):
        _gpus(Nodes(8), 0.5, engine=1)
    with pytest.raises(UserError, match="tensor_parallel_size = 4: no machine of the cluster has so many GPUs"):
        _gpus(Nodes(2), None, engine=4)


needs_ray = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: make test-ray brings it")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without cores for cells, and two machines with one core each that can import these tests' jobs."""
    import ray
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster, nodes
    ray.shutdown()
    cluster.shutdown()


def run(jobs: list[Any], **options: Any) -> str:
    """What a run on the cluster prints."""
    console = Console(file=io.StringIO(), width=120)
    run_jobs_on_ray(jobs, console, **options)
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@needs_ray
def test_a_killed_machine_changes_no_result(
    cluster: Any, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    config, out, calm = smoke(), tmp_path / "ray", tmp_path / "calm"
    for folder in (out, calm):
        claim_folder(config, folder, ["fspo"], {})
    _, (doomed, _) = machines = cluster
    killed: list[int] = []

    def kill_one_machine() -> None:
        while not all(read_log(out / "cells" / cell) for cell in CELLS):
            time.sleep(0.02)
        killed.extend(len(read_log(out / "cells" / cell)) for cell in CELLS)
        machines[0].remove_node(doomed, allow_graceful=False)

    Thread(target=kill_one_machine, daemon=True).start()
    said = run(comparison_stages(config, out))
    assert killed, "the machine was killed while cells trained"
    assert "again from its last checkpoint" in said, said
    run_together(comparison_stages(config, calm), ALONE, Console(quiet=True))
    for folder in ("base", *(f"cells/{cell}" for cell in CELLS)):
        assert digest(read_result(out / folder)) == digest(read_result(calm / folder)), folder
    lost = [line for line in said.splitlines() if line.startswith("lost")]
    record_property(REPORTED, f"Ray: a machine killed after {killed} steps of {CELLS}: {lost}; digests equal")
    assert "4 of 4 jobs are done already" in run(comparison_stages(config, out))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.ray
@pytest.mark.xdist_group("ray")
@needs_ray
def test_failures_on_a_cluster_are_those_of_local_cells(cluster: Any, tmp_path: Path) -> None:
    stage = [Toy("bad", tmp_path, "complains"), Toy("good", tmp_path)]
    with pytest.raises(UserError, match=r"^bad: no such thing$"):
        run([stage, [Toy("later", tmp_path)]])
    assert [job.done() for job in stage] == [False, True]
    assert not (tmp_path / "later").exists()
    with pytest.raises(UserError, match=rf"victim: its workers were lost {ATTEMPTS} times \(WorkerCrashedError\)"):
        run([[Toy("victim", tmp_path, "dies")]])
    with pytest.raises(UserError, match="no machine of the cluster has a GPU"):
        run([[Toy("greedy", tmp_path)]], gpus_per_cell=0.5)
    with pytest.raises(UserError, match="a cell uses one GPU"):
        run([[Toy("greedy", tmp_path)]], gpus_per_cell=2)
    assert not os.path.exists(tmp_path / "greedy")
