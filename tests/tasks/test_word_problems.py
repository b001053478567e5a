"""The generated word problems: answers recomputed from the words alone, splits apart, the same on every machine."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from statistics import mean

import pytest

from suite.config import EvalConfig
from suite.evaluation.evaluate import by_kind, evaluation_problems
from suite.policy.prompting import data_digest
from suite.types import EvalResult, Problem, UserError, Verdict
from tasks import GENERATED_TASKS, TASKS
from tasks.word_problems import EXAMPLES, LARGEST, NAMES, STEPS, THINGS, WORDINGS, worked_problems

WORDS, LONG = TASKS["word_problems"], TASKS["word_problems_long"]
SPLITS = [(WORDS, "train"), (WORDS, "eval"), (LONG, "eval")]
EACH_SPLIT = pytest.mark.parametrize(("task", "split"), SPLITS, ids=lambda x: x if isinstance(x, str) else x.name)

STARTS = r"^(\w+ (has|starts)|One day|At first)"
MEANINGS = [
    (r"times as (many|large)", lambda amount, n: amount * n),
    (r"equal piles|equal bags|equally between|same number on each", lambda amount, n: amount / n),
    (r"buys|finds|gets|gives (her|him)|makes|brings|draws|lends", lambda amount, n: amount + n),
    (r"sells|loses|gives|borrows|uses|takes|breaks|leaves", lambda amount, n: amount - n),
]


def amounts_in(question: str) -> list[float]:
    """The amount after every sentence that has a number, understood from its words."""
    first, *others = [s for s in re.split(r"(?<=[.?]) ", question) if re.search(r"\d", s)]
    assert re.match(STARTS, first), first
    amounts = [float(re.findall(r"\d+", first)[0])]
    for sentence in others:
        (number,) = re.findall(r"\d+", sentence)
        done = [act for words, act in MEANINGS if re.search(words, sentence)]
        assert done, f"no meaning: {sentence}"
        amounts.append(done[0](amounts[-1], int(number)))
    return amounts


@EACH_SPLIT
def test_answers_follow_from_the_words_and_amounts_stay_whole_and_small(task, split: str) -> None:
    for problem in task.load(split, None)[:4000]:
        amounts = amounts_in(problem.prompt)
        assert amounts[-1] == float(problem.gold), problem.prompt
        assert all(amount == int(amount) and 2 <= amount <= LARGEST for amount in amounts), problem.prompt
        assert f"{len(amounts) - 1} step" in task.kind(problem)


@EACH_SPLIT
def test_she_and_he_are_one_person_in_a_story(task, split: str) -> None:
    pronouns = {name: she.capitalize() for name, she, _ in NAMES}
    for problem in task.load(split, None):
        people = [name for name in pronouns if re.search(rf"\b{name}\b", problem.prompt)]
        hero = problem.prompt.split("How many")[1]
        hero = next((name for name in people if name in hero), people[0])
        assert all(name == hero or pronouns[name] != pronouns[hero] for name in people), problem.prompt
        other = {"She": "He", "He": "She"}[pronouns[hero]]
        assert not re.search(rf"\b({other}|{'her' if other == 'She' else 'him'})\b", problem.prompt), problem.prompt


def test_the_examples_of_the_prompt_are_right_too() -> None:
    for split, examples in EXAMPLES.items():
        assert len(examples) == 4
        for question, solution in examples:
            assert amounts_in(question)[-1] == float(solution.rpartition("#### ")[2])
            for sentence in skeleton(question):
                assert sentence in wordings_of(split), sentence


@EACH_SPLIT
def test_solutions_are_true_lines_one_a_step_that_the_common_grader_accepts(task, split: str) -> None:
    problems = task.load(split, None)[:1500]
    for problem in problems:
        *lines, last = problem.solution.split("\n")
        amounts = amounts_in(problem.prompt)
        assert len(lines) == len(amounts) - 1
        for line, before, after in zip(lines, amounts[:-1], amounts[1:], strict=True):
            found = re.fullmatch(r"(\d+) ([-+*/]) (\d+) = (\d+)", line)
            assert found, line
            a, sign, b, c = found.groups()
            results = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b), "/": int(a) / int(b)}
            assert (float(a), results[sign], float(c)) == (before, after, after)
        assert last == f"#### {problem.gold}"
    right = [(problem.solution, problem) for problem in problems]
    assert set(task.grade(right)) == {Verdict.CORRECT}
    wrong = [(f"#### {int(problem.gold) + 1}", problem) for problem in problems[:50]]
    assert set(task.grade(wrong)) == {Verdict.WRONG}


def skeleton(question: str) -> list[str]:
    """Its sentences without names, pronouns, things and numbers."""
    people = "|".join(word for name in NAMES for word in name) + "|He|She|Nora|Sam|Elif|Max|Ivan|Rosa"
    plain = re.sub(rf"\b({people})\b", "P", question)
    things = "|".join([*THINGS, "eggs", "pens", "keys", "nails"])
    plain = re.sub(rf"\b({things})\b", "T", re.sub(r"\d+", "N", plain))
    return re.split(r"(?<=[.?]) ", plain)


def wordings_of(split: str) -> set[str]:
    """The sentences of a split's problems."""
    task = LONG if split == "long" else WORDS
    problems = task.load("eval" if split == "long" else split, None)
    return {sentence for problem in problems for sentence in skeleton(problem.prompt)}


