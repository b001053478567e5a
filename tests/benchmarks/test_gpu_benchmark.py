"""The benchmark on a GPU: files that outlive a killed run, failures and budgets that stop nothing else. No times."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.autograd import DeviceType

from benchmarks import gpu, gpu_checks, gpu_context, gpu_profile, gpu_speed, gpu_text
from benchmarks.decoding import GROWING, STATIC
from benchmarks.gpu_phases import LONGEST, SHORTEST, Job, OutOfTime, Phase, Runner, alarm, error_of, jobs_of, plain
from small_world import small_config, small_source
from suite.planning.model_shapes import model_shape
from suite.policy import vocabulary_tiles
from suite.policy.packed_attention import _by_sequence
from suite.replay.null_update import PRECISIONS, SAMPLER
from suite.types import UserError

ROOT = Path(__file__).resolve().parents[2]
ALL = [phase.name for phase in gpu.PHASES]
EVERY = {
    "command",
    "commit",
    "versions",
    "machine",
    "device",
    "settings",
    "flops",
    "peak",
    "memory",
    "seconds",
    "status",
}


# --- phases that tests plant ----------------------------------------------------------------------


@dataclasses.dataclass
class Room:
    """A context for planted phases: what ran in it, and how often its model was dropped."""

    device: str = "cpu"
    reference: str | None = None
    ran: list[str | None] = dataclasses.field(default_factory=list)
    dropped: int = 0
    during: Callable[[], None] = lambda: None

    def drop(self) -> None:
        self.dropped += 1


def works(room: Room) -> list[dict[str, Any]]:
    room.ran.append(room.reference)
    room.during()
    return [{"peak_gib": 1e6, "share": float("nan")}]


def fails(room: Room) -> list[dict[str, Any]]:
    raise ZeroDivisionError("planted")


def runs_out_of_memory(room: Room) -> list[dict[str, Any]]:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def needs_a_package(room: Room) -> list[dict[str, Any]]:
    raise ModuleNotFoundError("No module named 'math_verify'")


def never_ends(room: Room) -> list[dict[str, Any]]:
    while True:
        try:
            time.sleep(0.001)
        except Exception as error:  # as libraries do
            raise RuntimeError("held back") from error


def phase(name: str, work: str = "works", seconds: float = 1, **more: Any) -> Phase:
    given = {"models": "none", "block": 0, "card": 100 * seconds, **more}
    return Phase(name, "planted", f"{__name__}:{work}", rehearsal=seconds, **given)


class Hands:
    """A clock that moves only when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def runner(out: Path, room: Any, seconds: float = 60, **more: Any) -> Runner:
    given = {"clock": Hands(), "limit": lambda seconds: nullcontext(), "say": lambda line: None, **more}
    return Runner(out, room, seconds, {"size": 1}, "cpu", "6 N", **given)


def files(folder: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text()) for path in folder.glob("*.json")}


def test_a_phase_that_fails_stops_no_other_and_says_where(tmp_path: Path) -> None:
    room = Room()
    jobs = [
        Job(phase("a", "fails")),
        Job(phase("b", "runs_out_of_memory")),
        Job(phase("c", "needs_a_package")),
        Job(phase("d", "is_not_there")),
        Job(phase("e"), "some/model"),
    ]
    assert runner(tmp_path, room).run(jobs) is None
    found = files(tmp_path)
    assert {name: one["status"] for name, one in found.items()} == {
        "a": "failed",
        "b": "failed",
        "c": "not run",
        "d": "failed",
        "e.model": "ran",
    }
    error = found["a"]["error"]
    assert (error["type"], error["message"], error["out_of_memory"]) == ("ZeroDivisionError", "planted", False)
    assert "in fails: raise ZeroDivisionError" in error["where"][-1]
    assert found["b"]["error"]["out_of_memory"]
    assert found["c"]["reason"] == "ModuleNotFoundError: No module named 'math_verify'"
    assert room.ran == ["some/model"]
    assert room.dropped == 4
    assert found["e.model"]["rows"] == [{"peak_gib": 1e6, "share": "nan"}]
    assert found["e.model"]["memory"]["peak_gib"] == 1e6
    assert all(one.keys() >= EVERY for one in found.values())
    text = gpu_text.text(gpu_text.read(tmp_path, "abcde"))
    assert "- a: FAILED, ZeroDivisionError: planted (test_gpu_benchmark.py:" in text
    assert "- b: FAILED, out of memory; OutOfMemoryError: CUDA out of memory." in text
    assert "| some/model | 1e+06 | nan |" in text


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (torch.OutOfMemoryError("of whatever words"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
    ],
)
def test_running_out_of_memory_is_recognised(error: Exception, memory: bool) -> None:
    assert error_of(error)["out_of_memory"] is memory


