"""The maths sets: rows, digests, flaws left out, rows of the hub, and copies that are refused."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import tasks.data_sheet
from suite.types import Problem, UserError, Verdict
from tasks import (
    REAL_SETS,
    TASKS,
    aime24,
    aime25,
    aime26,
    amc23,
    dapo_math_17k,
    deepmath,
    hmmt_feb26,
    math500,
    minerva_math,
    olympiadbench,
)
from tasks.data_cards import cards
from tasks.data_sheet import Copy, Sheet
from tasks.prompts import BOX, BOXED, BOXED_STOP
from tasks.text import content_digest, plain, tidy

ROOT = Path(__file__).resolve().parents[2]
SETS = pytest.mark.parametrize("module", REAL_SETS, ids=lambda module: module.NAME)
BOXED_SETS = [module for module in REAL_SETS if module.NAME not in ("gsm8k", "svamp")]
UNPINNED = (aime26, hmmt_feb26)
"""Sets of which no copy was at hand: their cards say so."""
USABLE = {
    ("gsm8k", "train"): 7473,
    ("gsm8k", "eval"): 1319,
    ("svamp", "train"): 700,
    ("svamp", "eval"): 300,
    ("math500", "eval"): 500,
    ("aime24", "eval"): 30,
    ("aime25", "eval"): 30,
    ("aime26", "eval"): 30,
    ("hmmt_feb26", "eval"): 33,
    ("amc23", "eval"): 40,
    ("minerva_math", "eval"): 272,
    ("olympiadbench", "eval"): 675 - 19,
    ("dapo_math_17k", "train"): 14028 - 33,
    ("deepmath", "train"): 4994,
}


def problem(number: int, prompt: str, gold: str = "1", task: str = "a") -> Problem:
    return Problem(f"{task}/{number}", prompt, gold, task, "1")


def written(folder: Path, file: str, problems: Iterable[Problem]) -> Path:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = ({"id": p.id, "problem": p.prompt, "answer": p.gold, "source": "ours"} for p in problems)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# --- a small set of ours, in a folder and on a pretended hub ---------------------------------------

OURS = [problem(0, "What is $2 + 2$?", "4"), problem(1, "What is $3 \\cdot 5$?", "15")]


def from_row(row: dict[str, Any], place: str) -> Problem:
    return problem(int(place.rpartition("/")[2]), row["q"], row["a"])


def sheet(rows: int = 2, digest: str | None = None) -> Sheet:
    split = {"eval": Copy(("test",), rows, digest)}
    hub = tasks.data_sheet.Hub("us/a", "f" * 40, split, ("q", "a"), from_row)
    return Sheet("a", "1", "ours", "Apache-2.0", "none", {"eval": Copy(("a/test.jsonl",), rows, digest)}, hub)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The rows that the hub answers with."""
    rows = [{"q": p.prompt, "a": p.gold} for p in OURS]
    monkeypatch.setattr(tasks.data_sheet, "hub_rows", lambda *asked: rows)
    return rows


def test_folder_and_hub_give_the_same_problems(tmp_path: Path, hub: list):
    written(tmp_path, "a/test.jsonl", OURS)
    whole = sheet(digest=content_digest(OURS))
    assert whole.load("eval", tmp_path) == whole.load("eval", None) == OURS


def test_an_altered_row_is_refused_with_expected_and_found(tmp_path: Path, hub: list):
    altered = [OURS[0], dataclasses.replace(OURS[1], gold="16")]
    expected, found = content_digest(OURS)[:12], content_digest(altered)[:12]
    file = written(tmp_path, "a/test.jsonl", altered)
    hub[1]["a"] = "16"
    for data_dir, place in ((tmp_path, str(file)), (None, "us/a")):
        with pytest.raises(UserError) as caught:
            sheet(digest=content_digest(OURS)).load("eval", data_dir)
        assert str(caught.value).startswith(f"{place}: content digest {found}, expected {expected}")
        assert "\n" not in str(caught.value)


def test_another_number_of_rows_is_refused(tmp_path: Path, hub: list):
    file = written(tmp_path, "a/test.jsonl", OURS[:1])
    hub.append(hub[0])
    with pytest.raises(UserError, match=f"^{file}: 1 rows, expected 2 of a; get the whole set"):
        sheet().load("eval", tmp_path)
    with pytest.raises(UserError, match=r"^us/a: 3 rows, expected 2 of a; give --data-dir a folder with a/test.jsonl"):
        sheet().load("eval", None)


