"""A file of somebody's own problems in the place of a task's name: asked, graded and recorded like any set."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from suite.commands import main
from suite.commands.evaluate import asked
from suite.config import CompareConfig, EvalConfig, TrainConfig
from suite.experiments.evaluation_overlap import overlaps_of
from suite.experiments.names import tasks_named
from suite.experiments.recipes import Changes, resolved
from suite.records.result import read_file
from suite.types import UserError, Verdict
from tasks import TASKS
from tasks.own_problems import STYLES, own_task

ROWS = [
    {"id": "a", "problem": "What is $1 + 1$?", "answer": "2"},
    {"id": "b", "problem": "What is half of 3?", "answer": "\\frac{3}{2}", "solution": "3 / 2"},
    {"id": "c", "problem": "What is $7 - 4$?", "answer": "3", "source": "mine"},
]


def written(folder: Path, rows: Any = ROWS, name: str = "mine.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def test_a_file_is_a_task(tmp_path: Path) -> None:
    (task,) = tasks_named([str(written(tmp_path))])
    problems = task.load("eval", None)
    assert task.name == "mine"
    assert [(p.id, p.prompt, p.gold, p.task) for p in problems] == [
        (row["id"], row["problem"], row["answer"], "mine") for row in ROWS
    ]
    assert task.load("train", None) == problems
    texts = [r"so \boxed{2}", r"that is \boxed{1.5}", r"\boxed{4}"]
    assert task.grade([*zip(texts, problems, strict=True)]) == [Verdict.CORRECT, Verdict.CORRECT, Verdict.WRONG]


def test_numbers_stand_for_their_text(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_text('{"id": 1, "problem": "1 + 3 =", "answer": 4}\n{"id": 2, "problem": "3 / 2 =", "answer": 1.50}\n')
    numbers = own_task(str(path))
    assert [(p.id, p.gold) for p in numbers.load("eval", None)] == [("1", "4"), ("2", "1.50")]
    path.write_text(path.read_text().replace("4}", '"4"}'))
    assert own_task(str(path)).version == numbers.version
    path.write_text(path.read_text() + '{"id": "1", "problem": "?", "answer": 1}\n')
    with pytest.raises(UserError, match="line 3: id '1' is already on line 1"):
        own_task(str(path))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"id": True, "problem": "?", "answer": None},
         "field 'id' is a bool, field 'answer' is a NoneType; give each a non-empty string"),
        ({"id": 1, "problem": 2, "answer": 3, "level": 4, "solution": []},
         "field 'problem' is an int; give it a non-empty string; field 'level' is an int, field 'solution' is a list; "
         "make each a string or leave it out"),
        ({"id": 1, "problem": "?", "answer": float("nan")}, "field 'answer' is a float; give it a non-empty string"),
    ],
)  # fmt: skip
def test_all_that_is_wrong_with_a_row_is_said_at_once(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = written(tmp_path, [row])
    with pytest.raises(UserError) as refused:
        own_task(str(path))
    assert str(refused.value) == f"{path}, line 1: {said}"


def test_styles_ask_as_the_sets_do(tmp_path: Path) -> None:
    path = written(tmp_path)
    for style, like in (("boxed", "math500"), ("worked", "gsm8k")):
        mine, theirs = own_task(f"{path}@{style}"), TASKS[like]
        problem = mine.load("eval", None)[0]
        assert mine.render(problem) == theirs.render(problem)
        assert mine.question(problem) == theirs.question(problem)
        assert mine.stop == theirs.stop
    plain = own_task(f"{path}@plain")
    assert plain.render(plain.load("eval", None)[0]) == ROWS[0]["problem"]
    assert own_task(str(path)).stop == STYLES["boxed"].stop


def test_another_content_is_another_version(tmp_path: Path) -> None:
    first = own_task(str(written(tmp_path)))
    same = own_task(f"{written(tmp_path, name='copy.jsonl')}@plain")
    other = own_task(str(written(tmp_path, [*ROWS[:2], {**ROWS[2], "answer": "4"}])))
    assert first.version == same.version != other.version


BAD = {
    "nowhere": ("no/such.jsonl", "no such file"),
    "a style that is none": ("{path}@shouted", "style 'shouted'; there are: boxed, worked, plain"),
    "a name that no folder can have": ("{folder}/a b.jsonl", "name the file with letters"),
    "the name of a set": ("{folder}/gsm8k.jsonl", "is a set of the suite"),
    "no answer": ("{folder}/bare.jsonl", "line 1: field 'answer' is missing"),
    "an id twice": ("{folder}/twice.jsonl", "line 2: id 'a' is already on line 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_no_set_is_refused(case: str, tmp_path: Path) -> None:
    path = written(tmp_path)
    written(tmp_path, name="a b.jsonl")
    written(tmp_path, name="gsm8k.jsonl")
    written(tmp_path, [{"id": "a", "problem": "?"}], "bare.jsonl")
    written(tmp_path, [ROWS[0], ROWS[0]], "twice.jsonl")
    reference, said = BAD[case]
    with pytest.raises(UserError, match=said):
        tasks_named([reference.format(path=path, folder=tmp_path)])


def test_names_of_results_are_those_of_files() -> None:
    evaluation = EvalConfig(("data/mine.jsonl@plain", "gcd"), limits=("mine=3",))
    assert (evaluation.limit_of("mine"), evaluation.limit_of("gcd")) == (3, None)
    CompareConfig("x", ("grpo",), (0,), TrainConfig(("gcd",)), evaluation, primary="mine")
    with pytest.raises(UserError, match="mean or one of mine, gcd"):
        CompareConfig("x", ("grpo",), (0,), TrainConfig(("gcd",)), evaluation, primary="data/mine.jsonl")
    with pytest.raises(UserError, match="distinct"):
        EvalConfig(("a/mine.jsonl", "b/mine.jsonl"))


def test_a_style_is_for_own_files() -> None:
    assert asked(["gcd", "mine.jsonl"], "plain") == ("gcd", "mine.jsonl@plain")
    assert asked(["gcd"], None) == ("gcd",)
    with pytest.raises(UserError, match="--style"):
        asked(["gcd"], "plain")


def test_what_one_trains_on_is_not_what_one_is_evaluated_on(tmp_path: Path) -> None:
    train = written(tmp_path, ROWS, "train.jsonl")
    held_out = written(tmp_path, [{**ROWS[0], "id": "z"}], "held-out.jsonl")
    settings = (f"train.tasks={train}@plain", f"evaluation.tasks={held_out}@plain,gcd")
    settings += ("train.max_new_tokens=60", "evaluation.max_new_tokens=60")
    config = resolved("smoke", Changes(set=settings))
    assert [(found.train.id, found.evaluation.id) for found in overlaps_of(config)] == [("a", "z")]


def test_a_model_is_evaluated_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    problems = TASKS["gcd"].load("eval", None)[:4]
    written(tmp_path, [{"id": p.id, "problem": p.prompt, "answer": p.gold} for p in problems])
    monkeypatch.chdir(tmp_path)
    words = ["evaluate", "--tasks", "mine.jsonl", "--style", "plain", "--samples", "2", "--max-new-tokens", "60"]
    monkeypatch.setattr(sys, "argv", ["fspo", *words, "--out", "out"])
    main.main()
    (found,) = read_file(tmp_path / "out" / "result.json").evals
    assert found.task == "mine"
    assert found.task_version.startswith(own_task("mine.jsonl").version)
    assert [len(row) for row in found.verdicts] == [2] * 4
    assert "mine" in capsys.readouterr().out


@pytest.mark.parametrize("words", [["evaluate", "--through", "lm-eval"], ["export", "smoke"]])
def test_others_that_know_the_suites_sets_only_say_so(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path)
    given = ["--tasks", str(path)] if words[0] == "evaluate" else ["--set", f"evaluation.tasks={path}"]
    monkeypatch.setattr(sys, "argv", ["fspo", *words, *given])
    monkeypatch.setattr("suite.commands.evaluate_lm_eval.require_lm_eval", lambda: None)
    with pytest.raises(SystemExit) as stopped:
        main.main()
    assert stopped.value.code == 2
    assert "suite's sets only" in capsys.readouterr().err
