"""How far several graders of the same responses agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from suite.types import Verdict

Panel = Mapping[str, Sequence[Verdict]]
"""One column of verdicts for each grader, row by row the same responses."""


def verdict_counts(panel: Panel) -> pd.DataFrame:
    """One row a grader: how many responses got each verdict."""
    rows = [{"grader": name} | {v.replace("_", " "): column.count(v) for v in Verdict} for name, column in
            ((name, list(column)) for name, column in panel.items())]  # fmt: skip
    return pd.DataFrame(rows, columns=["grader", *(v.replace("_", " ") for v in Verdict)])


def agreement_matrix(panel: Panel) -> pd.DataFrame:
    """Responses on which two graders agree whether it is correct, out of those that neither leaves undecided.

    Cells "agreed/decided"; wrong and no answer are one side, for both earn nothing.
    """

    def cell(left: Sequence[Verdict], right: Sequence[Verdict]) -> str:
        decided = [pair for pair in zip(left, right, strict=True) if Verdict.UNDECIDED not in pair]
        agreed = sum((a == Verdict.CORRECT) == (b == Verdict.CORRECT) for a, b in decided)
        return f"{agreed}/{len(decided)}"

    return pd.DataFrame(
        [{"grader": name} | {other: cell(panel[name], panel[other]) for other in panel} for name in panel],
        columns=["grader", *panel],
    )


def disagreements(panel: Panel) -> list[int]:
    """The rows where one grader says correct and another says wrong or no answer."""
    rows = zip(*panel.values(), strict=True)
    return [i for i, row in enumerate(rows) if len({v == Verdict.CORRECT for v in row if v != Verdict.UNDECIDED}) == 2]
