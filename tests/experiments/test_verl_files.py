"""What stands beside an exported script: the trainer's own problems as Parquet, prompts as they are, the reward."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import tasks
from suite.commands import main
from suite.config import CompareConfig, EvalConfig, TrainConfig
from suite.experiments import verl_reward
from suite.experiments.evaluation_overlap import overlaps_of
from suite.experiments.names import EMBEDDED_MODEL, tasks_named
from suite.experiments.recipe_book import RECIPES
from suite.experiments.recipes import recipe
from suite.experiments.start import source_of
from suite.experiments.verl_command import Prompts
from suite.experiments.verl_data import Problems, measured, problems_of, reward_file, stop_file, tokenizer_at_hand
from suite.experiments.verl_reward import Grader, compute_score, require_grader
from suite.policy.prompting import encode
from suite.policy.stop_texts import before_stop
from suite.types import Problem, Task, UserError, Verdict
from tasks.grading import forget, grade_problems
from tasks.prompts import BOXED_STOP, boxed_few_shot, boxed_question

ROOT = Path(__file__).resolve().parents[2]
SCORES = {
    Verdict.CORRECT: (1.0, 1.0, 0.0, 0.0),
    Verdict.WRONG: (0.0, 0.0, 0.0, 0.0),
    Verdict.NO_ANSWER: (0.0, 0.0, 1.0, 0.0),
    Verdict.UNDECIDED: (0.0, 0.0, 0.0, 1.0),
}
QUESTIONS = [
    "A ship sails {n} miles north and then {n} miles east. How far is it from its start, squared?",
    "How many diagonals does a convex polygon with {n} corners have?",
    "Find the sum of the first {n} odd numbers and write it as a square.",
]


def tiny_task(name: str, prompts: list[str], trainable: bool = True) -> Task:
    """A boxed set of our own, which no file and no hub is needed for."""
    problems = [Problem(f"{name}/{i}", text, str(i), name, "1") for i, text in enumerate(prompts)]
    return Task(
        name,
        "1",
        "ours",
        lambda split, data_dir: problems,
        lambda p: boxed_few_shot(p.prompt),
        lambda p: boxed_question(p.prompt),
        grade_problems,
        BOXED_STOP,
        16,
        trainable,
    )


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> CompareConfig:
    """A recipe whose first training problem also stands in its evaluation set."""
    training = [question.format(n=n) for n in (5, 7) for question in QUESTIONS]
    held_out = [training[0], *(f"What is {n} plus {n}? Answer with a number." for n in range(1, 4))]
    monkeypatch.setitem(tasks.TASKS, "tiny_train", tiny_task("tiny_train", training))
    monkeypatch.setitem(tasks.TASKS, "tiny_eval", tiny_task("tiny_eval", held_out, trainable=False))
    train = TrainConfig(("tiny_train",), problems_per_step=4, mini_batches=2)
    config = CompareConfig("tiny", ("fspo_zero_drift",), (0,), train, EvalConfig(("tiny_eval",), limit=3))
    monkeypatch.setitem(RECIPES, "tiny", lambda: config)
    return config


def export(out: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> dict[str, pd.DataFrame]:
    """Run the command in this process; the two Parquet files."""
    monkeypatch.setattr(sys, "argv", ["fspo", "export", *words, "--out", str(out)])
    main.main()
    return {split: pd.read_parquet(out / f"{split}.parquet") for split in ("train", "eval")}


def taken_by_the_trainer(config: CompareConfig) -> list[Problem]:
    """What a training run of the suite draws its problems from."""

    class Nothing:
        digest = tokenizer_digest = ""
        model = tokenizer = None

    nothing: Any = Nothing()
    return list(source_of(config, nothing, nothing, 0).problems)


def check_rows(frame: pd.DataFrame, problems: list[Problem], split: str, chat: bool = False) -> None:
    """Every column that verl's dataset and reward managers read, row by row."""
    assert list(frame.columns) == ["prompt", "data_source", "reward_model", "extra_info"]
    assert len(frame) == len(problems)
    for index, (row, problem) in enumerate(zip(frame.to_dict("records"), problems, strict=True)):
        (message,) = list(row["prompt"])
        task = tasks.TASKS[problem.task]
        assert message == {"role": "user", "content": task.question(problem) if chat else task.render(problem)}
        assert row["data_source"] == problem.task
        assert row["reward_model"] == {"style": "rule", "ground_truth": problem.gold}
        assert row["extra_info"] == {
            "index": index,
            "id": problem.id,
            "split": split,
            "task_version": problem.task_version,
        }


