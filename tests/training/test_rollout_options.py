"""Settings of a run that change its rollouts: dynamic sampling and the overlong penalty."""

from __future__ import annotations

import pytest

from small_world import small_config, small_source
from suite.training.rollout_source import overlong_penalty
from suite.types import Rollout, UserError, Verdict


def groups(rollouts: tuple[Rollout, ...], size: int) -> list[list[Rollout]]:
    return [list(rollouts[i : i + size]) for i in range(0, len(rollouts), size)]


def is_mixed(group: list[Rollout]) -> bool:
    return len({r.verdict == Verdict.CORRECT for r in group}) == 2


@pytest.mark.parametrize("step", range(4))
def test_dynamic_sampling_replaces_problems_without_signal(step: int) -> None:
    source = small_source(small_config(samples_per_problem=2, dynamic_sampling=6))
    dynamic = groups(source.record(step).rollouts, 2)
    assert len(dynamic) == 4
    assert all(len({r.problem_id for r in group}) == 1 for group in dynamic)
    assert len({group[0].problem_id for group in dynamic}) == 4
    assert sum(map(is_mixed, dynamic)) == 4


@pytest.mark.parametrize("step", range(3))
def test_rollouts_stand_in_the_order_of_their_problems(step: int) -> None:
    """Whatever their rewards: else the mini-batches of a method would depend on what its responses earned."""
    source = small_source(small_config())
    found = [group[0].problem_id for group in groups(source.record(step).rollouts, 4)]
    assert found == [problem.id for problem in source.problems_of(step)]


def test_some_step_has_something_to_replace() -> None:
    """Else the test above could pass with dynamic sampling switched off."""
    plain = [small_source(small_config(samples_per_problem=2)).record(step).rollouts for step in range(4)]
    assert any(not is_mixed(group) for rollouts in plain for group in groups(rollouts, 2))


def test_after_the_last_attempt_uniform_groups_fill_the_step() -> None:
    """Two samples a problem and a single replacement: every step is full, whatever is left without signal."""
    source = small_source(small_config(samples_per_problem=2, problems_per_step=8, dynamic_sampling=1))
    counts = [groups(source.record(step).rollouts, 2) for step in range(2)]
    assert all(len(found) == 8 for found in counts)


def test_dynamic_sampling_repeats_itself() -> None:
    config = small_config(samples_per_problem=2, dynamic_sampling=3)
    assert small_source(config).record(1).digest == small_source(config).record(1).digest


def test_steps_share_no_problem_of_an_epoch() -> None:
    source = small_source(small_config(problems_per_step=4, dynamic_sampling=4))
    seen = [p.id for step in range(2) for attempt in range(5) for p in source.problems_of(step, attempt)]
    assert len(set(seen)) == len(seen) == 40


@pytest.mark.parametrize(("length", "penalty"), [(1, 0.0), (80, 0.0), (81, -0.05), (90, -0.5), (100, -1.0)])
def test_overlong_penalty_is_the_equation(length: int, penalty: float) -> None:
    assert overlong_penalty(length, 100, 20) == pytest.approx(penalty, abs=1e-15)


def test_overlong_penalty_is_added_to_every_reward() -> None:
    plain = small_source(small_config()).record(0).rollouts
    held = small_source(small_config(overlong_buffer=10)).record(0).rollouts
    for a, b in zip(plain, held, strict=True):
        assert b.response_ids == a.response_ids
        assert b.verdict == a.verdict
        assert a.reward is not None
        assert b.reward == a.reward + min(0, 24 - 10 - len(a.response_ids)) / 10
    assert any(b.reward == -1.0 for b in held)


@pytest.mark.parametrize(
    "change", [{"dynamic_sampling": -1}, {"overlong_buffer": -1}, {"overlong_buffer": 50, "max_new_tokens": 40}]
)
def test_impossible_settings_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(UserError, match=next(iter(change))):
        small_config(**change)
