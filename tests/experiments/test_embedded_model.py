"""The model that ships: it is what its record says, by digest and by measurement, and its recipe is deterministic."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from itertools import islice, repeat
from typing import Any

import pytest
import torch
from scipy.stats import binom
from transformers import AutoModelForCausalLM, AutoTokenizer

from suite.config import EvalConfig
from suite.evaluation.evaluate import evaluate
from suite.experiments.embedded.build import RECORD, SAMPLES
from suite.experiments.embedded.fine_tuning import IGNORED, SftConfig, _batches, _encode, _padded, fine_tune
from suite.experiments.embedded.tiny_model import TinyShape, character_tokenizer, tiny_qwen3
from suite.policy.loading import LoadedModel, load_model, model_digest
from suite.policy.sampling import TransformersSampler
from suite.types import EvalResult, Verdict
from tasks import EMBEDDED_MODEL
from tasks.embedded_tasks import ALPHABET, TASKS, worked_examples

TRAINED = [task for task in TASKS if task.trainable]
SMALL = TinyShape(width=32, layers=1, heads=1, head_size=32, feed_forward=48, max_positions=256)
FLIPS = 4
"""Responses of 800 that may change their verdict because another machine rounds differently."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The record's own count of threads: sums come out the same, and a busy machine does not stall."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return json.loads((EMBEDDED_MODEL / RECORD).read_text())


@pytest.fixture(scope="module")
def base() -> LoadedModel:
    return load_model("embedded", dtype=torch.float32, device="cpu", embedded_folder=EMBEDDED_MODEL)


def sampled(base: LoadedModel, name: str, samples: int) -> EvalResult:
    """The base model's verdicts on one evaluation set, with the noise of the record's own measurement."""
    sampler = TransformersSampler(base.model, base.tokenizer)
    task = next(task for task in TASKS if task.name == name)
    return evaluate(sampler, base.tokenizer, [task], EvalConfig((name,), samples=samples), None)[0]


def correct(result: EvalResult) -> int:
    return sum(verdict is Verdict.CORRECT for row in result.verdicts for verdict in row)


# --- the files ------------------------------------------------------------------------------------


def test_weights_and_tokenizer_are_those_of_the_record(base: LoadedModel, record: dict[str, Any]) -> None:
    assert base.digest == record["model_digest"]
    assert base.tokenizer_digest == record["tokenizer_digest"]


def test_the_record_tells_todays_recipe(record: dict[str, Any]) -> None:
    assert record["training"] == asdict(SftConfig())
    assert record["shape"] == asdict(TinyShape(rope_theta=1000.0))


def test_folder_is_small_and_plain(base: LoadedModel, record: dict[str, Any]) -> None:
    assert (EMBEDDED_MODEL / "model.safetensors").stat().st_size <= 8 * 2**20
    assert {f.suffix for f in EMBEDDED_MODEL.iterdir()} == {".json", ".safetensors", ".sha256"}
    config: Any = base.model.config
    assert config.architectures == ["Qwen3ForCausalLM"]
    assert config.head_dim >= 32
    parameters = sum(p.numel() for p in base.model.parameters())
    assert 400_000 <= parameters == record["parameters"] <= 2_000_000
    assert {p.dtype for p in base.model.parameters()} == {torch.float32}


