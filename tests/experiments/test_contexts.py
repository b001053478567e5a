"""Prompts and token limits that exceed a model's context are refused before anything is drawn or written."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path

import pytest

from small_world import SHAPE
from suite.commands import main
from suite.experiments.contexts import AskedSet, AskedTogether, require_room
from suite.experiments.embedded.tiny_model import character_tokenizer, tiny_qwen3
from suite.experiments.models import tokenizer_here
from suite.experiments.recipes import Changes, resolved
from suite.policy.prompting import encode
from suite.types import UserError
from tasks.own_problems import own_task

CONTEXT = 96
MINE = ("train.tasks=train.jsonl@plain", "evaluation.tasks=mine.jsonl@plain")


def written(path: str, prompts: list[str]) -> None:
    rows = [{"id": f"{Path(path).stem}-{i}", "problem": prompt, "answer": i} for i, prompt in enumerate(prompts)]
    Path(path).write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of 96 tokens' context whose tokens are characters."""
    folder = tmp_path_factory.mktemp("newcomer")
    tokenizer = character_tokenizer("0123456789=+", CONTEXT)
    tiny_qwen3(dataclasses.replace(SHAPE, max_positions=CONTEXT), tokenizer, 0).save_pretrained(folder / "mymodel")
    tokenizer.save_pretrained(folder / "mymodel")
    return folder


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder as the current one, with two sets whose longest prompts have 8 and 5 characters."""
    monkeypatch.chdir(place)
    written("train.jsonl", ["1+1=", "1000+10="])
    written("mine.jsonl", ["2+2=", "10+3="])
    return place


def refused(*settings: str, model: str = "mymodel") -> str:
    """Why the smoke recipe with these settings cannot run; empty where it can."""
    try:
        resolved("smoke", Changes(model=model, set=settings))
    except UserError as error:
        return str(error)
    return ""


def test_it_says_which_set_and_which_setting_and_that_setting_is_the_largest(here: Path) -> None:
    said = refused(*MINE)
    assert said == (
        "training set train, a prompt of 8 tokens (problem train-1) and max_new_tokens 512; evaluation set mine, a "
        "prompt of 5 tokens (problem mine-1) and max_new_tokens 512: more than the model's context of 96; "
        "--set train.max_new_tokens=88 evaluation.max_new_tokens=91 leaves room"
    )
    fits = ("train.max_new_tokens=88", "evaluation.max_new_tokens=91")
    assert refused(*MINE, *fits) == ""
    more = refused(*MINE, fits[0], "evaluation.max_new_tokens=92")
    assert "training set" not in more
    assert more.endswith("--set evaluation.max_new_tokens=91 leaves room")


def test_worked_examples_that_fill_the_context_are_named_with_the_way_to_ask_without(here: Path) -> None:
    said = refused("train.tasks=train.jsonl", *MINE[1:])
    tokenizer, _ = tokenizer_here("mymodel") or (None, None)
    few, plain = (own_task(name) for name in ("train.jsonl", "train.jsonl@plain"))
    sizes = [max(len(encode(tokenizer, task, p)) for p in task.load("train", None)) for task in (few, plain)]
    assert f"a prompt of {sizes[0]:,} tokens (problem train-1)" in said
    assert f"examples take {sizes[0] - sizes[1]:,} of these tokens, @plain behind the file's name asks" in said
    assert said.endswith("--set train.max_new_tokens=88 evaluation.max_new_tokens=91 leaves room")


def test_a_prompt_that_is_too_long_by_itself_is_to_be_left_out(here: Path) -> None:
    written("mine.jsonl", ["1" * CONTEXT, "2="])
    said = refused(*MINE, "train.max_new_tokens=9", "evaluation.max_new_tokens=9")
    assert said.endswith("the prompt alone is too long: leave mine-0 out, or take another model")


def test_what_is_not_asked_does_not_count(here: Path) -> None:
    long = "1" * 60 + "="
    written("mine.jsonl", ["2=", long])
    written("train.jsonl", ["3=", "4=", "5=", "6=", "7=", "8=", "9=", "0=", long])
    short = ("train.max_new_tokens=50", "evaluation.max_new_tokens=50")
    assert "evaluation set mine, a prompt of 61 tokens" in refused(*MINE, *short)
    assert refused(*MINE, *short, "evaluation.limit=1") == "", (
        "the long training problem is left out, since it overlaps"
    )


def test_a_model_that_is_not_here_is_not_asked(here: Path) -> None:
    assert tokenizer_here("nobody/nothing") is None
    assert refused(*MINE, model="nobody/nothing") == ""


def test_a_model_folder_whose_tokenizer_does_not_load_is_refused(here: Path) -> None:
    Path("broken").mkdir()
    Path("broken/config.json").write_text('{"model_type": "nothing"}')
    assert re.match("model 'broken' does not load from broken", refused(*MINE, model="broken"))


@pytest.mark.parametrize("prompt", ["12+3=", "é+ü=", "１２="])
def test_the_bound_by_bytes_lets_nothing_through(here: Path, prompt: str) -> None:
    written("mine.jsonl", [prompt])
    tokenizer, context = tokenizer_here("mymodel") or (None, None)
    task = own_task("mine.jsonl@plain")
    problems = task.load("eval", None)
    size = len(encode(tokenizer, task, problems[0]))
    for limit in range(CONTEXT - 4 * len(prompt), CONTEXT):
        asked = [AskedTogether([AskedSet("evaluation set", task, problems, limit, own=True)], False, "limit=")]
        if size + limit > CONTEXT:
            with pytest.raises(UserError, match=f"limit={CONTEXT - size} leaves room"):
                require_room(tokenizer, context, asked)
        else:
            require_room(tokenizer, context, asked)
        require_room(tokenizer, None, asked)


def test_an_evaluation_that_does_not_fit_claims_no_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["evaluate", "--model", "mymodel", "--tasks", "mine.jsonl", "--samples", "2", "--out", "answers"]

    def end(*more: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["fspo", *words, *more])
        try:
            main.main()
        except SystemExit as stopped:
            return int(stopped.code or 0), capsys.readouterr().err
        return 0, capsys.readouterr().err

    code, said = end()
    assert (code, "--style plain asks without them; --max-new-tokens 91 leaves room" in said) == (2, True)
    assert end("--style", "plain")[0] == 2
    assert not Path("answers").exists()
    assert end("--style", "plain", "--max-new-tokens", "8")[0] == 0
    assert Path("answers/result.json").exists()