def test_a_hub_row_in_another_form_is_named(hub: list):
    hub[1] = {"question": "?"}
    with pytest.raises(UserError, match=r"^us/a, row test/1: not in the known form \(KeyError: 'q'\); give --data-dir"):
        sheet().load("eval", None)


def test_a_split_that_a_set_does_not_have_is_refused():
    with pytest.raises(UserError, match="task aime24: it is for evaluation only; choose another one for training"):
        aime24.TASK.load("train", None)
    with pytest.raises(UserError, match="task deepmath: it is for training only; choose another one for evaluation"):
        deepmath.TASK.load("eval", None)
    assert [name for name in ("aime24", "deepmath") if not TASKS[name].trainable] == ["aime24"]


@SETS
def test_a_missing_file_is_one_line(module: ModuleType, tmp_path: Path):
    for split, copy in module.SHEET.files.items():
        with pytest.raises(UserError, match=f"{copy.where[0]}: no such file; task {module.NAME} needs it"):
            module.TASK.load(split, tmp_path)


# --- texts -----------------------------------------------------------------------------------------


def test_the_content_digest_sees_words_and_answers_and_nothing_else():
    digest = content_digest(OURS)
    spaced = [dataclasses.replace(p, id=f"b/{i}", prompt=p.prompt.replace(" ", "\n  ")) for i, p in enumerate(OURS)]
    assert content_digest(reversed(spaced)) == digest
    for change in ({"prompt": OURS[0].prompt.replace("+", "-")}, {"gold": "5"}, {"prompt": OURS[0].prompt.lower()}):
        assert content_digest([dataclasses.replace(OURS[0], **change), OURS[1]]) != digest
    assert content_digest([*OURS, OURS[0]]) != digest
    swapped = [dataclasses.replace(OURS[0], gold="15"), dataclasses.replace(OURS[1], gold="4")]
    assert content_digest(swapped) != digest


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("\x0crac12", "\\frac12"),
        ("a \times b", "a \\times b"),
        ("\x08eta", "\\beta"),
        ("x \neq y", "x \\neq y"),
        ("\right)", "\\right)"),
        ("one\ntwo\tthree", "one\ntwo\tthree"),
        ("a\r\nb\u00a0c\u200bd\x88", "a\nb cd"),
        ("the \x0cirst", "the irst"),
    ],
)
def test_tidy_mends_what_an_escape_ate_and_leaves_the_rest(broken: str, mended: str):
    assert tidy(broken) == mended
    assert tidy(mended) == mended


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Find $\\dfrac{x}{2}$.", "find\n\\[ \\frac x2 \\]"),
        ("Let $x_{1}, \\ldots, x_{n} \\leqslant 1$.", "Let $x_1,\\dots,x_n\\le 1$"),
        ("How many?", "How many? Please provide the value of $m+n$."),
        ("How many?", "How many? The answer is in the form \\frac{m}{n}. Please provide the value of m + n."),
    ],
)
def test_plain_is_blind_to_markup_and_to_the_form_asked_for(one: str, other: str):
    assert plain(one) == plain(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("$\\sin x$", "$\\cos x$"), ("$a + b$", "$a - b$"), ("$x \\leq 1$", "$x \\geq 1$"), ("$x = 12$", "$x = 1$")],
)
def test_plain_keeps_what_makes_two_problems(one: str, other: str):
    assert plain(one) != plain(other)


def test_with_the_request_kept_another_request_is_another_problem():
    one, other = "How many? Please provide the value of m.", "How many? Please provide the value of n."
    assert plain(one) == plain(other)
    assert plain(one, keep_request=True) != plain(other, keep_request=True)


# --- rows of the hub, of our own making, in each hub's columns ---------------------------------------

