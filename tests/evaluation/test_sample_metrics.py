"""Metrics of stored samples: equal to what counting every subset by hand gives, whatever k is."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from fractions import Fraction

import pandas as pd
import pytest

from suite.evaluation import sample_metrics as module
from suite.evaluation.sample_metrics import majority_at_k, pass_hat_k, sample_metrics, subsets
from suite.report.tables import sample_tables
from suite.types import Problem, UserError, Verdict
from tasks.answers import vote
from tasks.embedded_tasks import TASKS as ARITHMETIC
from tasks.gsm8k import TASK as GSM8K

N = 6
TEXTS = ("7", "8", "9", None)


def rows(seed: int, problems: int = 5, task: str = "a") -> list[dict]:
    """Samples whose answer "7" is right, an answer None is missing, and a "9" is sometimes undecided."""
    rng = random.Random(seed)
    found = []
    for problem, sample in itertools.product(range(problems), range(N)):
        answer = rng.choice(TEXTS)
        verdict = {"7": "correct", None: "no_answer"}.get(answer, "wrong")
        if answer == "9" and rng.random() < 0.5:
            verdict = "undecided"
        finish = rng.choice(("stop", "length"))
        found.append(
            {
                "task": task,
                "problem": f"p{problem}",
                "sample": sample,
                "verdict": verdict,
                "answer": answer,
                "finish": finish,
                "length": rng.randrange(1, 50),
            }
        )
    return found


def by_hand(found: list[dict], k: int) -> dict[str, Fraction]:
    """Means over all subsets of k samples of every problem, in exact fractions."""
    sums = {name: Fraction(0) for name in ("avg_at_k", "pass_at_k", "pass_hat_k", "maj_at_k")}
    problems = sorted({row["problem"] for row in found})
    for problem in problems:
        mine = [row for row in found if row["problem"] == problem]
        every = list(itertools.combinations(mine, k))
        for subset in every:
            right = [row["verdict"] == "correct" for row in subset]
            votes = Counter(row["answer"] for row in subset if row["answer"] is not None)
            best = [answer for answer, count in votes.items() if count == max(votes.values())]
            weight = Fraction(1, len(every) * len(problems))
            sums["avg_at_k"] += weight * Fraction(sum(right), k)
            sums["pass_at_k"] += weight * any(right)
            sums["pass_hat_k"] += weight * all(right)
            sums["maj_at_k"] += weight * (Fraction("7" in best, len(best)) if best else 0)
    return sums


@pytest.mark.parametrize("seed", range(4))
def test_every_metric_equals_the_count_over_all_subsets(seed: int) -> None:
    found = rows(seed) + rows(seed + 100, problems=3, task="b")
    table = sample_metrics(pd.DataFrame(found), range(1, N + 1))
    for row in table.to_dict("records"):
        mine = [r for r in found if r["task"] == row["task"]]
        for name, value in by_hand(mine, row["k"]).items():
            assert row[name] == pytest.approx(float(value), abs=1e-12), (row["task"], row["k"], name)
        for share, verdict in (("undecided_share", "undecided"), ("no_answer_share", "no_answer")):
            assert row[share] == sum(r["verdict"] == verdict for r in mine) / len(mine)
        assert row["truncated_share"] == sum(r["finish"] == "length" for r in mine) / len(mine)
        assert row["mean_length"] == pytest.approx(sum(r["length"] for r in mine) / len(mine), rel=1e-12)
        assert (row["problems"], row["samples"]) == (len(mine) // N, N)


def test_with_one_sample_all_four_are_one_number_and_they_are_ordered() -> None:
    table = sample_metrics(pd.DataFrame(rows(5)), [1, 3, N])
    one = table.iloc[0]
    assert one["avg_at_k"] == pytest.approx(one["pass_at_k"]) == pytest.approx(one["pass_hat_k"])
    assert one["maj_at_k"] == pytest.approx(one["avg_at_k"])
    assert (table["pass_hat_k"] <= table["avg_at_k"]).all()
    assert (table["maj_at_k"] <= table["pass_at_k"]).all()


def test_the_order_of_samples_decides_nothing() -> None:
    answers, correct = ["8", "7", "9", "7", "8", None], [False, True, False, True, False, False]
    expected = {k: majority_at_k(answers, correct, subsets(N, k)) for k in range(1, N + 1)}
    order = [5, 2, 4, 1, 0, 3]
    for k, value in expected.items():
        again = majority_at_k([answers[i] for i in order], [correct[i] for i in order], subsets(N, k))
        assert again == pytest.approx(value, abs=1e-12)


def test_too_many_subsets_are_sampled_without_bias_and_repeatably(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, correct = ["7"] * 5 + ["8"] * 6, [True] * 5 + [False] * 6
    exact = majority_at_k(answers, correct, subsets(11, 5))
    monkeypatch.setattr(module, "SUBSETS", 400)
    drawn = subsets(11, 5)
    assert drawn.shape == (400, 5)
    assert (drawn == subsets(11, 5)).all()
    assert all(len(set(row)) == 5 and list(row) == sorted(row) for row in drawn.tolist())
    # four standard errors of a share over 400 subsets
    assert majority_at_k(answers, correct, drawn) == pytest.approx(exact, abs=4 * 0.5 / 400**0.5)


def test_what_does_not_depend_on_k_is_shown_once_a_set() -> None:
    frame = pd.DataFrame(rows(1, task="one") + rows(2, task="two"))
    by_k, shares = sample_tables(sample_metrics(frame, [1, 2, 3]))
    assert [*zip(by_k["set"], by_k["k"], strict=True)] == [(name, k) for name in ("one", "two") for k in (1, 2, 3)]
    assert [*shares["set"]] == ["one", "two"]
    assert not set(by_k) & set(shares) - {"set"}


def test_what_cannot_be_counted_is_refused() -> None:
    found = pd.DataFrame(rows(0))
    with pytest.raises(UserError, match="--k 7: a has 6 samples a problem"):
        sample_metrics(found, [1, 7])
    with pytest.raises(UserError, match="p4 has 5 samples, others 6"):
        sample_metrics(found.iloc[:-1], [1])
    with pytest.raises(UserError, match="without a verdict"):
        sample_metrics(found.assign(verdict=None), [1])
    with pytest.raises(UserError, match=r"without a verdict \(strict\)"):
        sample_metrics(found, [1], "strict")
    for function in (lambda: pass_hat_k([1], 4, 5), lambda: subsets(4, 0)):
        with pytest.raises(ValueError, match="1 <= k <= 4"):
            function()


# --- what is voted for ----------------------------------------------------------------------------

RESPONSES = (
    "#### 18",
    r"\boxed{18.0}",
    "so $18.00.",
    r"\boxed{\frac{36}{2}}",
    "#### 17",
    r"\boxed{x+1}",
    "",
    "nothing",
    r"\boxed{}",
    "1,800",
    "####",
)


def test_a_vote_is_missing_exactly_where_there_is_no_answer() -> None:
    problem = Problem("p", "?", "18", "gsm8k", "1")
    verdicts = GSM8K.grade([(text, problem) for text in RESPONSES])
    assert [GSM8K.answer(text, problem) is None for text in RESPONSES] == [v == Verdict.NO_ANSWER for v in verdicts]
    right = {GSM8K.answer(text, problem) for text, v in zip(RESPONSES, verdicts, strict=True) if v == Verdict.CORRECT}
    assert right == {"18"}
    assert vote(r"\boxed{x+1}", "18") == "x+1"


@pytest.mark.parametrize("text", ["1,2;3=4", "4", "=", "", "3=", "1=2=4", "5=5"])
def test_the_same_holds_for_generated_sets(text: str) -> None:
    for task in ARITHMETIC:
        problem = Problem("p", "1,2;", "4", task.name, task.version)
        (verdict,) = task.grade([(text, problem)])
        answer = task.answer(text, problem)
        assert (answer is None) == (verdict == Verdict.NO_ANSWER)
        assert (answer == "4") == (verdict == Verdict.CORRECT)


def test_written_sets_are_judged_by_the_whole_panel_and_its_reward_is_the_verdict() -> None:
    problem = Problem("p", "?", "18", "gsm8k", "1")
    pairs = [(text, problem) for text in RESPONSES[:5]]
    assert list(GSM8K.panel) == ["strict", "loose", "numeric", "math_verify"]
    assert GSM8K.panel["loose"](pairs) == GSM8K.grade(pairs)
    assert GSM8K.panel["strict"](pairs)[0] == Verdict.NO_ANSWER
