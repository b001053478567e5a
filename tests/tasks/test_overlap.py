"""Problems that a training and an evaluation set share: found, left out, counted, or refused."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path

import pytest

import suite.experiments.names
import suite.experiments.recipe_book
from small_world import ODD, small_config, tiny
from suite.config import CompareConfig, EvalConfig, TrainConfig
from suite.experiments.evaluation_overlap import left_out, overlap_lines, overlaps_of
from suite.experiments.names import EMBEDDED_TASKS
from suite.experiments.recipes import Changes, resolved
from suite.policy.prompting import data_digest
from suite.policy.sampling import TransformersSampler
from suite.training.rollout_source import RolloutSource
from suite.types import Problem, Task, UserError
from tasks import TASKS
from tasks.overlap import PIECE, SIMILAR, counts, overlaps, same_answer, similarity
from tasks.text import plain

LONG = "A baker makes {} trays of rolls and {} trays of buns; every tray holds {} pieces. How many pieces does he make?"


def problem(number: int, prompt: str, gold: str = "1", task: str = "a") -> Problem:
    return Problem(f"{task}/{number}", prompt, gold, task, "1")


def found(train: list[Problem], evaluation: list[Problem]) -> list[tuple[str, str, str]]:
    return [(pair.train.id, pair.evaluation.id, pair.kind) for pair in overlaps(train, evaluation)]


EVALUATION = [
    problem(0, LONG.format(3, 4, 12), "84", "b"),
    problem(1, "Compute $\\sin^{2} 4^{\\circ}$ to one digit.", "0", "b"),
]


def test_markup_case_and_spacing_do_not_hide_a_problem():
    train = [
        problem(0, "compute\n\\[ \\sin^2 4^\\circ \\] to one digit"),
        problem(1, "Compute $\\cos^2 4^\\circ$ to one digit."),
    ]
    assert found(train, EVALUATION) == [("a/0", "b/1", "exact")]


def test_a_reworded_request_is_the_same_problem_whatever_its_answer():
    train = [problem(0, f"{LONG.format(3, 4, 12)} Please provide the sum of the digits.", "12")]
    assert found(train, EVALUATION) == [("a/0", "b/0", "exact")]


def test_near_needs_the_same_answer():
    almost = LONG.format(3, 4, 12).replace("A baker", "One baker")
    assert found([problem(0, almost, "$84$"), problem(1, almost, "85")], EVALUATION) == [("a/0", "b/0", "near")]


def test_a_problem_inside_a_longer_one_is_near():
    longer = f"It is early in the morning. {LONG.format(3, 4, 12)} Count the burnt ones too, and say it in words."
    assert found([problem(0, longer, "84")], EVALUATION) == [("a/0", "b/0", "near")]


def test_letters_strewn_over_a_long_text_are_not_a_problem_inside_it():
    short, scattered = "howmanypieces", "xx".join("howmanypieces") + "y" * 40
    assert similarity(short, scattered) < SIMILAR
    assert similarity(short, "y" * 40 + short) == 1.0


@pytest.mark.parametrize(("one", "other"), [("\\dfrac{1}{2}", "$\\frac{1}{2}$"), ("30^{\\circ}", "30"), ("7.", "7")])
def test_answers_are_compared_without_markup(one: str, other: str):
    assert same_answer(one, other)
    assert not same_answer(one, "8")


def words(rng: random.Random) -> Iterator[str]:
    while True:
        yield "".join(rng.choice("abcdefghij") for _ in range(rng.randint(2, 9)))


def test_the_index_finds_what_comparing_every_pair_finds():
    """Texts with planted edits: the filter loses no pair that the definition names."""
    rng = random.Random(2509)
    source = words(rng)
    evaluation = [problem(i, " ".join(next(source) for _ in range(20)), str(i % 3), "b") for i in range(40)]
    train = []
    for i, original in enumerate(evaluation):
        for edits in (0, 1, 3, 6, 12):
            text = list(original.prompt)
            for _ in range(edits):
                text[rng.randrange(len(text))] = rng.choice("klmnop ")
            train.append(problem(10 * i + edits, "".join(text), str(rng.randrange(3))))
    wanted = set()
    for one in train:
        for other in evaluation:
            a, b = plain(one.prompt), plain(other.prompt)
            matcher = SequenceMatcher(None, a, b, autojunk=False)
            pieces = sum(size for _, _, size in matcher.get_matching_blocks() if size >= PIECE)
            alike = max(matcher.ratio(), pieces / min(len(a), len(b))) >= 0.9
            if a == b or (alike and one.gold == other.gold):
                wanted.add((one.id, other.id, "exact" if a == b else "near"))
    assert set(found(train, evaluation)) == wanted
    assert {kind for *_, kind in wanted} == {"exact", "near"}


def test_counts_name_a_training_problem_once_for_each_pair_of_sets():
    same = [problem(0, "What is $x$?", "1"), problem(1, "Unlike all others."), problem(0, "What is $x$?", "1", "c")]
    asked = [problem(0, "what is x", "1", "b"), problem(1, "What is $x$", "2", "b")]
    assert counts(overlaps(same, asked)) == {"a / b": {"exact": 1, "near": 0}, "c / b": {"exact": 1, "near": 0}}
    assert counts([]) == {}
    assert overlaps([], asked) == overlaps(same, []) == []


@pytest.mark.parametrize("texts", [["?"], ["", "x"], ["x" * (PIECE - 1)], ["求x", "x"]])
def test_short_and_empty_texts_are_compared_as_they_are(texts: list[str]):
    train = [problem(i, text) for i, text in enumerate(texts)]
    evaluation = [problem(i, text, task="b") for i, text in enumerate(texts)]
    assert {(f"a/{i}", f"b/{i}", "exact") for i in range(len(texts))} <= set(found(train, evaluation))


# --- in a comparison --------------------------------------------------------------------------------


def task(name: str, train: list[Problem], evaluation: list[Problem]) -> Task:
    problems = {"train": train, "eval": evaluation}
    return dataclasses.replace(ODD, name=name, load=lambda split, data_dir: problems[split])


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> CompareConfig:
    """A comparison that trains on `a`, which holds one of `b`'s problems, beside a generated task."""
    train = [problem(i, LONG.format(i, i + 1, 12), str(12 * (2 * i + 1))) for i in (3, 30, 55, 71, 96)]
    sets = {"a": task("a", train, []), "b": task("b", [], EVALUATION)}
    monkeypatch.setattr(suite.experiments.names.tasks, "TASKS", {**TASKS, **sets})
    tasks = ("a", "recurrence")
    return CompareConfig("x", ("grpo",), (0,), TrainConfig(tasks, steps=1), EvalConfig(("b", "recurrence")))