ASKED = "What is $\\frac{1}{2} + 1$?"
CHAT = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    f"$Answer (without quotes) where $Answer is the answer to the problem.\n\n{ASKED}\n\n"
    'Remember to put your answer on its own line after "Answer:".'
)
WIKI = "https://wiki.example/index.php/{}_Problems/Problem_{}"
HUB_ROWS = {
    "math500": (
        math500,
        {"problem": ASKED, "solution": "so", "answer": "\\frac32", "unique_id": "test/algebra/7.json"},
        ("math/test/algebra/7", "\\frac32"),
    ),
    "aime24": (
        aime24,
        {"problem": ASKED, "answer": "073", "url": WIKI.format("2024_AIME_II", 9)},
        ("aime/2024-II-9", "73"),
    ),
    "aime25": (aime25, {"problem": ASKED, "answer": "336^\\circ", "id": "19"}, ("aime/2025-II-5", "336")),
    "aime26": (aime26, {"problem": ASKED, "answer": "070", "id": 3}, ("aime/2026-3", "70")),
    "hmmt": (
        hmmt_feb26,
        {"problem": ASKED, "answer": "\\frac{1}{2}", "problem_idx": 33},
        ("hmmt/feb-2026-33", "\\frac{1}{2}"),
    ),
    "aime25 first": (aime25, {"problem": ASKED, "answer": "70", "id": 0}, ("aime/2025-I-1", "70")),
    "amc23": (
        amc23,
        {"question": ASKED, "answer": 27.0, "url": WIKI.format("2023_AMC_12A", 1)},
        ("amc/2023-12A-1", "27"),
    ),
    "minerva": (minerva_math, {"question": ASKED, "answer": "4.5e33"}, ("minerva_math/3", "4.5e33")),
    "olympiadbench": (
        olympiadbench,
        {"id": 1606, "context": None, "question": ASKED, "final_answer": ["$2$", "$-3$"]},
        ("olympiadbench/1606", "2,-3"),
    ),
    "dapo": (
        dapo_math_17k,
        {"prompt": [{"content": CHAT, "role": "user"}], "reward_model": {"ground_truth": "34"}},
        ("dapo_math_17k/3", "34"),
    ),
    "deepmath": (deepmath, {"question": ASKED, "final_answer": "Yes"}, ("deepmath_103k/3", "Yes")),
}


@pytest.mark.parametrize("case", HUB_ROWS)
def test_a_hub_row_becomes_a_problem(case: str):
    module, row, (problem_id, gold) = HUB_ROWS[case]
    made = module.from_hub(row, "test/3")
    assert (made.id, made.prompt, made.gold, made.task) == (problem_id, ASKED, gold, module.NAME)
    assert set(module.SHEET.hub.columns) == set(row)


def test_a_context_stands_before_its_question():
    row = {"id": 1, "context": "Let $n = 3$.", "question": "What is $2n$?", "final_answer": ["$6$"]}
    assert olympiadbench.from_hub(row, "train/0").prompt == "Let $n = 3$.\nWhat is $2n$?"


# --- flaws -----------------------------------------------------------------------------------------


def test_problems_without_their_value_are_left_out():
    kept, dropped = problem(1606, "?", task="olympiadbench"), problem(2721, "?", task="olympiadbench")
    assert olympiadbench.with_value("eval", [dropped, kept]) == [kept]
    assert len(olympiadbench.WITHOUT_VALUE) == 19


def test_problems_with_contradictory_answers_are_left_out_all_of_them():
    repeated = [problem(0, "What is $x$?", "1"), problem(1, "What  is\n\\(x\\)?", "1")]
    torn = [problem(2, "What is $y$?", "1"), problem(3, "what is $y$", "2"), problem(4, "What is $y$?", "1")]
    asked_apart = [problem(5, "How many? Please give m.", "3"), problem(6, "How many? Please give n.", "4")]
    assert dapo_math_17k.consistent("train", [*repeated, *torn, *asked_apart]) == [*repeated, *asked_apart]


def test_the_hub_s_hundred_copies_become_one_and_other_scripts_go():
    rows = [problem(0, "One?"), problem(1, "求 $x$"), problem(2, "One?"), problem(3, "One?", "2"), problem(4, "Two?")]
    assert [p.id for p in dapo_math_17k.english_once(iter(rows))] == ["a/0", "a/3", "a/4"]


# --- prompts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", BOXED_SETS, ids=lambda module: module.NAME)
def test_a_boxed_prompt_ends_where_the_solution_begins(module: ModuleType):
    asked = problem(0, "How many hats?", task=module.NAME)
    assert module.TASK.render(asked).endswith("\n\nProblem: How many hats?\nSolution:")
    assert module.TASK.render(asked).count("\nSolution: ") == len(BOXED)
    assert module.TASK.question(asked) == f"How many hats?\n\n{BOX}"


