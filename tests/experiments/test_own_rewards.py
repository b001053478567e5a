"""A reward of the user's own: partial credit reaches the advantages, accuracies count what is fully right."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from baselines import METHODS
from small_world import ODD, small_config, tiny
from suite.commands import main
from suite.commands.compare import code_of
from suite.commands.evaluate import asked
from suite.config import CompareConfig, EvalConfig, TrainConfig
from suite.evaluation.evaluate import judgement
from suite.evaluation.sample_store import REWARD, Sample
from suite.experiments.names import tasks_named
from suite.experiments.own_rewards import OwnReward, judged_by, own_reward, reward_digests
from suite.experiments.reward_check import checked_reward
from suite.policy.sampling import SamplingSettings, TransformersSampler
from suite.records.comparison_folder import claim_folder
from suite.report.comparison_text import _own_rewards
from suite.training.rollout_source import RolloutSource
from suite.training.trainer import Trainer
from suite.types import FinishReason, Problem, Rollout, UserError, Verdict

PROBLEM = Problem("p1", "1 + 1 =", "2", "mine", "1", solution="1 + 1 = 2")
PROBLEMS = [PROBLEM, Problem("p2", "2 + 2 =", "4", "mine", "1")]
CLOSE = """
from suite.types import Verdict
def CLOSE(text, problem):
    digits = [c for c in text if c in "0123456789"]
    return 1 / (1 + abs(int(digits[-1]) - int(problem.gold))) if digits else Verdict.NO_ANSWER
NOTHING = 3
"""


def reward(function: Any) -> OwnReward:
    return OwnReward("mine:R", function, "d1gest")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a file of problems and a module `close` with a reward, in which the process is."""
    rows = [{"id": p.id, "problem": p.prompt, "answer": p.gold} for p in PROBLEMS]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "close.py").write_text(CLOSE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    sys.modules.pop("close", None)


@pytest.mark.parametrize(
    ("value", "verdict", "number"),
    [
        (1, Verdict.CORRECT, 1.0),
        (0.999, Verdict.WRONG, 0.999),
        (2.5, Verdict.CORRECT, 2.5),
        (-0.5, Verdict.WRONG, -0.5),
        (True, Verdict.CORRECT, 1.0),
        (np.float32(0.5), Verdict.WRONG, 0.5),
        (Verdict.CORRECT, Verdict.CORRECT, 1.0),
        (Verdict.NO_ANSWER, Verdict.NO_ANSWER, 0.0),
        (Verdict.UNDECIDED, Verdict.UNDECIDED, 0.0),
    ],
)
def test_a_number_or_a_verdict_is_both(value: Any, verdict: Verdict, number: float) -> None:
    assert reward(lambda text, problem: value).of("", PROBLEM) == (verdict, number)


def raises(error: BaseException) -> Any:
    def function(text: str, problem: Problem) -> float:
        raise error

    return function


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (raises(KeyError("x")), "KeyError: 'x'"),
        (raises(SystemExit(3)), "SystemExit: 3"),
        (lambda text, problem: float("nan"), "returned nan"),
        (lambda text, problem: -float("inf"), "returned -inf"),
        (lambda text, problem: 1e30, "returned 1e+30"),
        (lambda text, problem: "correct", "returned str"),
        (lambda text, problem: None, "returned NoneType"),
        (lambda text: 1.0, "TypeError"),
    ],
)
def test_what_is_neither_is_one_line_with_the_reward_and_the_problem(function: Any, said: str) -> None:
    with pytest.raises(UserError, match=r"^reward mine:R, problem 'p1' of mine: ") as error:
        reward(function).score([("", PROBLEM)])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_names_its_reward_and_results_name_its_digest(here: Path) -> None:
    (task,) = tasks_named(["mine.jsonl@plain@close:CLOSE"])
    problem = task.load("eval", None)[0]
    assert (task.name, task.render(problem)) == ("mine", problem.prompt)
    assert task.scored([("3", problem), ("2", problem), ("", problem)]) == [
        (Verdict.WRONG, 0.5),
        (Verdict.CORRECT, 1.0),
        (Verdict.NO_ANSWER, 0.0),
    ]
    assert task.grade([("3", problem), ("2", problem)]) == [Verdict.WRONG, Verdict.CORRECT]
    digest = own_reward("close:CLOSE").digest
    (plain,) = tasks_named(["mine.jsonl@plain"])
    assert task.judged_version == f"{plain.version}, grader own reward close:CLOSE, {digest}"
    (boxed,) = tasks_named(["mine.jsonl@close:CLOSE"])
    assert boxed.render(problem) == tasks_named(["mine.jsonl"])[0].render(problem)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gsm8k@close:CLOSE", "for problems of your own"),
        ("mine.jsonl@close:NOTHING", "is an int, not a function"),
        ("mine.jsonl@close:ABSENT", "reward close:ABSENT does not load"),
        ("mine.jsonl@nowhere:X", "reward nowhere:X does not load"),
        ("mine.jsonl@math:sqrt", "no source file"),
        ("mine.jsonl@shouted@close:CLOSE", "style 'shouted'"),
    ],
)
def test_a_name_that_is_no_reward_is_refused(name: str, said: str, here: Path) -> None:
    with pytest.raises(UserError, match=said):
        tasks_named([name])