@pytest.mark.parametrize("chat", [False, True])
def test_the_files_hold_what_the_trainer_takes(
    chat: bool, tiny: CompareConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = "no-such/model" if chat else "embedded"
    words = ["tiny", "--gpus", "2", "--model", model, "--data-dir", str(tmp_path), "--set", f"train.chat={chat}"]
    found = export(tmp_path / "out", monkeypatch, *words)
    config = dataclasses.replace(tiny, train=dataclasses.replace(tiny.train, data_dir=tmp_path, chat=chat))
    wanted = taken_by_the_trainer(config)
    assert [problem.id for problem in wanted] == [f"tiny_train/{i}" for i in range(1, 6)], "the first one overlaps"
    check_rows(found["train"], wanted, "train", chat)
    check_rows(found["eval"], tasks.TASKS["tiny_eval"].load("eval", None)[:3], "eval", chat)
    said = capsys.readouterr().out
    assert "left out: 1 training problems of tiny_train stand in the evaluation set tiny_eval" in said
    text = (tmp_path / "out" / "fspo_zero_drift.sh").read_text()
    assert "data.val_max_samples=-1" in text, "the limit is in the file"
    assert ("custom_chat_template" in text) != chat
    assert json.loads((tmp_path / "out" / "agent_loop.yaml").read_text().partition("stop: ")[2]) == ["\nProblem:"]


def test_an_overlap_is_refused_where_the_recipe_says_so(
    tiny: CompareConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        export(tmp_path / "out", monkeypatch, "tiny", "--gpus", "2", "--data-dir", ".", "--set", "train.overlap=refuse")
    assert "train.overlap = 'refuse': 1 training problems of tiny_train" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.external
@pytest.mark.slow
def test_the_real_files(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [
        "qwen3-1.7b-dapo",
        "--methods",
        "fspo_zero_drift",
        "--data-dir",
        str(shared / "data"),
        "--model",
        str(EMBEDDED_MODEL),
    ]
    found = export(tmp_path / "out", monkeypatch, *words)
    config = recipe("qwen3-1.7b-dapo")
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, data_dir=(shared / "data").resolve()))
    wanted = taken_by_the_trainer(config)
    assert len(overlaps_of(config)) > 0
    check_rows(found["train"], wanted, "train")
    sets = [p for task in tasks_named(config.evaluation.tasks) for p in task.load("eval", shared / "data")]
    check_rows(found["eval"], sets, "eval")


def test_prompts_are_counted_with_the_models_tokenizer() -> None:
    config = recipe("demo")
    training, evaluation = tasks_named(config.train.tasks), tasks_named(config.evaluation.tasks)
    problems = problems_of(config, training, evaluation, set())
    tokenizer = tokenizer_at_hand(str(EMBEDDED_MODEL))
    told: list[int] = []
    found = measured(problems, config.train, tokenizer, told.append)
    all_of_them = [*problems.train, *problems.evaluation]
    lengths = [len(encode(tokenizer, problems.tasks[p.task], p)) for p in all_of_them]
    assert (found.longest, sum(told)) == (max(lengths), len(all_of_them))
    bare = measured(problems, config.train, None)
    assert bare.longest == max(len(problems.tasks[p.task].render(p).encode()) for p in all_of_them) + 1
    assert bare.longest >= found.longest
    assert "the tokenizer was not at hand" in bare.found
    assert tokenizer_at_hand("no-such/model-anywhere") is None
    assert tokenizer_at_hand("no such thing") is None


def test_a_chat_needs_a_chat_template() -> None:
    tokenizer, task = word_tokenizer(begin=True), tiny_task("t", ["a b", "c"])
    problems, train = Problems(task.load("train", None), [], {"t": task}), TrainConfig(("t",), chat=True)
    with pytest.raises(UserError, match="the tokenizer of embedded has no chat template"):
        measured(problems, train, tokenizer)
    tokenizer.chat_template = "h h {{ messages[0].content }} h h"
    assert measured(problems, train, tokenizer).longest == 4 + len(boxed_question("a b").split())
    assert "256 assumed for the chat template" in measured(problems, train, None).found


def test_the_longest_prompt_in_tokens_need_not_be_the_longest_in_bytes() -> None:
    """Words of one token each, whatever their length: most tokens are in a text with few bytes."""
    tokenizer = word_tokenizer(begin=True)
    texts = ["long" * 40, "a b c d e f g h", *("a" * n for n in range(1, 30))]
    task = dataclasses.replace(tiny_task("t", texts), render=lambda p: p.prompt)
    problems = Problems(task.load("train", None), [], {"t": task})
    assert measured(problems, TrainConfig(("t",)), tokenizer).longest == 9


def word_tokenizer(begin: bool) -> PreTrainedTokenizerFast:
    """One token a word, and a begin token before every text where asked for."""
    vocabulary = {word: i for i, word in enumerate(["<s>", "<unk>", *"abcdefgh"])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if begin:
        core.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", unk_token="<unk>")


@pytest.mark.parametrize("name", ["embedded", "begin", "none"])
def test_the_chat_template_hands_the_prompt_through(name: str) -> None:
    tokenizer: Any = (
        AutoTokenizer.from_pretrained(EMBEDDED_MODEL) if name == "embedded" else word_tokenizer(name == "begin")
    )
    task = tasks.TASKS["recurrence"] if name == "embedded" else tiny_task("t", ["a b  c\n d {{ e }} <s> f "])
    problem = task.load("train", None)[0]
    prompts = measured(Problems([problem], [], {task.name: task}), TrainConfig((task.name,)), tokenizer)
    assert prompts.begin == (name == "begin")
    messages = [{"role": "user", "content": task.render(problem)}]
    text = tokenizer.apply_chat_template(
        messages, chat_template=prompts.template, tokenize=False, add_generation_prompt=True
    )
    assert text == "<s>" * (name == "begin") + task.render(problem)
    ids = tokenizer(text, add_special_tokens=False).input_ids  # as transformers encodes what a template wrote
    assert tuple(ids) == encode(tokenizer, task, problem)


# --- the reward ------------------------------------------------------------------------------------


def score(name: str, response: str, gold: str) -> tuple[float, ...]:
    """The four numbers of `compute_score`."""
    found = compute_score(data_source=name, solution_str=response, ground_truth=gold, extra_info={"id": "x"})
    return found["score"], found["acc"], found["no_answer"], found["undecided"]


@pytest.mark.parametrize(
    ("name", "response", "gold", "verdict"),
    [
        ("gsm8k", "6 * 3 = 18\n#### 18\n\nQuestion: 5? #### 5", "18", Verdict.CORRECT),
        ("gsm8k", "#### 17", "18", Verdict.WRONG),
        ("math500", "so $\\boxed{\\frac{1}{2}}$.\nProblem: \\boxed{3}", "0.5", Verdict.CORRECT),
        ("math500", "it is $\\boxed{x + 1}$", "1 + x", Verdict.CORRECT),
        ("math500", "I give up", "x", Verdict.NO_ANSWER),
        ("aime24", "\\boxed{9^{9^{9^{9}}}}", "12", Verdict.UNDECIDED),
        ("recurrence", "02@8,3;01@3,1;00@1,4=4", "4", Verdict.CORRECT),
        ("recurrence", "4 and more", "4", Verdict.NO_ANSWER),
    ],
)
def test_a_response_gets_the_suites_verdict(name: str, response: str, gold: str, verdict: Verdict) -> None:
    assert score(name, response, gold) == SCORES[verdict]


@pytest.mark.external
@pytest.mark.slow
def test_more_than_two_hundred_responses_get_our_verdicts(shared: Path) -> None:
    """Hostile and borderline ones, and for every third problem of three sets its answer, another one's, and none."""
    files = ("hostile_answers.jsonl", "wild_answers.jsonl")
    rows = [json.loads(line) for name in files for line in (shared / "grading" / name).read_bytes().splitlines()]
    asked = [("math500", row["response"], row["gold"]) for row in rows]
    for name, split, count in (("math500", "eval", 120), ("gsm8k", "eval", 60), ("dapo_math_17k", "train", 60)):
        problems = tasks.TASKS[name].load(split, shared / "data")[:count:3]
        for one, other in zip(problems, [*problems[1:], problems[0]], strict=True):
            asked += [(name, f"so \\boxed{{{one.gold}}}\nProblem: \\boxed{{0}}", one.gold)]
            asked += [(name, f"so\n#### {other.gold}", one.gold), (name, "no idea", one.gold)]
    assert len(asked) >= 200
    forget()
    wanted = []
    for name, response, gold in asked:
        task = tasks.TASKS[name]
        wanted += task.grade([(before_stop(response, task.stop), Problem("x", "", gold, name, task.version))])
    forget()
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda row: score(*row), asked))
    assert found == [SCORES[verdict] for verdict in wanted]
    expected = [row.get("expected") for row in rows[:50]]
    assert all(value == (1.0, 1.0, 0.0, 0.0) for value, e in zip(found, expected, strict=False) if e == "correct")
    assert all(value[0] == 0 for value, e in zip(found, expected, strict=False) if e == "not_correct")
    assert set(wanted) == set(Verdict), "every verdict is among them"


