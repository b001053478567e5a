"""`suite.advantages` against loops over floats, and the properties that every advantage rule owes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods import advantages as oracle
from strategies import grouped_rewards
from suite import advantages
from suite.methods.trial_batches import random_mask

SEEDS = pytest.mark.parametrize("seed", range(5))


def tensor(numbers: list[float]) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


# --- rules over groups ------------------------------------------------------------------------------


@given(grouped_rewards())
def test_leave_one_out_is_the_equation(case: tuple[list[float], list[int]]) -> None:
    rewards, groups = case
    got = advantages.leave_one_out(tensor(rewards), torch.tensor(groups))
    assert got.tolist() == pytest.approx(oracle.leave_one_out(rewards, groups), rel=1e-11, abs=1e-12)


@given(grouped_rewards())
def test_group_centred_is_the_equation(case: tuple[list[float], list[int]]) -> None:
    rewards, groups = case
    got = advantages.group_centred(tensor(rewards), torch.tensor(groups))
    assert got.tolist() == pytest.approx(oracle.group_centred(rewards, groups), rel=1e-11, abs=1e-12)


@given(grouped_rewards(), st.sampled_from([(1, 1e-4), (0, 1e-6), (1, 1e-2)]))
def test_group_standardised_is_the_equation(case: tuple[list[float], list[int]], how: tuple[int, float]) -> None:
    rewards, groups = case
    ddof, eps = how
    got = advantages.group_standardised(tensor(rewards), torch.tensor(groups), ddof=ddof, eps=eps)
    # rel: rewards a rounding error apart have a std of that size, and eps divides it
    assert got.tolist() == pytest.approx(
        oracle.group_standardised(rewards, groups, ddof, eps), rel=1e-9, abs=1e-13 / eps
    )


@given(grouped_rewards())
def test_leave_one_out_is_a_multiple_of_group_centred(case: tuple[list[float], list[int]]) -> None:
    """n/(n-1) times: the two differ by scale alone."""
    rewards, groups = tensor(case[0]), torch.tensor(case[1])
    n = torch.tensor([case[1].count(g) for g in case[1]], dtype=torch.float64)
    centred = advantages.group_centred(rewards, groups)
    torch.testing.assert_close(advantages.leave_one_out(rewards, groups), n / (n - 1) * centred, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("p", [0.03, 0.5, 0.9])
@pytest.mark.parametrize("size", range(2, 7))
def test_the_mean_gradient_of_group_over_mean_is_that_of_log_p_cut_off_at_order_size_minus_one(
    size: int, p: float
) -> None:
    """Over all outcomes of a group of independent successes, with p = sigmoid(theta).

    log p = -sum_k (1 - p)^k / k, and the k-th term's gradient is (1 - p)^(k - 1) grad p.
    """
    found = 0.0
    for outcome in itertools.product((1.0, 0.0), repeat=size):
        weights = advantages.group_over_mean(tensor(list(outcome)), torch.zeros(size, dtype=torch.long)).tolist()
        scores = [r - p for r in outcome]  # grad log of the outcome's probability: 1 - p or -p
        chance = math.prod(p if r else 1 - p for r in outcome)
        found += chance * sum(a * s for a, s in zip(weights, scores, strict=True)) / size
    grad_p = p * (1 - p)
    assert found == pytest.approx(sum((1 - p) ** (k - 1) * grad_p for k in range(1, size)), rel=1e-12)


@given(grouped_rewards(), st.floats(-100, 100), st.floats(0.1, 10))
def test_a_shift_changes_nothing_and_a_scale_scales(
    case: tuple[list[float], list[int]], shift: float, scale: float
) -> None:
    rewards, groups = tensor(case[0]), torch.tensor(case[1])
    for rule in (advantages.leave_one_out, advantages.group_centred):
        torch.testing.assert_close(
            rule(scale * rewards + shift, groups), scale * rule(rewards, groups), rtol=1e-9, atol=1e-11
        )


@given(grouped_rewards())
def test_groups_do_not_see_each_other(case: tuple[list[float], list[int]]) -> None:
    """Advantages of one group alone equal those it has among the others; the group ids' values do not matter."""
    rewards, groups = tensor(case[0]), torch.tensor(case[1])
    together = advantages.leave_one_out(rewards, groups)
    renamed = advantages.leave_one_out(rewards, 1_000_003 * (groups + 1))
    torch.testing.assert_close(together, renamed, rtol=0, atol=0)
    members = groups == groups[0]
    alone = advantages.leave_one_out(rewards[members], groups[members])
    torch.testing.assert_close(together[members], alone, rtol=1e-12, atol=1e-13)


def test_by_hand() -> None:
    rewards, groups = tensor([1.0, 5.0, 0.0, 0.0, 7.0]), torch.tensor([4, 9, 4, 4, 9])
    assert advantages.leave_one_out(rewards, groups).tolist() == [1.0, -2.0, -0.5, -0.5, 2.0]
    assert advantages.group_centred(rewards, groups).tolist() == pytest.approx([2 / 3, -1, -1 / 3, -1 / 3, 1])
    standardised = advantages.group_standardised(rewards, groups, ddof=1, eps=0.0)
    assert standardised.tolist() == pytest.approx([2 / 3**0.5, -(0.5**0.5), -1 / 3**0.5, -1 / 3**0.5, 0.5**0.5])
    population = advantages.group_standardised(rewards, groups, ddof=0, eps=0.0)
    assert population.tolist() == pytest.approx([2**0.5, -1, -(0.5**0.5), -(0.5**0.5), 1])


