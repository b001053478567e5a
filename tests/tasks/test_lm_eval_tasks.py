"""The sets as lm-eval tasks, without lm-eval: every file says what the suite's own task says, and grades as it does."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from suite.evaluation import lm_eval_model
from suite.evaluation.lm_eval_model import require_lm_eval
from suite.experiments.embedded.tiny_model import character_tokenizer
from suite.policy.prompting import with_verdicts
from suite.policy.stop_texts import before_stop
from suite.types import FinishReason, Problem, Rollout, Task, UserError, Verdict
from tasks import LM_EVAL_TASKS, TASKS
from tasks.lm_eval import bridge

FILES = sorted(path for path in LM_EVAL_TASKS.glob("*.yaml") if path.stem != "_base")


class Loader(yaml.SafeLoader):
    """Reads `!function module.name` as that text."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def read(path: Path) -> dict[str, Any]:
    """A file with what it includes; its own keys win."""
    with path.open(encoding="utf-8") as file:
        mine = yaml.load(file, Loader)
    included = mine.pop("include", None)
    return (read(path.parent / included) if included else {}) | mine


def evaluable(task: Task) -> bool:
    try:
        task.load("eval", Path("no such folder"))
    except UserError as error:
        return "no such file" in str(error)
    return True


def test_there_is_a_file_for_every_set_that_can_be_evaluated() -> None:
    assert {path.stem for path in FILES} == {name for name, task in TASKS.items() if evaluable(task)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_says_what_the_task_says(path: Path) -> None:
    told, task = read(path), TASKS[path.stem]
    assert told["task"] == f"fspo_{task.name}"
    assert told["dataset_kwargs"] == {"of": task.name}
    assert told["metadata"] == {"version": task.version}
    assert told["generation_kwargs"] == {
        "until": list(task.stop),
        "max_gen_toks": task.max_new_tokens,
        "do_sample": False,
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
    }
    assert told["num_fewshot"] == 0


def test_the_functions_that_the_files_name_are_there() -> None:
    base = read(LM_EVAL_TASKS / "_base.yaml")
    named = [base["custom_dataset"], base["process_results"], base["filter_list"][0]["filter"][0]["filter_fn"]]
    for name in named:
        module, _, function = name.partition(".")
        assert module == "bridge"
        assert inspect.isfunction(getattr(bridge, function))
    metrics = {metric["metric"] for metric in base["metric_list"]}
    assert metrics == bridge.verdict_shares(document(Problem("a", "?", "3", "gsm8k", "1")), [["3"]]).keys()


def document(problem: Problem) -> dict[str, Any]:
    """A problem as lm-eval hands it back."""
    return dataclasses.asdict(problem) | {bridge.ASK: TASKS[problem.task].render(problem)}


def test_documents_are_the_evaluation_split_with_its_prompts() -> None:
    task = TASKS["gcd"]
    rows = list(bridge.documents("gcd", version="1", pretrained="some/model")["eval"])
    assert rows == [document(problem) for problem in task.load("eval", None)]


def test_documents_come_from_the_data_folder_and_can_be_asked_bare(shared: Path) -> None:
    for name in ("svamp", "aime24"):
        problems = TASKS[name].load("eval", shared / "data")
        for chat, text in ((False, TASKS[name].render), (True, TASKS[name].question)):
            rows = bridge.documents(name, data_dir=str(shared / "data"), chat=chat)["eval"]
            assert list(rows[bridge.ASK]) == [text(problem) for problem in problems]
            assert list(rows["id"]) == [problem.id for problem in problems]


def test_a_missing_data_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        bridge.documents("gsm8k", data_dir=str(tmp_path))


PLANTED = {
    " He has 3 + 4 = 7.\n#### 7": Verdict.CORRECT,
    " She has \\boxed{7.0} apples.": Verdict.CORRECT,
    " It is 8.\n#### 8": Verdict.WRONG,
    " I do not know.": Verdict.NO_ANSWER,
    "": Verdict.NO_ANSWER,
    " \\boxed{9999^{99999}}": Verdict.UNDECIDED,
}


def test_shares_are_those_of_the_verdicts_that_the_grader_gives() -> None:
    problem = Problem("gsm8k/test/0", "How many?", "7", "gsm8k", "1")
    assert TASKS["gsm8k"].grade([(text, problem) for text in PLANTED]) == list(PLANTED.values())
    for text, verdict in PLANTED.items():
        wanted = dict.fromkeys(("accuracy", "no_answer", "undecided"), 0.0)
        if verdict != Verdict.WRONG:
            wanted["accuracy" if verdict == Verdict.CORRECT else verdict.value] = 1.0
        assert bridge.verdict_shares(document(problem), [[text]]) == wanted
    assert bridge.verdict_shares(document(problem), [list(PLANTED)]) == {
        "accuracy": 2 / 6,
        "no_answer": 2 / 6,
        "undecided": 1 / 6,
    }


def test_every_sample_is_kept_in_order() -> None:
    assert bridge.every_sample(iter([["a", "b"], ["c", "d"]]), [{}, {}]) == [["a", "b"], ["c", "d"]]


@given(st.text("ab\n:", max_size=12), st.lists(st.text("ab\n:", min_size=1, max_size=3), max_size=3))
def test_what_stands_before_the_stop_text(text: str, stop: list[str]) -> None:
    kept = before_stop(text, stop)
    assert text == kept or any(text.startswith(kept + mark) for mark in stop)
    assert not any(mark in kept for mark in stop)


def test_a_response_is_graded_up_to_its_stop_text() -> None:
    """The stop text belongs to the response, but what it cuts off is no part of the answer."""
    tokenizer = character_tokenizer("#Question: 7", 64)
    problem = Problem("gsm8k/test/0", "How many?", "7", "gsm8k", "1")
    text = "#### 7Question:"
    ids = tuple(tokenizer(text).input_ids)
    drawn = Rollout(problem.id, 0, 0, (1,), ids, (0.0,) * len(ids), FinishReason.STOP)
    assert tokenizer.decode(list(ids)) == text
    (graded,) = with_verdicts(tokenizer, {"gsm8k": TASKS["gsm8k"]}, [problem], [drawn])
    assert (graded.verdict, graded.reward, graded.response_ids) == (Verdict.CORRECT, 1.0, ids)
    assert TASKS["gsm8k"].grade([(text, problem)]) != [Verdict.CORRECT]


def test_a_missing_lm_eval_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lm_eval_model, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"make install-lm-eval.*pip install .*\[lm-eval\]'"):
        require_lm_eval()
