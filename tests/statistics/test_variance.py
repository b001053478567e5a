"""Variance components and planned standard errors: against simulated worlds whose components are known, and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from suite.statistics.variance import Components, SetComponents, components, error_of, minimum_detectable, planned_error

SEED = 0.04
TRUE = {
    "a": SetComponents(problems=12, problem=0.09, seed_problem=0.02, sample=0.30, shared_sample=0.10),
    "b": SetComponents(problems=7, problem=0.25, seed_problem=0.06, sample=0.20, shared_sample=0.0),
}


def draw(
    rng: np.random.Generator, worlds: int, seeds: int, samples: int, problems: dict[str, int]
) -> dict[str, np.ndarray]:
    """Normal scores [worlds, seeds, problems, samples] per set with the components above; one seed effect in all."""
    by_seed = rng.normal(0, math.sqrt(SEED), (worlds, seeds, 1, 1))
    made = {}
    for task, true in TRUE.items():
        n = problems[task]
        parts = {
            (worlds, 1, n, 1): true.problem,
            (worlds, seeds, n, 1): true.seed_problem,
            (worlds, 1, n, samples): true.shared_sample,
            (worlds, seeds, n, samples): true.sample,
        }
        made[task] = by_seed + sum(rng.normal(0, math.sqrt(v), shape) for shape, v in parts.items())
    return made


def test_components_are_unbiased() -> None:
    worlds, sizes = 3000, {"a": 12, "b": 7}
    drawn = draw(np.random.default_rng(0), worlds, 4, 3, sizes)
    found = [components({task: array[i] for task, array in drawn.items()}) for i in range(worlds)]

    def agrees(estimates: list[float], true: float) -> None:
        assert np.mean(estimates) == pytest.approx(true, abs=4 * float(np.std(estimates)) / math.sqrt(worlds))

    agrees([one.seed for one in found], SEED)
    for task, true in TRUE.items():
        for name in ("problem", "seed_problem", "sample", "shared_sample"):
            agrees([getattr(one.sets[task], name) for one in found], getattr(true, name))
    assert (found[0].seeds, found[0].samples, found[0].sets["b"].problems) == (4, 3, 7)


def test_planned_error_is_the_spread_of_the_mean_in_that_design() -> None:
    true, sizes, worlds = Components(4, 3, SEED, TRUE), {"a": 9, "b": 20}, 6000
    drawn = draw(np.random.default_rng(1), worlds, 5, 2, sizes)
    means = np.mean([array.mean(axis=(1, 2, 3)) for array in drawn.values()], axis=0)
    planned, _ = planned_error(true, seeds=5, samples=2, problems=sizes)
    # A standard deviation of 6,000 normal numbers is known to 1 / sqrt(12,000): four of these.
    assert means.std() == pytest.approx(planned, rel=4 / math.sqrt(2 * worlds))


def test_planned_error_by_hand() -> None:
    parts = Components(3, 4, 0.03, {"t": SetComponents(10, 0.2, 0.06, 0.8, 0.4)})
    error, df = planned_error(parts, seeds=3, samples=4)
    cell, problem, seed = (0.06 + 0.2) / 30, (0.2 + 0.1) / 10, 0.03 / 3
    assert error**2 == pytest.approx(seed + problem + cell)
    doubt = (seed + cell) ** 2 / 2 + (problem + cell) ** 2 / 9 + cell**2 / 18
    assert df == pytest.approx((seed + problem + cell) ** 2 / doubt)
    assert planned_error(parts, seeds=3, samples=4, problems={"t": 10}) == (error, df)
    limit, _ = planned_error(parts, seeds=10**9, samples=10**9, problems=10)
    assert limit**2 == pytest.approx(0.2 / 10)  # more seeds and samples do not make up for few problems


def test_components_below_zero_plan_as_zero() -> None:
    part = SetComponents(10, -0.2, -0.1, 0.8, -0.1)
    assert planned_error(Components(3, 4, -1.0, {"t": part}), seeds=2, samples=4)[0] == pytest.approx(
        math.sqrt(0.2 / 20)
    )


def test_error_never_falls_below_the_interaction() -> None:
    assert error_of(0.0, [0.0], [0.5], 3, [9])[0] == pytest.approx(math.sqrt(0.5))
    assert error_of(0.3, [0.0], [0.0], 4, [9]) == (pytest.approx(math.sqrt(0.3)), pytest.approx(3.0))
    assert error_of(0.0, [0.0], [0.0], 3, [9]) == (0.0, math.inf)


def test_one_sample_leaves_noise_where_it_is() -> None:
    drawn = {"t": np.random.default_rng(0).normal(size=(3, 8, 1))}
    found = components(drawn).sets["t"]
    assert (found.sample, found.shared_sample) == (0, 0)
    by_row, by_column = drawn["t"][..., 0].mean(1), drawn["t"][..., 0].mean(0)
    left = sum(
        (drawn["t"][s, p, 0] - by_row[s] - by_column[p] + drawn["t"].mean()) ** 2 for s in range(3) for p in range(8)
    )
    assert found.seed_problem == pytest.approx(left / 14)
    assert components(drawn).seed == pytest.approx(by_row.var(ddof=1) - left / 14 / 8)


def test_what_cannot_be_estimated_is_refused() -> None:
    with pytest.raises(ValueError, match="two seeds"):
        components({"t": np.zeros((1, 5, 2))})
    with pytest.raises(ValueError, match="two problems"):
        components({"t": np.zeros((3, 1, 2))})
    with pytest.raises(ValueError, match="equally many"):
        components({"t": np.zeros((3, 5, 2)), "u": np.zeros((3, 5, 4))})


def test_more_power_needs_a_larger_difference() -> None:
    assert minimum_detectable(0.5, math.inf, 0.8) == pytest.approx(1.4008, abs=1e-4)
    assert minimum_detectable(0.5, math.inf, 0.9) > minimum_detectable(0.5, math.inf, 0.8)