def test_a_budget_skips_with_the_reason_what_does_not_fit_and_still_runs_what_does(tmp_path: Path) -> None:
    clock, room, limits = Hands(), Room(), []

    def kept(seconds: float) -> Any:
        limits.append(seconds)
        return nullcontext()

    def later() -> None:
        clock.now += 3

    room.during = later
    jobs = [
        Job(phase("first", seconds=5)),
        Job(phase("long", seconds=5)),
        Job(phase("short", seconds=4)),
        Job(phase("none", seconds=0.5)),
    ]
    runner(tmp_path, room, 7, clock=clock, limit=kept).run(jobs)
    found = files(tmp_path)
    assert [found[name]["status"] for name in ("first", "long", "short", "none")] == ["ran", "not run", "ran", "ran"]
    assert found["long"]["reason"] == "no time: 4 of 7 seconds left, and it takes about 5"
    assert found["first"]["seconds"] == 3
    assert limits == [7, 4, 1]
    runner(tmp_path, room, 1e6, limit=kept).run([Job(phase("x", seconds=5)), Job(phase("y", seconds=50))])
    assert limits[3:] == [SHORTEST, 50 * LONGEST]


def test_the_device_decides_which_estimate_counts_and_what_can_run(tmp_path: Path) -> None:
    job = Job(phase("x", seconds=2, needs=("cuda",)))
    assert runner(tmp_path, Room("cpu")).reason(job) == "needs a CUDA device"
    assert runner(tmp_path, Room("cuda"), 199).reason(job) == "no time: 199 of 199 seconds left, and it takes about 200"
    assert runner(tmp_path, Room("cuda"), 200).reason(job) is None


def test_a_phase_that_hangs_is_ended_and_the_next_one_runs(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGALRM)
    jobs = [Job(phase("hangs", "never_ends")), Job(phase("next"))]
    runner(tmp_path, Room(), limit=lambda seconds: alarm(0.05)).run(jobs)
    found = files(tmp_path)
    assert (found["hangs"]["status"], found["next"]["status"]) == ("failed", "ran")
    assert found["hangs"]["error"]["type"] == OutOfTime.__name__
    assert found["hangs"]["error"]["message"] == "its 60 seconds were over"
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_device_that_refuses_work_has_the_run_go_on_in_a_new_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Runner, "_is_broken", lambda self: True)
    jobs = [Job(phase("a")), Job(phase("b", "fails")), Job(phase("c"))]
    assert runner(tmp_path, Room()).run(jobs) == 2
    assert files(tmp_path).keys() == {"a", "b"}
    assert runner(tmp_path, Room()).run(jobs, 2) is None
    assert files(tmp_path)["c"]["status"] == "ran"

    asked: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, words: asked.append(words))
    monkeypatch.setattr(Runner, "run", lambda self, jobs, first: 5)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--out", str(tmp_path), "--seconds", "90"])
    with pytest.raises(SystemExit):
        gpu.main()
    (words,) = asked
    assert words[:4] == [sys.executable, "-m", "benchmarks.gpu", "--device"]
    assert words[-4:-1] == ["--first", "5", "--seconds"]
    assert 1 <= int(words[-1]) <= 90