def test_an_edited_reward_is_refused_by_the_folder_of_the_old_one(here: Path) -> None:
    train = TrainConfig(("mine.jsonl@plain@close:CLOSE",))
    config = CompareConfig("mine", ("rloo",), (0,), train, EvalConfig(("gcd",)))
    before = code_of(config)
    assert before == {**before, **reward_digests(train.tasks)}
    claim_folder(config, here / "out", [], before)
    report: Any = SimpleNamespace(config=config, out=here / "out")
    (sentence,) = _own_rewards(report)
    assert f"`close:CLOSE` (source {before['close:CLOSE']})" in sentence
    without = replace(config, train=replace(train, tasks=("gcd",)))
    report_without: Any = SimpleNamespace(config=without, out=here / "none")
    assert list(_own_rewards(report_without)) == []
    (here / "close.py").write_text(CLOSE + "# edited\n")
    sys.modules.pop("close")
    with pytest.raises(UserError, match="holds results of close:CLOSE before its code changed"):
        claim_folder(config, here / "out", [], code_of(config))


def test_an_evaluation_counts_what_is_fully_right_and_keeps_the_suites_opinion() -> None:
    def equal(pairs: Any) -> list[Verdict]:
        return [Verdict.CORRECT if text == problem.gold else Verdict.WRONG for text, problem in pairs]

    task = judged_by(replace(ODD, grade=equal), reward(lambda text, problem: 1.0 if text == "yes" else 0.75))
    stored = [("yes", 0), ("2", 1)]
    samples = [Sample("mine", "p1", i, i, 0, "", "", "2", text, (1,), FinishReason.STOP) for text, i in stored]
    judged = judgement(task, PROBLEMS, samples)
    assert judged.verdicts[REWARD] == [Verdict.CORRECT, Verdict.WRONG]
    assert judged.verdicts["suite"] == [Verdict.WRONG, Verdict.CORRECT]


class Counting(TransformersSampler):
    """Counts what it is asked for."""

    asked = 0

    def sample(self, requests: Any, settings: SamplingSettings, on_progress: Any = None) -> list[Rollout]:
        self.asked += len(requests)
        return super().sample(requests, settings, on_progress)


def share_of_length(text: str, problem: Problem) -> float:
    """Never fully right."""
    return len(text) / 100


def partial_source(**changes: Any) -> RolloutSource:
    model, tokenizer = tiny()
    task = judged_by(ODD, reward(share_of_length))
    return RolloutSource.of(model, tokenizer, Counting(model, tokenizer), [task], small_config(**changes), 0, {})