def test_a_group_of_one_has_no_others() -> None:
    with pytest.raises(ValueError, match="group"):
        advantages.leave_one_out(tensor([1.0, 0.0, 1.0]), torch.tensor([0, 0, 1]))


@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("eps", [0.0, 1e-4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_spread_means_no_advantage(ddof: int, eps: float, dtype: torch.dtype) -> None:
    """A group of one and a group of equal rewards (0.1 is not exact in binary) get exactly 0, never NaN."""
    rewards = torch.tensor([0.1] * 7 + [0.3, 1.0, 0.0], dtype=dtype)
    groups = torch.tensor([0] * 7 + [1, 2, 2])
    got = advantages.group_standardised(rewards, groups, ddof=ddof, eps=eps)
    assert got[:8].tolist() == [0.0] * 8
    assert got.isfinite().all()
    assert got[8] > 0 > got[9]


def test_ddof_eps_gamma_and_lam_must_be_said() -> None:
    rewards, groups, mask = tensor([1.0, 0.0]), torch.tensor([0, 0]), torch.ones(2, 1, dtype=torch.bool)
    values = rewards[:, None]
    for call in (
        lambda: advantages.group_standardised(rewards, groups, ddof=1),  # pyright: ignore[reportCallIssue]
        lambda: advantages.group_standardised(rewards, groups, eps=1e-4),  # pyright: ignore[reportCallIssue]
        lambda: advantages.gae(rewards, values, mask, gamma=1.0),  # pyright: ignore[reportCallIssue]
        lambda: advantages.gae(rewards, values, mask, lam=1.0),  # pyright: ignore[reportCallIssue]
        lambda: advantages.gae(rewards, values, mask, 1.0, 1.0),  # pyright: ignore[reportCallIssue]
        lambda: advantages.whiten(values, mask, ddof=0),  # pyright: ignore[reportCallIssue]
        lambda: advantages.whiten(values, mask, eps=1e-8),  # pyright: ignore[reportCallIssue]
    ):
        with pytest.raises(TypeError):
            call()


# --- GAE and whitening ------------------------------------------------------------------------------


def random_values(seed: int, *, holes: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(rewards [8], values [8, 6], mask [8, 6])."""
    g = torch.Generator().manual_seed(seed)
    mask = random_mask(g, 8, 6, holes)
    rewards, values = torch.randn(8, generator=g).double(), torch.randn(8, 6, generator=g).double()
    return rewards, values, mask


@SEEDS
@pytest.mark.parametrize("holes", [False, True])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 1.0), (0.9, 0.8), (1.0, 0.0), (0.0, 0.5)])
def test_gae_is_the_equation(seed: int, gamma: float, lam: float, holes: bool) -> None:
    rewards, values, mask = random_values(seed, holes=holes)
    got = advantages.gae(rewards, values, mask, gamma=gamma, lam=lam)
    for i in range(len(rewards)):
        want = oracle.gae(rewards[i].item(), values[i].tolist(), mask[i].tolist(), gamma, lam)
        kept = mask[i].tolist()
        assert [a for a, k in zip(got[i].tolist(), kept, strict=True) if k] == pytest.approx(
            [a for a, k in zip(want, kept, strict=True) if k], rel=1e-11, abs=1e-12
        )


@SEEDS
def test_gae_without_discount_is_reward_minus_value(seed: int) -> None:
    """gamma = lambda = 1: the sum telescopes to R - V_t at every counted token."""
    rewards, values, mask = random_values(seed, holes=False)
    got = advantages.gae(rewards, values, mask, gamma=1.0, lam=1.0)
    torch.testing.assert_close(got[mask], (rewards[:, None] - values)[mask], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
@SEEDS
def test_gae_and_whiten_never_read_padding(seed: int, garbage: float) -> None:
    rewards, values, mask = random_values(seed, holes=True)
    dirty = values.masked_fill(~mask, garbage)
    for clean, soiled in (
        (
            advantages.gae(rewards, values, mask, gamma=0.9, lam=0.8),
            advantages.gae(rewards, dirty, mask, gamma=0.9, lam=0.8),
        ),
        (advantages.whiten(values, mask, ddof=0, eps=1e-8), advantages.whiten(dirty, mask, ddof=0, eps=1e-8)),
    ):
        torch.testing.assert_close(soiled[mask], clean[mask], rtol=0, atol=0)


@SEEDS
@pytest.mark.parametrize(("ddof", "eps"), [(0, 1e-8), (1, 1e-3), (0, 0.0)])
def test_whiten_is_the_equation(seed: int, ddof: int, eps: float) -> None:
    _, values, mask = random_values(seed, holes=True)
    got = advantages.whiten(values, mask, ddof=ddof, eps=eps)
    want = torch.tensor(oracle.whiten(values.tolist(), mask.tolist(), ddof, eps), dtype=torch.float64)
    torch.testing.assert_close(got[mask], want[mask], rtol=1e-11, atol=1e-12)
    if eps == 0:
        assert got[mask].mean().item() == pytest.approx(0, abs=1e-12)
        assert got[mask].std(correction=ddof).item() == pytest.approx(1, rel=1e-12)


def test_whitening_what_does_not_vary_gives_zero() -> None:
    mask = torch.ones(3, 2, dtype=torch.bool)
    same = advantages.whiten(torch.full((3, 2), 0.5, dtype=torch.float64), mask, ddof=0, eps=1e-8)
    assert same.tolist() == [[0.0, 0.0]] * 3
    one = advantages.whiten(tensor([2.0])[:, None], mask[:1, :1], ddof=0, eps=1e-8)
    assert one.tolist() == [[0.0]]
