"""LUSPO, arXiv 2602.05261: L min(s A, clip(s, 1 - low, 1 + high) A), s = e^(S/L), mean over responses.

GSPO's number times the length, so a token of a long response teaches as much as one of a short one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from methods import Response, Row, State, counted, gspo
from methods.advantages import standardised_credit

DIVISOR = "responses"
credit = standardised_credit


def response(row: Row, hyper: Any, state: State) -> Response:
    """L times GSPO's number: 0 for an empty response."""
    length, found = len(counted(row.mask)), gspo.response(row, hyper, state)
    return replace(found, objective=length * found.objective, unclipped=length * found.unclipped)