def test_partial_credit_reaches_rewards_the_log_and_the_advantages(tmp_path: Path) -> None:
    source = partial_source(steps=1)
    recorded = source.record(0)
    texts = source.tokenizer.batch_decode([list(r.response_ids) for r in recorded.rollouts], skip_special_tokens=True)
    expected = [len(text) / 100 for text in texts]
    assert [r.reward for r in recorded.rollouts] == pytest.approx(expected)
    assert {r.verdict for r in recorded.rollouts} == {Verdict.WRONG}
    assert len(set(expected)) > 2
    (row,) = Trainer(source.config, METHODS["rloo"], 0, source, tmp_path, recorded).run()
    assert row["reward/mean"] == pytest.approx(np.mean(expected))
    assert row["grad_norm/max"] > 0  # with verdicts alone every advantage were 0
    assert row["reward/uniform_group_share"] < 1


def test_dynamic_sampling_keeps_groups_that_partial_credit_tells_apart() -> None:
    source = partial_source(dynamic_sampling=3)
    groups = [r.problem_id for r in source.record(0).rollouts]
    assert source.sampler.asked == len(groups) == 16


def test_the_penalty_for_length_comes_on_top() -> None:
    plain, penalised = (partial_source(overlong_buffer=n).record(0).rollouts for n in (0, 10))
    for a, b in zip(plain, penalised, strict=True):
        over = max(0, len(a.response_ids) - 14) / 10
        assert b.reward == pytest.approx(a.reward - over)


def test_reward_is_for_own_files() -> None:
    assert asked(["gcd", "a.jsonl"], "plain", "m:R") == ("gcd", "a.jsonl@plain@m:R")
    assert asked(["a.jsonl"], None, "m:R") == ("a.jsonl@m:R",)
    for tasks, name in ((["gcd"], "m:R"), (["a.jsonl"], "mR")):
        with pytest.raises(UserError, match="--reward"):
            asked(tasks, None, name)


# --- the check --------------------------------------------------------------------------------------


def sound(text: str, problem: Problem) -> float:
    return 1.0 if problem.gold in text[-20:] else 0.25


CALLS = {"n": 0}


def by_order(text: str, problem: Problem) -> float:
    CALLS["n"] += 1
    return CALLS["n"] % 7 / 7


OWED = {
    "a finite number or a verdict for answers right and wrong": lambda t, p: float(t[-1:] or 0),
    "a finite number or a verdict for empty, huge and hostile text": lambda t, p: sound(t, p) if t[0] else 0,
    "from 0 to 1": lambda t, p: 3 * sound(t, p),
    "the same for the same text": by_order,
    "the same in another order": by_order,
    "not one number for every answer": lambda t, p: 0.5,
}


def test_a_sound_reward_passes_every_check() -> None:
    found = checked_reward(reward(sound), PROBLEMS, 0, 1)
    assert [one.check for one in found.owed] == list(OWED)
    assert [one.reason for one in found.owed if one.reason] == []
    assert (found.full, found.problems) == (2, 2)


@pytest.mark.parametrize("check", OWED)
def test_a_planted_fault_fails_its_check(check: str) -> None:
    reasons = {one.check: one.reason for one in checked_reward(reward(OWED[check]), PROBLEMS, 0, 1).owed}
    assert reasons[check]


def test_bounds_can_be_said() -> None:
    wide = checked_reward(reward(lambda t, p: 3 * sound(t, p)), PROBLEMS, 0, 3)
    assert all(one.reason is None for one in wide.owed)


@pytest.mark.parametrize(("name", "code"), [("close:CLOSE", 0), ("close:BAD", 1)])
def test_the_command_says_what_holds(
    name: str, code: int, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "close.py").write_text(CLOSE + "def BAD(text, problem):\n    return int(text)\n")
    monkeypatch.setattr(sys, "argv", ["fspo", "method", "check-reward", name, "--tasks", "mine.jsonl"])
    if code:
        with pytest.raises(SystemExit) as stopped:
            main.main()
        assert stopped.value.code == code
    else:
        main.main()
    said = capsys.readouterr().out
    assert said.count("pass  ") + said.count("FAIL  ") == len(OWED)
    assert ("FAIL" in said) == bool(code)
    if code:
        assert "ValueError: invalid literal" in said
        assert "(close.py, line" in said
    else:
        assert "the gold answer of 2 of 2 problems" in said
