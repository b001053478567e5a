"""Gradients that were cut: shares over updates, old results, and the sentence that says on whom the cut acts."""

from __future__ import annotations

import math

import pytest

from suite.findings.costs import cut_sentence, gradient_cuts, gradient_table
from suite.types import RunResult


def run(method: str, cut: list[float] | None, norm: float) -> RunResult:
    curves = {"grad_norm/mean": [norm, norm], "grad_norm/max": [norm, 2 * norm]}
    return RunResult(1, method, 0, {}, (), curves | ({} if cut is None else {"grad_norm/cut": cut}), {}, {}, {})


def test_shares_are_means_over_the_steps_of_all_runs() -> None:
    found = gradient_cuts([run("a", [1.0, 0.5], 3.0), run("a", [0.0, 0.5], 1.0), run("b", None, 0.2)])
    a, b = found.to_dict("records")
    assert a == {"method": "a", "norm": 2.0, "largest": 6.0, "cut": 0.5}
    assert math.isnan(b["cut"])
    assert [str(cell) for cell in gradient_table(found)["updates cut"]] == ["50.0", "not recorded"]


def test_one_run_that_lacks_the_share_leaves_it_unknown() -> None:
    (row,) = gradient_cuts([run("a", [1.0, 1.0], 3.0), run("a", None, 3.0)]).to_dict("records")
    assert math.isnan(row["cut"])


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ((1.0, 0.3, 0.0), "their direction alone: here a (100.0 %)."),
        ((0.9, 0.96, 0.899), "here a (90.0 %), b (96.0 %)."),
        ((0.0, 0.05, 0.5), "here none."),
    ],
)
def test_the_sentence_says_on_whom_it_acts(shares: tuple[float, ...], words: str) -> None:
    runs = [run(name, [share, share], 2.0) for name, share in zip("abc", shares, strict=True)]
    assert cut_sentence(gradient_cuts(runs), 1.0).endswith(words)


def test_old_runs_say_whose_mean_norm_is_above_the_limit() -> None:
    sentence = cut_sentence(gradient_cuts([run("a", None, 14.0), run("b", None, 0.4)]), 1.0)
    assert sentence.endswith("not recorded in these runs; the mean norm is above the limit for: a.")
