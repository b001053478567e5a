"""The facts that a method's module in tests/methods states beside the equation, and the words that they share.

Standard library only, as the oracles are: the facts are read off the paper, not off the code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from methods import Row, State, counted

FACTS: Mapping[str, str] = {
    "response": "the equation of one response, response(row, hyper, state) -> Response",
    "credit": "rewards to (advantages, returns), as in tests/methods/advantages.py",
    "DIVISOR": 'what the trainer divides by: "responses", "tokens" or "constant"',
    "DEFAULTS": "every hyper-parameter with its default, {field: value}",
    "MISTAKES": "values that must be refused, [{field: value}, ...]",
    "ON_POLICY_SLOPE": "d J_i / d log pi(y_t) at ratio 1, a function of (row, t)",
    "VARIANTS": "hyper-parameters and running estimates to compare the surrogate under, [({field: value}, state), ...]",
    "CREDIT_VARIANTS": "hyper-parameters to compare the advantages under, [{field: value}, ...]",
    "PAIRINGS": "its comparisons with TRL and verl, or else WITHOUT_PEER: a sentence that says why there is none",
    "MUTANTS": "two or three bugs that people make with it, [Mutant(name, file, old, new), ...]",
}
"""Name in the module -> what it states. WITHOUT_PEER stands in for PAIRINGS."""

NO_ORACLE = ("test_", "checks", "planted")
"""How files of tests/methods begin that are neither an oracle nor what oracles share."""


@dataclass(frozen=True)
class Mutant:
    """One planted bug: in `file` the text `old`, found exactly once, becomes `new`, and the method's checks must fail.

    `check`: the property of `suite.methods.conformance` that notices it, where the comparison with the oracle cannot.
    """

    name: str
    file: str
    old: str
    new: str
    check: str = ""

    def planted(self, source: str) -> str:
        """The source with the bug in it. Raises ValueError unless `old` occurs exactly once."""
        found = source.count(self.old)
        if found != 1:
            raise ValueError(f"{self.name}: {self.file} holds the old text {found} times, not once: {self.old!r}")
        return source.replace(self.old, self.new)


# --- slopes at ratio 1 --------------------------------------------------------------------------------


def slope_of_sum(row: Row, t: int) -> float:
    """A_t: sums over tokens, and sequence ratios."""
    return row.advantages[0] if len(row.advantages) == 1 else row.advantages[t]


def slope_of_mean(row: Row, t: int) -> float:
    """A_t / L: means over tokens, and length-normalised ratios."""
    return slope_of_sum(row, t) / len(counted(row.mask))


# --- hyper-parameters of the pieces in baselines/hyper.py -----------------------------------------------

Changes = dict[str, Any]


def without_state(*changes: Changes) -> list[tuple[Changes, State]]:
    """Variants of hyper-parameters with nothing observed yet."""
    return [(change, {}) for change in changes]


RATIO_VARIANTS = without_state({}, {"clip_low": 1e-4, "clip_high": 1e-3}, {"clip_low": 0.3, "clip_high": 0.05})
DUAL_VARIANTS = without_state({"dual_clip": 1.3}, {"dual_clip": 2.0, "clip_low": 0.1})
ROOT_VARIANTS = without_state({}, {"c_low": 0.003, "c_high": 0.1}, {"c_low": 0.2, "c_high": 0.004})

NO_CREDIT_VARIANTS: list[Changes] = [{}]
STD_VARIANTS: list[Changes] = [{}, {"std_ddof": 0, "std_eps": 1e-6}, {"std_eps": 0.0}]

NAN, INFINITY = float("nan"), float("inf")
RATIO_MISTAKES: list[Changes] = [
    {"clip_low": -0.1},
    {"clip_low": 1.5},
    {"clip_low": NAN},
    {"clip_high": -0.1},
    {"clip_high": NAN},
]
DUAL_MISTAKES: list[Changes] = [{"dual_clip": 0.5}, {"dual_clip": 1.0}, {"dual_clip": NAN}]
ROOT_MISTAKES: list[Changes] = [{"c_low": -0.01}, {"c_low": NAN}, {"c_high": 0.0}, {"c_high": INFINITY}]
STD_MISTAKES: list[Changes] = [{"std_ddof": -1}, {"std_eps": -1e-4}, {"std_eps": NAN}]