def test_the_boxed_examples_are_read_by_the_grader_and_hold_no_stop():
    golds = ("91", "\\frac{3}{28}", "[4,5]", "4\\sqrt{2}")
    pairs = [(worked, problem(0, asked, gold)) for (asked, worked), gold in zip(BOXED, golds, strict=True)]
    assert math500.TASK.grade(pairs) == [Verdict.CORRECT] * len(BOXED)
    assert not [stop for stop in BOXED_STOP if any(stop in worked for _, worked in BOXED)]
    assert (20 + 6) // 2 * ((20 - 6) // 2) == 91
    assert 3 * 2 * 28 == 3 * 8 * 7
    assert all(t**2 - 9 * t + 20 == 0 for t in (4, 5))


# --- the sets as they are --------------------------------------------------------------------------


@SETS
def test_every_set_says_where_it_comes_from(module: ModuleType):
    assert TASKS[module.NAME] is module.TASK
    assert module.SHEET.hub.dataset in module.__doc__
    assert module.SHEET.hub.splits.keys() == module.SHEET.files.keys()
    if module in UNPINNED:
        assert module.SHEET.flaws == "untested; content and hub revision not pinned: no copy was at hand"
        assert "Loading it is untested." in " ".join((module.__doc__ or "").split())
        return
    assert all(len(copy.digest or "") == 64 for copy in module.SHEET.files.values())
    pinned = len(module.REVISION) == 40
    assert pinned or all(copy.digest for copy in module.SHEET.hub.splits.values()), "neither revision nor digest"


@SETS
def test_the_page_on_data_names_every_set(module: ModuleType):
    sheet = module.SHEET
    rows = " + ".join(f"{USABLE[module.NAME, split]:,}" for split in sheet.files)
    use = {"train": "train", "eval": "evaluate"}
    splits = " + ".join(use[split] for split in sheet.files)
    line = f"| {module.NAME} | {splits} | {rows} | `{sheet.hub.dataset}` | {sheet.licence} | {sheet.flaws} |"
    assert line in (ROOT / "docs" / "models-and-data.md").read_text(encoding="utf-8"), line


def test_the_page_of_cards_is_made_from_the_sets():
    """By `python -m tasks.data_cards > docs/data-cards.md`."""
    assert (ROOT / "docs" / "data-cards.md").read_text(encoding="utf-8") == cards()


@SETS
def test_a_card_does_not_contradict_itself(module: ModuleType):
    """Flaws of its prose stand in its table, and one copy that two splits are cut out of has one row."""
    (card,) = (part for part in cards().split("\n### ") if part.startswith(f"{module.NAME}\n"))
    assert not ("\nFlaws:" in card and "| known flaws | none" in card)
    copies = re.findall(r"^\| [a-z ]+: (?:data folder|hub) \| (.*) \|$", card, re.MULTILINE)
    assert len(set(copies)) == len(copies) > 0


@pytest.mark.slow
@SETS
def test_the_shared_set_is_whole(module: ModuleType, shared: Path):
    """Rows, digest and ids: `load` checks the first two, and refuses."""
    if module in UNPINNED:
        pytest.skip("no copy of it is at hand")
    for split in module.SHEET.files:
        problems = module.TASK.load(split, shared / "data")
        assert len(problems) == USABLE[module.NAME, split]
        assert len({p.id for p in problems}) == len(problems)
        assert not {p.prompt for p in problems} & {question for question, _ in BOXED}


def test_the_olympiad_rows_left_out_are_those_that_wait_for_a_value(shared: Path):
    rows = (shared / "data/olympiadbench/test.jsonl").read_text(encoding="utf-8").splitlines()
    texts = {row["id"]: row["problem"] for row in map(json.loads, rows)}
    waits = {
        name for name, text in texts.items() if re.search(r"T=T N Y W R|you (?:will )?receive from position", text)
    }
    assert waits == olympiadbench.WITHOUT_VALUE
    kept = {p.id for p in olympiadbench.TASK.load("eval", shared / "data")}
    assert kept == texts.keys() - olympiadbench.WITHOUT_VALUE
