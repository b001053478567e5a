"""A result beside itself made again: equal ones are equal, and every planted difference is named."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from suite.findings.made_again import MadeAgain, compared
from suite.types import EvalResult, RunResult, Verdict

RIGHT, WRONG = Verdict.CORRECT, Verdict.WRONG
SAME = ("aa", "aa")


def evaluation(right: int = 10) -> EvalResult:
    """Twenty problems with two responses each; of the first so many problems both are right."""
    verdicts = tuple((RIGHT, RIGHT) if i < right else (WRONG, WRONG) for i in range(20))
    return EvalResult("gcd", "1", "dd", tuple(f"p{i}" for i in range(20)), verdicts, ((3, 4),) * 20, 0.0)


def result(right: int = 10, seed: int = 0, **changes: Any) -> RunResult:
    """A cell with a curve of three steps."""
    given = RunResult(
        protocol=1,
        method="fspo",
        seed=seed,
        config={"steps": 3, "hyper": {"c_low": 0.03}},
        evals=(evaluation(right),),
        curves={"reward/mean": [0.25, 0.5, 0.75], "clip/clipped": [0.0, 0.125, 0.25]},
        digests={"card": "cc", "model": "mm", "first_rollouts": "ff", "final_model": "ww"},
        costs={"tokens": 5.0},
        environment={"commit": "one", "processor_name": "A", "canary": "same"},
    )
    return replace(given, **changes)


def beside(made: RunResult, stored: RunResult | None = None, **more: Any) -> MadeAgain:
    stored = stored or result()
    return compared("fspo-seed0", stored, made, **{"same_rollouts": True, "sources": SAME, **more})


def test_costs_environment_and_younger_settings_are_no_difference() -> None:
    made = result(costs={}, environment={"commit": "two"}, config={"steps": 3, "new": 1, "hyper": {"c_low": 0.03}})
    found = beside(made)
    assert found == MadeAgain("fspo-seed0")
    found = beside(result(digests={**result().digests, "card": "c2", "first_rollouts": "f2"}), same_rollouts=False)
    assert found.same
    assert found.notes == (
        "the file of the first rollouts has other bytes",
        "the method's card reads otherwise: cc -> c2",
    )
    assert beside(result(curves={**result().curves, "x": [1.0]})).notes == (
        "curves that the stored result does not have: x",
    )


def test_every_difference_is_named_with_its_place() -> None:
    first = evaluation()
    turned = replace(first, verdicts=((WRONG, RIGHT), *first.verdicts[1:]), lengths=((3, 5), *first.lengths[1:]))
    curves = {"reward/mean": [0.25, 0.5, 0.7], "clip/clipped": [0.0, 0.25, 0.25]}
    made = result(evals=(turned,), curves=curves, digests={**result().digests, "final_model": "w2"})
    found = beside(made)
    assert found.differs == (
        "final model: ww -> w2",
        "curves part at step 2 of 3: clip/clipped 0.125 -> 0.25",
        "gcd: accuracy 50.00 -> 47.50 %, 1 verdicts and 1 lengths of 40 responses differ",
    )
    assert found.reasons == ()
    assert not beside(result(curves={"reward/mean": [0.25, 0.5, 0.75]})).same
    assert not beside(result(evals=())).same


def test_what_is_recorded_otherwise_is_offered_as_the_reason() -> None:
    made = result(evals=(evaluation(11),), environment={"commit": "two", "kernels": "AVX2", "canary": "otherwise"})
    found = beside(made, sources=("aa", "bb"))
    assert found.reasons == (
        "commit: one -> two",
        "processor name: A -> not recorded",
        "kernels: not recorded -> AVX2",
        "source of the method: aa -> bb",
        "canary: otherwise",
    )
    assert found.noise.startswith("not explained by other kernels: the method's settings, card or source")
    made = result(config={"steps": 3, "hyper": {"c_low": 0.04}}, digests={**result().digests, "card": "c2"})
    found = beside(made)
    assert found.differs == ("setting hyper.c_low: 0.03 -> 0.04",)
    assert "card of the method: cc -> c2" in found.reasons


SEEDS = [result(right, seed) for seed, right in enumerate((9, 10, 11))]
"""Accuracies 45, 50, 55: a standard deviation of 5 points, so another seed moves one by 4.30 x 5 x 1.41 = 30.4."""


@pytest.mark.parametrize(("right", "word"), [(16, "within"), (17, "beyond")])
def test_a_change_within_what_another_seed_moves_is_noise(right: int, word: str) -> None:
    assert beside(result(right), others=SEEDS).noise == (
        f"{word} the noise of other kernels: the first step agrees to 0.0e+00, mean accuracy moved by "
        f"{5 * (right - 10):.2f} points, and another seed moves it by up to 30.42"
    )


def test_a_first_step_that_is_far_away_is_no_noise() -> None:
    curves = {"reward/mean": [0.26, 0.5, 0.75], "clip/clipped": [0.0, 0.125, 0.25]}
    said = beside(result(curves=curves), others=SEEDS).noise
    assert said == "beyond the noise of other kernels: already the first step's reward/mean is 1.0e-02 away"


def test_with_one_seed_the_problems_say_what_is_noise() -> None:
    assert beside(result(11), others=[result()]).noise.startswith("within")
    assert beside(result(20), others=[result()]).noise.startswith("beyond")


def test_of_the_base_model_one_verdict_in_a_hundred_may_turn() -> None:
    base = result(method="base", curves={})
    assert "5.00 % of the verdicts turned, at most 1% do" in beside(result(11, method="base", curves={}), base).noise