def test_jobs_go_by_block_then_model_then_table() -> None:
    phases = [phase("late", block=1), phase("each", models="each"), phase("once", models="first"), phase("alone")]
    jobs = jobs_of(phases, ["m", "n"])
    assert [(job.phase.name, job.model) for job in jobs] == [
        ("alone", None),
        ("each", "m"),
        ("once", "m"),
        ("each", "n"),
        ("late", None),
    ]
    assert [job.phase.name for job in jobs_of(phases, ["m"], ["late", "alone"])] == ["alone", "late"]
    assert Job(phases[1], "Qwen/Qwen3-0.6B").file == "each.Qwen3-0.6B.json"
    own = jobs_of(gpu.PHASES, gpu.GPU_MODELS)
    assert len({job.file for job in own}) == len(own)
    assert sum(job.phase.card for job in own if job.phase.block < 2) < gpu.SECONDS


def test_numbers_that_json_does_not_have_are_written_as_words() -> None:
    given = {"a": (1, float("inf")), "b": [float("nan"), None, True], 3: Path("x")}
    assert plain(given) == {"a": [1, "inf"], "b": ["nan", None, True], "3": "x"}


# --- the script -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A whole run on a CPU, and its files."""
    out = tmp_path_factory.mktemp("gpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--seconds", "600", "--out", str(out)])
        with pytest.raises(SystemExit) as ended:
            gpu.main()
    assert ended.value.code == 0
    return out, files(out)


def test_a_rehearsal_runs_every_phase_that_has_no_part_for_cuda_alone(rehearsal: tuple[Path, dict[str, Any]]) -> None:
    out, found = rehearsal
    by_phase = {one["phase"]: one for one in found.values()}
    assert by_phase.keys() == set(ALL)
    for phase in gpu.PHASES:
        one = by_phase[phase.name]
        if "cuda" in phase.needs:
            assert (one["status"], one["reason"]) == ("not run", "needs a CUDA device")
        else:
            assert one["status"] == "ran", one
            assert one["rows"]
            assert one["memory"]["peak_gib"] > 0
        assert one.keys() >= EVERY
        assert one["command"].startswith("python -m benchmarks.gpu --device cpu --seconds 600")
        assert "6 N tokens" in one["flops"]
        assert one["settings"]["micro_tokens"] == gpu_context.SMALL.micro_tokens
    text = (out / "gpu.md").read_text()
    assert "| embedded | update |" in text
    assert "- kernel: needs a CUDA device" in text