def test_threads_do_not_wait_behind_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one batch is graded the others gather: two calls of the grader for all of them, each its own verdict."""
    calls: list[int] = []
    started, go_on = threading.Event(), threading.Event()

    def grade(pairs: Any) -> list[Verdict]:
        calls.append(len(pairs))
        started.set()
        assert go_on.wait(60)
        return [Verdict.CORRECT if text == problem.gold else Verdict.WRONG for text, problem in pairs]

    monkeypatch.setitem(tasks.TASKS, "slow", dataclasses.replace(tiny_task("slow", ["a"]), grade=grade))
    grader = Grader()
    with ThreadPoolExecutor(32) as threads:
        first = threads.submit(grader.verdict, Problem("x", "", "1", "slow", "1"), "1")
        assert started.wait(60)
        rest = [threads.submit(grader.verdict, Problem("x", "", str(i), "slow", "1"), str(i % 2)) for i in range(20)]
        while len(grader._waiting) < 20:
            threading.Event().wait(0.01)
        go_on.set()
        assert first.result(60) is Verdict.CORRECT
        assert [future.result(60) for future in rest] == [Verdict.CORRECT] * 2 + [Verdict.WRONG] * 18
    assert calls == [1, 20]


def test_an_error_of_the_grader_reaches_every_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(pairs: Any) -> list[Verdict]:
        raise UserError("math-verify does not start")

    monkeypatch.setitem(tasks.TASKS, "broken", dataclasses.replace(tiny_task("broken", ["a"]), grade=broken))
    with ThreadPoolExecutor(8) as threads:
        futures = [threads.submit(score, "broken", "1", "1") for _ in range(8)]
        for future in futures:
            with pytest.raises(UserError, match="math-verify does not start"):
                future.result(60)
    assert score("gsm8k", "#### 2", "2") == SCORES[Verdict.CORRECT], "the next batch is none the worse"


def test_what_the_grader_needs_is_said() -> None:
    with pytest.raises(UserError, match="data_source 'openai/gsm8k': no task of the suite; there are: recurrence"):
        compute_score("openai/gsm8k", "#### 2", "2")
    with pytest.raises(UserError, match="task gsm8k: version 1, grader 3 here, 7 in the data files; export them again"):
        require_grader({"gsm8k": "7"}, 8)


def test_the_cores_of_a_machine_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = verl_reward.own_pool()
    before = pool.workers
    monkeypatch.setattr(verl_reward, "cores", lambda: 32)
    try:
        require_grader({"gsm8k": "1, grader 3"}, 8)
        assert pool.workers == 4
        monkeypatch.setattr(verl_reward, "cores", lambda: 2)
        require_grader({"gsm8k": "1, grader 3"}, 8)
        assert pool.workers == 1
    finally:
        pool.workers = before


def test_the_reward_file_as_verl_loads_it_and_as_a_program(tmp_path: Path) -> None:
    """By path; and importing it loads no transformers, which verl pins to versions that the suite does not support."""
    path = tmp_path / "compute_score.py"
    path.write_text(reward_file([tasks.TASKS["gsm8k"], tasks.TASKS["recurrence"]]))
    spec = importlib.util.spec_from_file_location("custom_module", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    workers = verl_reward.own_pool().workers
    spec.loader.exec_module(module)
    verl_reward.own_pool().workers = workers
    assert module.compute_score("gsm8k", "#### 2", "2")["score"] == 1.0
    program = "import runpy, sys; runpy.run_path(sys.argv[1]); print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    heavy = {"transformers", "pandas", "scipy", "sympy", "math_verify", "datasets", "pyarrow", "matplotlib"}
    assert not heavy & set(done.stdout.split())
    path.write_text(path.read_text().replace('"gsm8k": "1, grader 3"', '"gsm8k": "0"'))
    done = subprocess.run(
        [sys.executable, str(path)], cwd=tmp_path, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 1
    assert "task gsm8k: version 1, grader 3 here, 0 in the data files" in done.stderr


def test_the_stop_file_is_yaml() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML comes with transformers")
    (entry,) = yaml.safe_load(stop_file(("\n\n", 'Say "stop":')))
    assert entry["stop"] == ["\n\n", 'Say "stop":']
    assert entry["_target_"] == "fspo.plugins.verl.stopping_agent_loop"


def test_what_is_unknown_is_said() -> None:
    assert Prompts().begin is None
    assert "{{ bos_token }}" not in Prompts().template
    assert Prompts(begin=True).template.startswith("{{ bos_token }}{%")