def test_transformers_loads_the_folder_by_itself(base: LoadedModel) -> None:
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_MODEL, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_MODEL, local_files_only=True)
    assert model_digest(model) == base.digest
    assert tokenizer.get_vocab() == base.tokenizer.get_vocab()
    assert model.config.eos_token_id == model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert len({tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 4


def test_tokenizer_round_trips_every_prompt_and_solution(base: LoadedModel) -> None:
    longest = base.model.config.max_position_embeddings
    for task in TASKS:
        for problem in (*task.load("eval", None), *(task.load("train", None) if task.trainable else ())):
            for text in (task.render(problem), problem.solution or ""):
                ids = base.tokenizer(text).input_ids
                assert len(ids) == len(text)
                assert base.tokenizer.unk_token_id not in ids
                assert base.tokenizer.decode([*ids, base.tokenizer.eos_token_id], skip_special_tokens=True) == text
            assert len(task.render(problem)) + task.max_new_tokens <= longest


# --- the skill ------------------------------------------------------------------------------------


def test_record_leaves_room_to_learn(record: dict[str, Any]) -> None:
    measured = [record["measured"][task.name] for task in TRAINED]
    assert 0.30 <= sum(m["pass@1"] for m in measured) / len(measured) <= 0.60
    for m in measured:
        assert 0.15 <= m["pass@1"] <= 0.75
        assert m[f"pass@{SAMPLES}"] >= m["pass@1"] + 0.2


def test_measurement_is_reproduced(base: LoadedModel, record: dict[str, Any]) -> None:
    """All 800 responses of one set with the record's noise: the same count of right ones, but for rounding."""
    name = TRAINED[0].name
    result = sampled(base, name, SAMPLES)
    responses = len(result.verdicts) * SAMPLES
    assert correct(result) == pytest.approx(record["measured"][name]["pass@1"] * responses, abs=FLIPS)
    solved = sum(Verdict.CORRECT in row for row in result.verdicts)
    assert solved == pytest.approx(record["measured"][name][f"pass@{SAMPLES}"] * len(result.verdicts), abs=FLIPS)


@pytest.mark.parametrize("name", [task.name for task in TASKS[1:]])
def test_one_sample_a_problem_agrees_with_the_record(base: LoadedModel, record: dict[str, Any], name: str) -> None:
    """Within the exact binomial interval of level 1 - 1e-4; problems of unequal difficulty only narrow the spread."""
    result = sampled(base, name, 1)
    low, high = binom.interval(1 - 1e-4, len(result.verdicts), record["measured"][name]["pass@1"])
    assert low <= correct(result) <= high


# --- the recipe -----------------------------------------------------------------------------------


def trained_digest(seed: int, config: SftConfig) -> str:
    """Digest of a small model after a short warm-up."""
    tokenizer = character_tokenizer(ALPHABET, SMALL.max_positions)
    model = tiny_qwen3(SMALL, tokenizer, seed)
    fine_tune(model, tokenizer, worked_examples(seed), config, seed)
    return model_digest(model)


def test_a_rebuild_is_deterministic_in_its_seed_alone() -> None:
    config = SftConfig(tokens=4000, window=32)
    first = trained_digest(0, config)
    torch.manual_seed(12345)
    assert trained_digest(0, config) == first
    assert trained_digest(1, config) != first
    assert trained_digest(0, replace(config, learning_rate=1e-3)) != first


def test_fine_tuning_learns_one_example_by_heart() -> None:
    tokenizer = character_tokenizer(ALPHABET, SMALL.max_positions)
    model = tiny_qwen3(SMALL, tokenizer, 0)
    losses: list[float] = []
    config = SftConfig(tokens=60_000, learning_rate=1e-2, window=64, warmup_updates=5, label_smoothing=0.0)
    example = ("84,36;", "48,36;12,36;12,24;12,12=12")
    fine_tune(model, tokenizer, repeat(example), config, 0, lambda tokens, loss: losses.append(loss))
    assert losses[0] == pytest.approx(math.log(len(tokenizer)), abs=0.5)
    assert losses[-1] < 0.05
    assert not model.training


def test_labels_count_the_solution_and_its_end_and_nothing_else() -> None:
    tokenizer = character_tokenizer(ALPHABET, SMALL.max_positions)
    pairs = list(islice(worked_examples(0), 64))
    encoded = [_encode(tokenizer, *pair) for pair in pairs]
    text_of = {tuple(ids): pair for (ids, _), pair in zip(encoded, pairs, strict=True)}
    batches = _batches(encoded, 1000)
    assert sorted(tuple(ids) for batch in batches for ids, _ in batch) == sorted(tuple(ids) for ids, _ in encoded)
    for batch in batches:
        ids, labels, tokens = _padded(batch)
        assert ids.numel() <= 1000 or len(batch) == 1
        assert tokens == sum(len(row) for row, _ in batch)
        for (row, prompt), row_ids, row_labels in zip(batch, ids, labels, strict=True):
            question, solution = text_of[tuple(row)]
            counted = row_labels[row_labels != IGNORED].tolist()
            assert prompt == len(question)
            assert tokenizer.decode(counted[:-1]) == solution
            assert counted[-1] == tokenizer.eos_token_id
            assert torch.equal(row_labels[row_labels != IGNORED], row_ids[row_labels != IGNORED])
