"""Weights on their way to an engine: the right numbers, once a node, in its precision, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_ranks import Room, Threaded

from small_world import tiny
from suite.config import VllmConfig
from suite.experiments.names import EMBEDDED_MODEL
from suite.policy.hand_over import handed_over, write_safetensors
from suite.policy.loading import load_model
from suite.policy.ranks import ALONE
from suite.policy.vllm_sampler import _Engine
from suite.records import files
from suite.records.files import folder_in_memory
from suite.training.sharding import let_go
from suite.types import UserError


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_file_holds_the_tensors_in_the_engines_precision(tmp_path: Path, dtype: torch.dtype) -> None:
    tensors = {
        "a.b": torch.randn(3, 5),
        "half": torch.randn(7).to(torch.bfloat16),
        "turned": torch.randn(4, 6).T,
        "count": torch.tensor(5),
        "none": torch.empty(0, 3),
        "yes": torch.tensor([True, False]),
    }
    write_safetensors(tmp_path / "x.safetensors", tensors, dtype)
    read = load_file(tmp_path / "x.safetensors")
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        wanted = tensor.to(dtype) if tensor.is_floating_point() else tensor
        assert read[name].dtype == wanted.dtype, name
        assert torch.equal(read[name], wanted), name


@pytest.mark.parametrize("source", ["embedded", "from nothing"])
def test_a_model_is_handed_over_whole_and_its_head_apart(source: str) -> None:
    if source == "embedded":
        loaded = load_model("embedded", dtype=torch.float32, device="cpu", embedded_folder=EMBEDDED_MODEL)
        model, tokenizer = loaded.model, loaded.tokenizer
    else:
        model, tokenizer = tiny()
    tied: Any = model
    assert tied.get_output_embeddings().weight is tied.get_input_embeddings().weight
    with handed_over(model, torch.bfloat16, ALONE, tokenizer) as folder:
        read: dict[str, Any] = {}
        for path in folder.glob("*.safetensors"):
            read |= load_file(path)
        again = load_model(str(folder), dtype=torch.bfloat16, device="cpu")
    state = model.state_dict()
    assert read.keys() == state.keys()
    assert all(torch.equal(read[name], state[name].to(torch.bfloat16)) for name in state)
    assert again.model.config.tie_word_embeddings is False
    assert not folder.exists()


# --- several processes, which are threads -----------------------------------------------------------


def of_two(work: Callable[[Threaded], Any]) -> list[Any]:
    """What each of two processes of a node came to: a result or an exception."""
    room = Room(2)
    found: list[Any] = [None, None]

    def run(rank: int) -> None:
        try:
            found[rank] = work(Threaded(rank, 2, local=rank, room=room))
        except Exception as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_a_node_has_one_folder_and_reads_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    monkeypatch.setattr("suite.policy.hand_over.folder_in_memory", lambda: Counted(made))
    model = tiny()[0]
    nothing = tiny()[0]
    let_go(nothing)  # a second process that reads its weights dies of it

    def work(ranks: Threaded) -> dict[str, Any]:
        with handed_over(nothing if ranks.rank else model, torch.float32, ranks) as folder:
            assert [folder] == made
            return load_file(folder / "model.safetensors")

    first, second = of_two(work)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert len(made) == 1
    assert not made[0].exists()


class Counted:
    """A folder in memory that is noted."""

    def __init__(self, made: list[Path]) -> None:
        self.made, self.inner = made, folder_in_memory()

    def __enter__(self) -> Path:
        self.made.append(self.inner.__enter__())
        return self.made[-1]

    def __exit__(self, *error: Any) -> None:
        self.inner.__exit__(*error)


@pytest.mark.parametrize("who", [0, 1])
@pytest.mark.parametrize("kind", [RuntimeError, UserError, OSError])
def test_one_engine_that_fails_ends_all_and_the_folder(
    who: int, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    monkeypatch.setattr("suite.policy.hand_over.folder_in_memory", lambda: Counted(made))
    model = tiny()[0]

    def work(ranks: Threaded) -> None:
        with handed_over(model, torch.float32, ranks):
            if ranks.rank == who:
                raise kind("its own words")

    found = of_two(work)
    assert type(found[who]) is kind
    assert str(found[who]) == "its own words"
    assert type(found[1 - who]) is (UserError if kind is UserError else RuntimeError)
    assert str(found[1 - who]) == f"process {who}: its own words"
    assert not made[0].exists()


def test_a_model_that_cannot_be_written_ends_all() -> None:
    nothing = tiny()[0]
    let_go(nothing)

    def work(ranks: Threaded) -> None:
        with handed_over(nothing, torch.float32, ranks):
            raise AssertionError("never reached")

    found = of_two(work)
    assert all(isinstance(error, Exception) and not isinstance(error, AssertionError) for error in found)


def test_a_model_that_let_go_of_its_weights_keeps_its_shape_and_its_ties() -> None:
    model = tiny()[0]
    wanted = [(name, p.shape, p.requires_grad) for name, p in model.named_parameters()]
    model.model.norm.weight.requires_grad_(False)
    wanted = [(name, shape, grad and name != "model.norm.weight") for name, shape, grad in wanted]
    let_go(model)
    assert [(name, p.shape, p.requires_grad) for name, p in model.named_parameters()] == wanted
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert all(p.is_meta for p in model.parameters())


# --- what a killed process leaves -------------------------------------------------------------------


def test_the_folder_of_a_killed_process_is_cleared_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SHARED_MEMORY", tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from suite.records import files\n"
        "files.SHARED_MEMORY = Path(sys.argv[1])\n"
        "with files.folder_in_memory() as folder:\n"
        "    (folder / 'weights').write_bytes(b'x'); print(folder, flush=True); time.sleep(600)\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    try:
        killed, living = (Path(p.stdout.readline().strip()) for p in processes if p.stdout)
        assert killed.name.startswith(f"{files.OURS}{processes[0].pid}-")
        processes[0].send_signal(signal.SIGKILL)
        processes[0].wait()
        with folder_in_memory():
            assert killed.exists(), "so young that it may not be locked yet"
        for folder in (killed, living):
            os.utime(folder, (0, 0))
        with folder_in_memory() as own:
            assert not killed.exists()
            assert (living / "weights").exists()
            assert own.exists()
        assert not own.exists()
    finally:
        for process in processes:
            process.kill()
            process.wait()


# --- the engine's side ------------------------------------------------------------------------------


class Recorded:
    """A vLLM that notes what it is asked."""

    def __init__(self, said: list[Any]) -> None:
        self.said = said
        executor = SimpleNamespace(is_failed=False)
        self.llm_engine = SimpleNamespace(
            engine_core=SimpleNamespace(engine_core=SimpleNamespace(model_executor=executor))
        )

    def wake_up(self, tags: list[str] | None = None) -> None:
        self.said.append(("wake_up", tags))

    def sleep(self, level: int = 1) -> None:
        self.said.append(("sleep", level))

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        self.said.append((method, kwargs["weights_path"]))

    def reset_prefix_cache(self) -> bool:
        self.said.append("reset_prefix_cache")
        return True


def test_an_engine_that_slept_has_nothing_until_it_is_given_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sleep level 2 throws weights away: it must never be taken to hold those that it had."""
    said: list[Any] = []
    monkeypatch.setattr("suite.policy.vllm_sampler.give_memory_back", lambda: said.append("memory given back"))
    engine = _Engine(Recorded(said), VllmConfig(sleep=True), (), 8, "weights 1")
    engine.rest()
    engine.rest()
    assert said == [("sleep", 2)]
    assert engine.weights is None
    engine.take(Path("folder"), "weights 1")
    assert said[1:] == [
        "memory given back",
        ("wake_up", ["weights"]),
        ("reload_weights", "folder"),
        ("wake_up", ["kv_cache"]),
        "reset_prefix_cache",
    ]
    assert (engine.weights, engine.asleep) == ("weights 1", False)


def test_an_engine_that_fails_to_take_weights_holds_none(monkeypatch: pytest.MonkeyPatch) -> None:
    llm = Recorded([])
    monkeypatch.setattr(llm, "collective_rpc", lambda *a, **k: (_ for _ in ()).throw(RuntimeError("died")))
    engine = _Engine(llm, VllmConfig(sleep=False), (), 8, "weights 1")
    engine.rest()
    assert engine.weights == "weights 1", "it does not sleep"
    with pytest.raises(RuntimeError, match="died"):
        engine.take(Path("folder"), "weights 2")
    assert engine.weights is None
