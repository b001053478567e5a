"""`fspo grade`: responses from a file by the reward's rule and by every other, and where they disagree."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from suite.commands.console import console
from suite.types import UserError, Verdict

if TYPE_CHECKING:
    import pandas as pd

LONGEST_SHOWN = 60
ANY, NOT_CORRECT = "any", "not_correct"
"""What a row may expect beside a verdict."""

Panel = Mapping[str, Sequence[Verdict]]
"""One column of verdicts for each grader, row by row the same responses."""


def grade(file: tyro.conf.Positional[Path], /, out: Path | None = None) -> None:
    """Grade responses by the reward's rule and three others: counts, an agreement matrix, every disagreement.

    Where rows say what is `expected`, exit code 1 where the reward's verdict is another one.

    Args:
        file: JSON lines with id, gold and response, and perhaps expected: a verdict, or not_correct, or any.
        out: File for the verdicts: one line a response with id, verdict (the reward's) and every rule's own.
    """
    from suite.experiments.local_jobs import progress_bar
    from suite.records.files import write_atomically
    from suite.report.terminal import show
    from tasks.grading import PANEL, REWARD
    from tasks.jsonl import RESPONSE, read_rows

    rows = read_rows(file, RESPONSE, "give JSON lines with id, gold and response")
    wanted = [expected(row, f"{file}, line {number}") for number, row in enumerate(rows, start=1)]
    if out is not None:
        _check_writable(out, file)
    pairs = [(row["response"], row["gold"]) for row in rows]
    panel: dict[str, list[Verdict]] = {}
    with progress_bar(console) as bar:
        for name, rule in PANEL.items():
            line = bar.add_task(name, total=len(pairs))
            panel[name] = rule.judge(pairs, lambda done, line=line: bar.advance(line, done))
    if out is not None:
        lines = (
            {"id": row["id"], "verdict": panel[REWARD][i]} | {name: panel[name][i] for name in panel}
            for i, row in enumerate(rows)
        )
        write_atomically(out, "".join(json.dumps(line) + "\n" for line in lines))
    for name, rule in PANEL.items():
        reward = " [the reward]" if name == REWARD else ""
        console.print(f"{name:<12} {rule.meaning}{reward}", highlight=False, markup=False, soft_wrap=True)
    show(verdict_counts(panel), f"verdicts on {len(rows)} responses", console)
    show(agreement_matrix(panel), "agreed/decided: do two rules agree whether a response is correct?", console)
    _print_disagreements(rows, panel)
    if out is not None:
        console.print(f"verdicts: {out}", highlight=False, markup=False)
    if any(row.get("expected") for row in rows) and _print_unexpected(rows, wanted, panel[REWARD]):
        sys.exit(1)


def expected(row: Mapping[str, str], where: str) -> frozenset[Verdict]:
    """The verdicts that a row calls right; all of them where it says nothing. UserError for a word that is none."""
    word = row.get("expected", ANY)
    if word == ANY:
        return frozenset(Verdict)
    if word == NOT_CORRECT:
        return frozenset(Verdict) - {Verdict.CORRECT}
    if word not in [*Verdict]:
        raise UserError(f"{where}: expected {word!r}: write {', '.join((*Verdict, NOT_CORRECT, ANY))}")
    return frozenset({Verdict(word)})


def _print_unexpected(
    rows: Sequence[Mapping[str, str]], wanted: Sequence[frozenset[Verdict]], found: Sequence[Verdict]
) -> int:
    """How many verdicts of the reward are not the expected ones, after a line for each of them."""
    off = [i for i, verdict in enumerate(found) if verdict not in wanted[i]]
    for i in off:
        line = f"not as expected: line {i + 1}, {_shown(rows[i]['id'])}: {found[i]}, expected {rows[i]['expected']}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"the reward's verdict is as expected on {len(rows) - len(off)} of {len(rows)}", highlight=False)
    return len(off)


def _check_writable(out: Path, file: Path) -> None:
    """Refuses before the work what would fail or lose the responses after it."""
    if out.exists() and (out.is_dir() or out.samefile(file)):
        raise UserError(f"--out {out}: {'a folder' if out.is_dir() else 'the file of responses'}; name another file")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"--out {out}: cannot write in {folder}; choose another place")


def _print_disagreements(rows: Sequence[Mapping[str, str]], panel: Mapping[str, Sequence[Verdict]]) -> None:

    found = disagreements(panel)
    console.print(f"{len(found)} disagreements", highlight=False)
    for i in found:
        said = ", ".join(f"{name} {verdicts[i]}" for name, verdicts in panel.items())
        line = f"line {i + 1}, {_shown(rows[i]['id'])}: gold {_shown(rows[i]['gold'])}; {said}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _shown(text: str) -> str:
    """A text of strangers on one short line."""
    from suite.records.texts import printable

    return printable(text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…")


def verdict_counts(panel: Panel) -> pd.DataFrame:
    """One row a grader: how many responses got each verdict."""
    import pandas as pd

    rows = [
        {"grader": name} | {v.replace("_", " "): column.count(v) for v in Verdict}
        for name, column in ((name, list(column)) for name, column in panel.items())
    ]
    return pd.DataFrame(rows, columns=["grader", *(v.replace("_", " ") for v in Verdict)])


def agreement_matrix(panel: Panel) -> pd.DataFrame:
    """Responses on which two graders agree whether it is correct, out of those that neither leaves undecided.

    Cells "agreed/decided"; wrong and no answer are one side, for both earn nothing.
    """
    import pandas as pd

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
