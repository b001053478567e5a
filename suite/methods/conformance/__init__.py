"""What every method owes, whatever its equation: the properties behind `fspo method check`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from suite.methods.conformance import bands, batches, credits, gradients
from suite.methods.conformance.violation import DoesNotApply, Violation
from suite.records.texts import one_line
from suite.types import Method

CHECKS: Mapping[str, Callable[[Method], DoesNotApply | None]] = {
    **batches.CHECKS,
    **gradients.CHECKS,
    **bands.CHECKS,
    **credits.CHECKS,
}
"""What is checked -> function that raises Violation where a method breaks it, and says where it does not apply."""


@dataclass(frozen=True)
class Outcome:
    """One property of one method: `reason` is None where it holds; `example` the smallest batch where it does not.

    `without`: why it does not apply to the method; empty where it does.
    """

    method: str
    check: str
    reason: str | None = None
    example: str = ""
    without: DoesNotApply = ""


def conformance(method: Method) -> list[Outcome]:
    """Every property of CHECKS for one method. A method that raises fails the check at hand; nothing is swallowed."""
    outcomes = []
    for name, check in CHECKS.items():
        try:
            without = check(method) or ""
        except Violation as violation:
            outcomes.append(Outcome(method.name, name, violation.reason, violation.example))
        except (Exception, SystemExit) as error:
            outcomes.append(Outcome(method.name, name, f"raised {one_line(error)}"))
        else:
            outcomes.append(Outcome(method.name, name, without=without))
    return outcomes
