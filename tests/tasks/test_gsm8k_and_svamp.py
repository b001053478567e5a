"""GSM8K and SVAMP: files in the data format, rows of the hub, our split, and the prompts."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from suite.types import Problem, Task, UserError, Verdict
from tasks import gsm8k, svamp
from tasks.jsonl import read_problems
from tasks.prompts import ONE_STEP, SEVERAL_STEPS, STOP

ROW = {"id": "a/1", "problem": "How many?", "answer": "3", "source": "a"}
BOTH = pytest.mark.parametrize("task", [gsm8k.TASK, svamp.TASK], ids=lambda task: task.name)
EXAMPLES = [*SEVERAL_STEPS, *ONE_STEP]


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in rows))
    return path


def svamp_rows(count: int = 1000) -> list[dict[str, str]]:
    return [
        {"id": f"svamp/chal-{n}", "problem": f"{n}?", "answer": str(n), "source": "svamp"} for n in range(1, count + 1)
    ]


def test_a_row_becomes_a_problem(tmp_path: Path):
    file = write(tmp_path / "a.jsonl", ROW, ROW | {"id": "a/2", "solution": "1 + 2\u2028= 3", "other": 5})
    assert read_problems(file, "a", "9") == [
        Problem("a/1", "How many?", "3", "a", "9"),
        Problem("a/2", "How many?", "3", "a", "9", "1 + 2\u2028= 3"),
    ]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (b'{"id": "a/2", ', "not JSON"),
        (b"", "an empty line; delete it"),
        (b'{"id": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        ([1, 2], "a list instead of an object"),
        (None, "a NoneType instead of an object"),
        ({k: v for k, v in ROW.items() if k != "answer"}, "field 'answer' is missing"),
        (ROW | {"id": "a/2", "answer": 3}, "field 'answer' is an int"),
        (ROW | {"id": "a/2", "problem": " "}, "field 'problem' is empty"),
        (ROW | {"id": "a/2", "solution": None}, "field 'solution' is a NoneType"),
        (ROW, "id 'a/1' is already on line 1"),
    ],
)
def test_a_broken_row_is_named_with_file_and_line(tmp_path: Path, broken: object, said: str):
    file = write(tmp_path / "a.jsonl", ROW, broken, ROW | {"id": "a/3"})
    with pytest.raises(UserError) as caught:
        read_problems(file, "a", "1")
    assert str(caught.value).startswith(f"{file}, line 2: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@BOTH
def test_a_missing_file_and_an_unknown_split_are_one_line(task: Task, tmp_path: Path):
    with pytest.raises(UserError, match=r"no such file.*--data-dir"):
        task.load("eval", tmp_path)
    with pytest.raises(UserError, match="unknown split 'test'; choose train or eval"):
        task.load("test", tmp_path)


def test_a_folder_instead_of_a_file_is_one_line(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be read"):
        read_problems(tmp_path, "a", "1")


def test_gsm8k_reads_train_and_test(tmp_path: Path):
    write(tmp_path / "gsm8k" / "train.jsonl", ROW | {"id": "gsm8k/train/0"})
    write(tmp_path / "gsm8k" / "test.jsonl", ROW | {"id": "gsm8k/test/0"})
    one = {split: dataclasses.replace(copy, rows=1, digest=None) for split, copy in gsm8k.SHEET.files.items()}
    sheet = dataclasses.replace(gsm8k.SHEET, files=one)
    assert [sheet.load(split, tmp_path)[0].id for split in ("train", "eval")] == ["gsm8k/train/0", "gsm8k/test/0"]


def test_svamp_is_split_by_number_whatever_the_order_of_the_file(tmp_path: Path):
    write(tmp_path / "svamp" / "test.jsonl", *reversed(svamp_rows()))
    anything = dataclasses.replace(svamp.FOLDER, digest=None)
    sheet = dataclasses.replace(svamp.SHEET, files={"train": anything, "eval": anything})
    train, evaluation = (sheet.load(split, tmp_path) for split in ("train", "eval"))
    assert [p.gold for p in train] == [str(n) for n in range(1, 701)]
    assert [p.gold for p in evaluation] == [str(n) for n in range(701, 1001)]


@pytest.mark.parametrize("rows", [svamp_rows(999), [*svamp_rows(), ROW]], ids=["one missing", "one more"])
def test_svamp_wants_the_whole_set(tmp_path: Path, rows: list):
    file = write(tmp_path / "svamp" / "test.jsonl", *rows)
    with pytest.raises(UserError, match=re.escape(str(file)) + f": {len(rows)} rows, expected 1000.*get the whole set"):
        svamp.TASK.load("train", tmp_path)


def test_svamp_wants_every_number_once(tmp_path: Path):
    write(tmp_path / "svamp" / "test.jsonl", *svamp_rows(999), ROW)
    anything = dataclasses.replace(svamp.FOLDER, digest=None)
    with pytest.raises(UserError, match="once each; get the whole set"):
        dataclasses.replace(svamp.SHEET, files={"train": anything}).load("train", tmp_path)


def test_hub_rows_become_the_problems_of_the_data_format():
    solution = "40 * 30 = <<40*30=1200>>1,200.\n#### 1,200"
    assert gsm8k.from_hub({"question": "How many? ", "answer": solution}, "train/5") == Problem(
        "gsm8k/train/5", "How many?", "1200", "gsm8k", "1", solution
    )
    row = {"ID": "chal-7", "Body": "Ann has 3 hats. Bob has 4 hats", "Question": "How many?", "Answer": "7.0"}
    wanted = Problem("svamp/chal-7", "Ann has 3 hats. Bob has 4 hats. How many?", "7", "svamp", "1")
    assert svamp.from_hub(row, "test/3") == wanted
    assert svamp.from_hub(row | {"Body": row["Body"] + ".", "Answer": 7}, "train/3") == wanted


@pytest.mark.slow
@BOTH
def test_without_the_hub_the_remedy_is_one_line(task: Task, tmp_path: Path):
    load = f"{task.name}.TASK.load('eval', None)"
    code = f"from tasks import {task.name}\ntry: {load}\nexcept Exception as error: print(repr(error))"
    offline = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("UserError")
    assert done.stdout.count("\n") == 1
    assert f"--data-dir a folder with {task.name}/" in done.stdout


@BOTH
def test_the_prompt_ends_where_the_answer_begins(task: Task):
    problem = Problem("a/1", "How many hats?", "3", task.name, "1")
    assert task.render(problem).endswith("\n\nQuestion: How many hats?\nAnswer:")
    assert task.render(problem).count("\nAnswer: ") == 4
    assert task.question(problem) == "How many hats?"


@pytest.mark.parametrize(("question", "worked"), EXAMPLES)
def test_the_examples_are_right_and_end_as_the_grader_reads(question: str, worked: str):
    *steps, last = worked.split("\n")
    sums = [re.search(r"(\d+) ([-+*/]) (\d+) = (\d+)", step) for step in steps]
    for found in sums:
        assert found is not None
        a, b, result = int(found[1]), int(found[3]), int(found[4])
        assert {"+": a + b, "-": a - b, "*": a * b, "/": a / b}[found[2]] == result
    assert sums[-1] is not None
    assert last == f"#### {sums[-1][4]}"
    assert gsm8k.TASK.grade([(worked, Problem("a", question, sums[-1][4], "a", "1"))]) == [Verdict.CORRECT]
    assert not [stop for stop in STOP if stop in worked]


def test_the_shared_sets_are_whole_and_their_solutions_are_graded_correct(shared: Path):
    data = shared / "data"
    sizes = {(t.name, s): len(t.load(s, data)) for t in (gsm8k.TASK, svamp.TASK) for s in ("train", "eval")}
    assert sizes == {("gsm8k", "train"): 7473, ("gsm8k", "eval"): 1319, ("svamp", "train"): 700, ("svamp", "eval"): 300}
    problems = [*gsm8k.TASK.load("train", data), *gsm8k.TASK.load("eval", data)]
    verdicts = gsm8k.TASK.grade([(p.solution or "", p) for p in problems])
    assert {p.id for p, verdict in zip(problems, verdicts, strict=True) if verdict != Verdict.CORRECT} == set()
    texts = {p.prompt for t in (gsm8k.TASK, svamp.TASK) for s in ("train", "eval") for p in t.load(s, data)}
    assert not texts & {question for question, _ in EXAMPLES}
