"""Tokens that a plan expects of trees, beside those that real micro-batches compute."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import mean

import pytest

from suite.config import TrainConfig
from suite.experiments.recipes import recipe
from suite.planning.cost_model import Lengths, computed_tokens
from suite.planning.memory_model import Load
from suite.planning.shared_starts import Batch, expected_problems
from suite.training.step_batches import mini_batches
from suite.types import FinishReason, Rollout

COMMON, OWN, RESPONSE = 180, 38, 30


def rollouts(problems: int, samples: int, own: int = OWN, response: int = RESPONSE, seed: int = 0) -> list[Rollout]:
    """Few-shot prompts of one length, responses from 1 to twice the mean."""
    draw = random.Random(seed)
    start = tuple(range(COMMON))
    found = []
    for p in range(problems):
        prompt = (*start, 1000 + p, *draw.choices(range(500), k=own - 1))
        for s in range(samples):
            length = draw.randint(1, 2 * response - 1)
            ids = tuple(draw.choices(range(500), k=length))
            found.append(Rollout(str(p), s, s, prompt, ids, (0.0,) * length, FinishReason.STOP))
    return found


def computed(config: TrainConfig, seed: int) -> list[int]:
    """Tokens of every micro-batch of a step."""
    drawn = rollouts(config.problems_per_step, config.samples_per_problem, seed=seed)
    return [micro.input_ids.numel() for mini in mini_batches(drawn, config, seed, 0, "cpu") for micro in mini]


@pytest.mark.parametrize("budget", [300, 700, 2048, 10**6])
@pytest.mark.parametrize("minis", [1, 4, 8, 16])
def test_expected_tokens_are_those_of_real_micro_batches(minis: int, budget: int) -> None:
    train = TrainConfig(
        ("word_problems",), steps=1, problems_per_step=8, mini_batches=minis, tokens_per_micro_batch=budget
    )
    lengths = Lengths(COMMON + OWN, COMMON + OWN, RESPONSE, 2 * RESPONSE, "", common=COMMON)
    expected = computed_tokens(replace(recipe("smollm2-words"), train=train), lengths)
    real = mean(sum(computed(train, seed)) for seed in range(6))
    assert expected == pytest.approx(real, rel=0.15 if budget <= 700 else 0.04)


def test_without_a_common_start_the_plan_counts_sequences() -> None:
    train = replace(recipe("demo").train, steps=3)
    lengths = Lengths(12, 20, 48, 96, "")
    assert computed_tokens(replace(recipe("demo"), train=train), lengths) == 3 * 16 * 8 * 60


def test_memory_holds_the_largest_micro_batch_that_can_come() -> None:
    for minis, budget in ((8, 2048), (8, 500), (1, 2048), (16, 10**6)):
        train = TrainConfig(("word_problems",), problems_per_step=8, mini_batches=minis, tokens_per_micro_batch=budget)
        load = Load(
            prompt=COMMON + OWN,
            response=2 * RESPONSE,
            rows=64,
            mini_batches=minis,
            micro_tokens=budget,
            side_by_side=64,
            distinct_prompts=8,
            common=COMMON,
            problems=8,
        )
        worst = max(size for seed in range(6) for size in computed(train, seed))
        assert worst <= load.micro_batch_tokens <= max(budget, load.prompt + load.response)
        assert load.micro_batch_tokens <= load.update_rows * (load.prompt + load.response)
        assert load.several or max(len(computed(train, seed)) for seed in range(6)) == minis


def test_a_problem_is_met_as_often_as_draws_without_replacement_say() -> None:
    draw = random.Random(1)
    deck = [p for p in range(6) for _ in range(4)]
    for drawn in (1, 3, 8, 20, 24):
        seen = mean(len(set(draw.sample(deck, drawn))) for _ in range(4000))
        assert expected_problems(6, 4, drawn) == pytest.approx(seen, abs=0.05)


def test_trees_are_used_where_the_trainer_uses_them() -> None:
    assert Batch(180, 218, 30, 8, 8).is_tree
    assert not Batch(0, 218, 30, 8, 8).is_tree
    assert not Batch(180, 218, 600, 8, 8).is_tree
    assert not Batch(7, 20, 5, 8, 8).is_tree
