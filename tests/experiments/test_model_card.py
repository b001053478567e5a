"""A model's card says what the result says, in the hub's form; names and commands in it stay text."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from suite.config import PROTOCOL, CompareConfig, EvalConfig, TrainConfig
from suite.experiments.model_card import Finished, hub_sets, model_card, start_model_on_hub, write_card
from suite.experiments.names import METHODS
from suite.policy.model_folders import CARD, SUMS, check_sums, write_sums
from suite.records.files import file_sha256
from suite.records.result import digest
from suite.types import EvalResult, RunResult, UserError, Verdict

RIGHT, WRONG = Verdict.CORRECT, Verdict.WRONG
HEADINGS = ["Accuracy", "How it was made", "What it must not be used for", "Digests and versions"]
HOSTILE = "a`b``c ```\n\n# Heading\n---\n| x | <img src=x onerror=y> ![i](http://x) \x1b[2J"


def finished(name: str = "fspo", model: str = "smollm2", command: str = "fspo train smoke") -> Finished:
    """Four problems of one set: three of eight responses right, one of eight before."""
    evals = [
        EvalResult("gcd", "1", "d1", ("a", "b", "c", "d"), rows, ((3, 3),) * 4, 0.0)
        for rows in (
            ((RIGHT, RIGHT), (RIGHT, WRONG), (WRONG, WRONG), (WRONG, WRONG)),
            ((RIGHT, WRONG),) + ((WRONG,) * 2,) * 3,
        )
    ]
    train = TrainConfig(("gsm8k", "gcd"), model=model, steps=7)
    config = CompareConfig("small", ("fspo",), (3,), train, EvalConfig(("gcd",), samples=2))
    result = RunResult(PROTOCOL, name, 3, {}, (evals[0],), {}, {"final_model": "f00d"}, {}, {"torch": "2.0"})
    return Finished(config, METHODS["fspo"], result, (evals[1],), command)


def test_it_says_what_the_result_says() -> None:
    made = finished()
    text = model_card(made, "5ums")
    assert "| `gcd` | 4 | 37.5 [" in text
    assert "| 12.5 [" in text
    for said in (
        "seed 3",
        "7 rollout steps",
        "fspo train smoke",
        f"`{digest(made.result)}`",
        "`f00d`",
        "`5ums`",
        "torch: 2.0",
    ):
        assert said in text, said
    head = ModelCard(text).data.to_dict()
    assert head["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    assert head["datasets"] == ["openai/gsm8k"]
    assert head["library_name"] == "transformers"
    assert "fspo" in head["tags"]


def test_a_start_model_of_a_base_that_is_not_known_is_left_open() -> None:
    text = model_card(dataclasses.replace(finished(), base=()), "5ums")
    assert "| not recorded |" in text
    assert "12.5 [" not in text


def test_names_and_commands_stay_text() -> None:
    made = finished(HOSTILE, HOSTILE, HOSTILE)
    title = dataclasses.replace(made.method, title=HOSTILE, source=HOSTILE, facts={"ratio": HOSTILE})
    text = model_card(dataclasses.replace(made, method=title), "5ums")
    card = ModelCard(text)
    assert card.data.to_dict()["tags"] == ["fspo-suite", "reinforcement-learning", HOSTILE]
    assert "base_model" not in card.data.to_dict()
    tokens = MarkdownIt().enable("table").parse(card.text)
    headings = [after.content for token, after in itertools.pairwise(tokens) if token.type == "heading_open"]
    assert headings[1:] == HEADINGS
    kinds = {child.type for token in tokens for child in token.children or ()} | {token.type for token in tokens}
    assert not kinds & {"html_inline", "html_block", "image", "link_open", "hr"}
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("reference", "on_hub"),
    [("embedded", None), ("Qwen/Qwen3-1.7B-Base", "Qwen/Qwen3-1.7B-Base"), ("./mine", None), ("a/b/c", None)],
)
def test_only_a_hub_id_is_a_base_model(reference: str, on_hub: str | None) -> None:
    assert start_model_on_hub(reference) == on_hub


def test_a_folder_that_looks_like_a_hub_id_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert start_model_on_hub("owner/name") is None
    assert hub_sets(["gcd", "svamp", "mine.jsonl"]) == ["ChilleD/SVAMP"]


def test_the_list_of_digests_holds_whatever_the_owner_writes_into_the_card(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    write_sums(tmp_path)
    before = file_sha256(tmp_path / SUMS)
    write_card(finished(), tmp_path)
    assert before in (tmp_path / CARD).read_text()
    write_sums(tmp_path)
    assert file_sha256(tmp_path / SUMS) == before
    (tmp_path / CARD).write_text("mine")
    check_sums(tmp_path)
    (tmp_path / "config.json").write_text("{ }")
    with pytest.raises(UserError, match="altered since it was saved"):
        check_sums(tmp_path)
