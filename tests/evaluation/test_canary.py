"""The canary: silent while the start model answers as before, and heard in the table when it does not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from small_world import ODD, tiny
from suite.config import EvalConfig
from suite.evaluation.canary import FILE, PROBLEMS, SAME, check_canary
from suite.experiments.cells import CANARY
from suite.findings.comparison import Comparison
from suite.policy.loading import LoadedModel, model_digest, tokenizer_digest
from suite.policy.sampling import TransformersSampler
from suite.report import tables
from suite.statistics.compare import compare
from suite.types import EvalResult, RunResult, UserError, Verdict

OTHER = dataclasses.replace(ODD, name="other", render=lambda p: f"{p.prompt}0=")
CONFIG = EvalConfig(("odd", "other"), limit=12)


def check(folder: Path, model_seed: int = 0, louder: float = 1.0, config: EvalConfig = CONFIG) -> str:
    """`louder` scales the weights behind the digest's back, as arithmetic that went wrong would."""
    model, tokenizer = tiny(model_seed)
    loaded = LoadedModel(model, tokenizer, "tiny", model_digest(model), tokenizer_digest(tokenizer))
    with torch.no_grad():
        for layer in model.model.layers:
            layer.mlp.down_proj.weight.mul_(louder)
    return check_canary(folder, loaded, TransformersSampler(model, tokenizer), [ODD, OTHER], config, None)


def test_the_first_one_is_stored_and_the_same_model_repeats_it(tmp_path: Path) -> None:
    assert check(tmp_path) == SAME
    stored = (tmp_path / FILE).read_text()
    answers = json.loads(stored)["answers"]
    assert len(answers) == PROBLEMS == len({(a["task"], a["problem"]) for a in answers})
    assert {a["task"] for a in answers} == {"odd", "other"}
    assert all(a["tokens"] for a in answers)
    assert check(tmp_path) == SAME
    assert (tmp_path / FILE).read_text() == stored


def test_one_other_token_is_noticed_and_the_stored_answers_stay(tmp_path: Path) -> None:
    check(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    content["answers"][3]["tokens"][-1] += 1
    (tmp_path / FILE).write_text(json.dumps(content))
    found = check(tmp_path)
    assert "1 of 16 problems" in found
    assert content["answers"][3]["problem"] in found
    assert json.loads((tmp_path / FILE).read_text()) == content


def test_other_arithmetic_under_the_same_name_is_noticed(tmp_path: Path) -> None:
    check(tmp_path)
    assert "the start model's model is" in check(tmp_path, model_seed=1)
    assert "problems of the canary otherwise" in check(tmp_path, louder=1e4)
    assert "asks other problems" in check(tmp_path, config=dataclasses.replace(CONFIG, limit=5))


def test_another_engine_is_noticed(tmp_path: Path) -> None:
    check(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps(content | {"engine": "another engine"}))
    assert check(tmp_path) == f"the start model's engine is {content['engine'][:40]}, was another engine"


def test_it_leaves_every_random_number_to_others(tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    check(tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_a_broken_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("{}")
    with pytest.raises(UserError, match=r"canary\.json: no canary to read"):
        check(tmp_path)


# --- what a reader sees ---------------------------------------------------------------------------


def result(method: str, seed: int, canary: str | None) -> RunResult:
    verdicts = ((Verdict.CORRECT, Verdict.WRONG), (Verdict.WRONG, Verdict.CORRECT))
    evals = (EvalResult("odd", "1", "d", ("a", "b"), verdicts, ((1, 2), (3, 4)), 0.0),)
    environment = {} if canary is None else {CANARY: canary}
    return RunResult(1, method, seed, {}, evals, {}, {}, {}, environment)


def report(**canaries: str | None) -> Comparison:
    runs = [result(name.rpartition("_")[0], int(name.rpartition("_")[2]), word) for name, word in canaries.items()]
    return Comparison(None, Path(), result("base", 0, SAME), runs)  # pyright: ignore[reportArgumentType]


def test_the_table_says_which_rows_are_not_comparable_and_why() -> None:
    made = report(grpo_0=SAME, grpo_1="3 of 16 differ", fspo_0=SAME, fspo_1=None)
    assert made.canaries == {"grpo": "seeds 1"}
    assert made.canary_lines == ["not comparable: grpo seed 1: 3 of 16 differ"]
    accuracies = compare(made.base.evals, made.runs, seed=0, repetitions=100).accuracies
    table = tables.accuracy_table(accuracies, canaries=made.canaries).set_index("model")["comparable"]
    assert dict(table) == {"base": "yes", "grpo": "no: seeds 1", "fspo": "yes"}


def test_nothing_is_said_while_all_is_well() -> None:
    made = report(grpo_0=SAME, fspo_0=None)
    assert (made.canaries, made.canary_lines) == ({}, [])
    accuracies = compare(made.base.evals, made.runs, seed=0, repetitions=100).accuracies
    assert "comparable" not in tables.accuracy_table(accuracies, canaries=made.canaries)