def test_what_the_phases_say(rehearsal: tuple[Path, dict[str, Any]]) -> None:
    found = {one["phase"]: one.get("rows", []) for one in rehearsal[1].values()}
    scoring, update = found["training"]
    assert (scoring["phase"], update["phase"], update["mfu"]) == ("first scoring", "update", None)
    assert update["flops_mfu"] > update["flops_mfu_done"] > 0
    assert update["tokens"] == 8 * 20 + sum(max(1, 16 * (i % 8 + 1) // 8) for i in range(8))
    assert update["tokens_per_second"] == pytest.approx(update["tokens"] / update["seconds"])
    assert found["checkpointed"][1]["checkpointed"] is True
    decoded = {row["phase"]: row for row in found["decoding"]}
    assert all(decoded[name]["tokens"] == 8 * 8 and decoded[name]["tokens_agreed"] == 1 for name in (GROWING, STATIC))
    assert {row["precision"] for row in found["noise"]} == set(PRECISIONS)
    assert SAMPLER in {row["change"] for row in found["noise"]}
    assert found["head"][0]["is_the_suites"]
    assert [row["tile"] for row in found["head"][1:]] == [2**power for power in gpu_context.SMALL.tiles]
    totals = found["profile"][0]
    assert totals["launches"] > totals["numbers_read"] > 0
    assert totals["busy_share"] > 0
    assert {(row["precision"], row["against"]): row["equal_share"] for row in found["texts"]}[
        "float32", "four at a time"
    ] == 1


def test_a_run_that_is_killed_leaves_what_was_finished(tmp_path: Path) -> None:
    """SIGKILL with phases still to come: all files are whole, finished phases have their rows, gpu.md can be made."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks.gpu", "--device", "cpu", "--seconds", "60", "--out", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and not (tmp_path / "head.json").exists():
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    found = files(tmp_path)
    assert "sampling_vllm.embedded" not in found, "the run had ended"
    assert found["training.embedded"]["status"] == "ran"
    assert found["training.embedded"]["rows"][1]["tokens_per_second"] > 0
    assert sum(one["status"] == "started" for one in found.values()) <= 1
    assert not (tmp_path / "gpu.md").exists()
    assert gpu.render(tmp_path) == 0
    text = (tmp_path / "gpu.md").read_text()
    assert "| embedded | update |" in text
    for name, one in found.items():
        if one["status"] == "started":
            assert f"- {one['phase']}" in text, name


def test_bad_input_is_refused_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--only speed: no such phase; there are device, kernel"):
        gpu.run(tmp_path, ["embedded"], "cpu", 60, ["training", "speed"])
    with pytest.raises(UserError, match="--seconds 0: must be positive"):
        gpu.run(tmp_path, ["embedded"], "cpu", 0)
    with pytest.raises(UserError, match="holds no file of a phase"):
        gpu.render(tmp_path)
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA device here"):
            gpu.run(tmp_path, ["embedded"], "cuda", 60)
    assert not list(tmp_path.iterdir())


def test_a_model_that_is_not_here_is_named_and_a_rehearsal_stays_out_of_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSPO_CACHE", str(tmp_path / "nothing"))
    assert gpu.run(tmp_path, ["smollm2"], "cpu", 60, ["training"]) is None
    (one,) = files(tmp_path).values()
    assert (one["status"], one["reason"]) == ("not run", "UserError: smollm2 is not here: fspo model fetch smollm2")
    assert gpu.folder_of("cpu") == Path("results/runs/gpu-rehearsal")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert gpu.folder_of("cuda") == Path("results/h200")


def test_make_installs_nothing_for_it(tmp_path: Path) -> None:
    """On a machine without .venv the target is one command of the machine's own python."""
    words = ["make", "--no-print-directory", "-n", "bench-gpu", f"VENV={tmp_path}/none", "PYTHON=python3"]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "python3 -m benchmarks.gpu --seconds 540"


# --- pieces ---------------------------------------------------------------------------------------


def test_where_memory_runs_out_half_the_tokens_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    fits, context = 256, gpu_context.Context("cpu", gpu_context.SMALL)
    monkeypatch.setattr(gpu_context.Context, "drop", lambda self: None)

    def trained(context: Any, tokens_per_micro_batch: int) -> list[dict[str, Any]]:
        if tokens_per_micro_batch > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [{"micro_tokens": tokens_per_micro_batch}]

    monkeypatch.setattr(gpu_speed, "_trained", trained)
    rows = gpu_speed.training(context)
    assert [row["micro_tokens"] for row in rows] == [512, 256]
    assert rows[0]["out_of_memory"] == "CUDA out of memory"
    fits = 1
    with pytest.raises(torch.OutOfMemoryError):
        gpu_speed.training(context)


def test_the_heads_tile_is_set_for_a_block() -> None:
    before = {device: gpu_context.head_tile(device) for device in ("cpu", "cuda")}
    with gpu_context.head_in_tiles_of(7):
        assert gpu_context.head_tile("cpu") == gpu_context.head_tile("cuda") == 7
    assert before == {device: gpu_context.head_tile(device) for device in ("cpu", "cuda")} == vocabulary_tiles.TILE


def test_a_profile_counts_every_second_of_the_device_once() -> None:
    """A kernel's time is told of the kernel and of the operation that launched it; annotations are no work."""

    def event(key: str, count: int, where: DeviceType, device: float, cpu: float = 0.0, note: bool = False) -> Any:
        return SimpleNamespace(
            key=key,
            count=count,
            device_type=where,
            self_device_time_total=device * 1e6,
            self_cpu_time_total=cpu * 1e6,
            is_user_annotation=note,
        )

    events = [
        event("aten::mm", 4, DeviceType.CPU, 0.5, 0.25),
        event("gemm", 4, DeviceType.CUDA, 0.5),
        event("Optimizer.step", 1, DeviceType.CUDA, 0.25, note=True),
        event("cudaLaunchKernel", 7, DeviceType.CPU, 0),
        event("cudaLaunchKernelExC", 2, DeviceType.CPU, 0),
        event("cuLaunchKernel", 3, DeviceType.CPU, 0),
        event("cudaStreamSynchronize", 5, DeviceType.CPU, 0),
        event(gpu_profile.ITEMS, 6, DeviceType.CPU, 0),
    ]
    totals, kernel, *operations = gpu_profile.summary(events, True, 2.0, 100)
    assert (totals["busy_seconds"], totals["busy_share"]) == (0.5, 0.25)
    assert (totals["launches"], totals["host_waits"], totals["numbers_read"]) == (12, 5, 6)
    assert kernel == {"kernel": "gemm", "calls": 4, "seconds": 0.5}
    assert operations[0] == {"operation": "aten::mm", "calls": 4, "seconds": 0.5}
    assert gpu_profile.summary(events, False, 2.0, 100)[0]["busy_seconds"] == 0.25


def test_operations_are_counted_by_the_formula() -> None:
    shape = model_shape("embedded")
    rollouts = small_source(small_config()).record(0).rollouts[:3]
    sizes = [len(r.prompt_ids) + len(r.response_ids) for r in rollouts]
    attention = sum(4 * shape.layers * shape.queries * size * size / 2 for size in sizes)
    whole = gpu_text.operations(shape, rollouts, True)
    assert whole == pytest.approx(2 * shape.parameters * sum(sizes) + attention)
    prompts = sum(len(r.prompt_ids) for r in rollouts)
    extra = shape.parameters - shape.linear
    head = shape.vocabulary * shape.hidden
    done = gpu_text.operations(shape, rollouts, False)
    assert whole - done == pytest.approx(2 * extra * sum(sizes) + 2 * head * prompts)


@pytest.mark.gpu
def test_the_kernel_equals_one_call_a_sequence() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    for name, heads in gpu_checks.HEADS.items():
        found = gpu_checks.compared("cuda", heads)
        assert found["equal"], (name, found)


def test_the_check_of_the_kernel_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU with stand-ins: the same path twice is equal, a path that forgets a sequence's start is not."""

    def same(q, k, v, packing, scaling):
        return _by_sequence(q, k, v, packing.sizes, scaling)

    def blind(q, k, v, packing, scaling):
        return _by_sequence(q, k, v, (q.shape[2],), scaling)

    for path, equal in ((same, True), (blind, False)):
        monkeypatch.setattr("suite.policy.packed_attention._by_kernel", path)
        for heads in gpu_checks.HEADS.values():
            assert gpu_checks.compared("cpu", heads)["equal"] is equal


def test_invented_rollouts_have_ragged_lengths_and_shared_prompts() -> None:
    rollouts = gpu_context.invented(50, 3, 4, 5, 16)
    assert [len(r.response_ids) for r in rollouts] == [max(1, 16 * (i % 8 + 1) // 8) for i in range(12)]
    assert all(len(r.response_ids) == len(r.sampler_log_probs) for r in rollouts)
    prompts = [r.prompt_ids for r in rollouts]
    assert len(set(prompts)) == 3
    assert all(prompts[i] == prompts[i - i % 4] and len(prompts[i]) == 5 for i in range(12))
    assert {r.reward for r in rollouts[:4]} == {0, 1}
    assert max(token for r in rollouts for token in r.prompt_ids + r.response_ids) < 50
    assert rollouts == gpu_context.invented(50, 3, 4, 5, 16)