def test_what_overlaps_is_counted_and_told(config: CompareConfig):
    assert [(f.train.id, f.evaluation.id) for f in overlaps_of(config)] == [("a/3", "b/0")]
    assert left_out(config) == {"a / b": {"exact": 1, "near": 0}}
    assert overlap_lines(config) == [
        "1 training problems of a stand in the evaluation set b (1 word for word, 0 nearly)"
    ]


def test_refuse_stops_before_anything_is_trained(config: CompareConfig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(suite.experiments.recipe_book.RECIPES, "x", lambda: config)
    assert resolved("x", Changes()) == config
    with pytest.raises(UserError, match=r"1 training problems of a .*a/3 and b/0 are alike.*train.overlap=exclude"):
        resolved("x", Changes(set=("train.overlap=refuse",)))


def test_generated_tasks_are_left_out_of_the_search(config: CompareConfig):
    train = dataclasses.replace(config.train, tasks=suite.experiments.recipe_book.TRAINED, overlap="refuse")
    embedded = dataclasses.replace(config, train=train, evaluation=EvalConfig(EMBEDDED_TASKS))
    assert overlaps_of(embedded) == ()
    assert left_out(embedded) == {}


def test_rollouts_never_draw_a_problem_that_is_left_out():
    model, tokenizer = tiny()
    settings = small_config(problems_per_step=4)
    problems = ODD.load("train", None)
    held_out = {p.id for p in problems[:30]}
    source = RolloutSource.of(model, tokenizer, TransformersSampler(model, tokenizer), [ODD], settings, 0, {}, held_out)
    assert list(source.problems) == problems[30:]
    assert source.digests["data"] == data_digest(problems[30:])
    assert not {p.id for step in range(10) for p in source.problems_of(step)} & held_out


# --- the sets as they are ---------------------------------------------------------------------------


@pytest.mark.slow
def test_the_known_pairs_are_found(shared: Path):
    """All 86 known pairs, the exact ones as exact; 30 more, most of them reworded so that the answer is an integer."""
    lines = (shared / "data/overlaps.jsonl").read_text(encoding="utf-8").splitlines()
    known = {(row["train_id"], row["test_id"]): row["kind"] for row in map(json.loads, lines)}
    evaluation = [
        p for name in ("amc23", "math500", "olympiadbench") for p in TASKS[name].load("eval", shared / "data")
    ]
    pairs = overlaps(TASKS["dapo_math_17k"].load("train", shared / "data"), evaluation)
    mine = {(pair.train.id, pair.evaluation.id): pair.kind for pair in pairs}
    assert {pair for pair, kind in known.items() if kind == "exact"} <= {
        p for p, kind in mine.items() if kind == "exact"
    }
    assert known.keys() <= mine.keys()
    assert len(mine.keys() - known.keys()) == 30
    assert all(pair.kind == "exact" or same_answer(pair.train.gold, pair.evaluation.gold) for pair in pairs)


@pytest.mark.slow
def test_no_other_pair_of_the_known_sets_overlaps(shared: Path):
    names = ("aime24", "aime25", "minerva_math", "gsm8k", "svamp")
    evaluation = [p for name in names for p in TASKS[name].load("eval", shared / "data")]
    for name in ("dapo_math_17k", "deepmath", "gsm8k"):
        assert counts(overlaps(TASKS[name].load("train", shared / "data"), evaluation)) == {}