def test_no_two_splits_share_a_problem_or_the_wording_of_a_sentence() -> None:
    for one, other in itertools.combinations(WORDINGS, 2):
        assert not wordings_of(one) & wordings_of(other)
    prompts = [p.prompt for task, split in SPLITS for p in task.load(split, None)]
    assert len(set(prompts)) == len(prompts) == 4_000 + 400 + 200
    ids = [p.id for task, split in SPLITS for p in task.load(split, None)]
    assert len(set(ids)) == len(ids)
    patterns = [p for split in WORDINGS.values() for field in vars(split).values() for p in field]
    assert len(set(patterns)) == len(patterns)


def test_every_pattern_is_used_and_no_sentence_follows_itself() -> None:
    for task, split in SPLITS:
        problems = task.load(split, None)
        used = {sentence for p in problems for sentence in skeleton(p.prompt)}
        patterns = WORDINGS["long" if task is LONG else split]
        assert len(used) >= sum(len(field) for field in vars(patterns).values())
        for problem in problems[:2000]:
            sentences = skeleton(problem.prompt)
            assert all(a != b for a, b in itertools.pairwise(sentences)), problem.prompt


def test_longer_problems_have_longer_solutions() -> None:
    lengths: dict[int, list[int]] = {}
    for story in itertools.islice(worked_problems("lengths", dict.fromkeys(range(1, 13), 1), "train"), 2000):
        lengths.setdefault(story.steps, []).append(len(story.solution.split()))
    means = [mean(lengths[n]) for n in range(1, 13)]
    assert all(b - a >= 4 for a, b in itertools.pairwise(means))


def test_steps_have_the_stated_shares() -> None:
    count = Counter(WORDS.kind(p) for p in WORDS.load("train", None))  # type: ignore[misc]
    for steps, weight in STEPS.items():
        share = count[f"{steps:>2} step{'s' * (steps > 1)}"] / 4_000
        # A second problem of the same text is left out: the shortest lose some.
        assert share == pytest.approx(weight / sum(STEPS.values()), abs=0.025)


def test_the_prompt_has_four_examples_of_names_and_things_that_no_problem_has() -> None:
    problem = WORDS.load("eval", None)[0]
    prompt = WORDS.render(problem)
    assert prompt.count("Question:") == prompt.count("Answer:") == 5
    assert prompt.endswith(f"Question: {problem.prompt}\nAnswer:")
    taken = (*THINGS, *(name for name, *_ in NAMES))
    assert not any(word in text for examples in EXAMPLES.values() for text, _ in examples for word in taken)


def test_a_prompt_is_in_the_wording_of_its_split() -> None:
    for task, split in SPLITS:
        problems = task.load(split, None)[:20]
        own = "long" if task is LONG else split
        starts = {task.render(problem).removesuffix(f"Question: {problem.prompt}\nAnswer:") for problem in problems}
        (start,) = starts
        assert all(question in start and solution in start for question, solution in EXAMPLES[own])


def test_problems_are_the_same_on_every_machine_and_for_ever() -> None:
    digests = {(task.name, split): data_digest(task.load(split, None))[:16] for task, split in SPLITS}
    assert digests == {
        ("word_problems", "train"): "f13b8ffd6d372e9e",
        ("word_problems", "eval"): "0321a5ba2b7b3ccd",
        ("word_problems_long", "eval"): "9f42e7a5c2d6a20f",
    }


def test_training_problems_never_run_out() -> None:
    many = list(itertools.islice(worked_problems("more", STEPS, "train"), 30_000))
    assert len({story.question for story in many}) > 25_000


def test_bad_splits_are_refused() -> None:
    with pytest.raises(UserError, match="word_problems: unknown split 'test'"):
        WORDS.load("test", None)
    with pytest.raises(UserError, match="word_problems_long: it is for evaluation only"):
        LONG.load("train", None)
    assert not LONG.trainable
    assert {"word_problems", "word_problems_long"} < set(GENERATED_TASKS)


def test_limits_of_single_sets_go_before_the_common_one() -> None:
    config = EvalConfig(("word_problems", "word_problems_long"), limit=7, limits=("word_problems=3",))
    assert [len(evaluation_problems(task, None, config)) for task in (WORDS, LONG)] == [3, 7]
    for bad in ("word_problems=0", "word_problems", "svamp=3", "word_problems=x"):
        with pytest.raises(UserError, match="limits"):
            EvalConfig(("word_problems",), limits=(bad,))


def test_a_result_by_kind_has_every_problem_once() -> None:
    problems = [
        Problem(f"word_problems/eval/{i}-steps{n}", f"{i}?", "1", "word_problems", "1")
        for i, n in enumerate((2, 10, 1, 2))
    ]
    right, wrong = Verdict.CORRECT, Verdict.WRONG
    verdicts = ((right, wrong), (wrong, wrong), (right, right), (wrong, right))
    result = EvalResult("word_problems", "1", "d", tuple(p.id for p in problems), verdicts, ((1, 2),) * 4, 0.5)
    found = by_kind(result, WORDS, problems)
    assert [(one.task, len(one.problem_ids)) for one in found] == [
        ("word_problems,  1 step", 1),
        ("word_problems,  2 steps", 2),
        ("word_problems, 10 steps", 1),
    ]
    assert found[1].verdicts == (verdicts[0], verdicts[3])
    assert sorted(i for one in found for i in one.problem_ids) == sorted(result.problem_ids)
