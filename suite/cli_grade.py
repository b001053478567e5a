"""`fspo grade`: responses from a file by the reward's rule and by every other, and where they disagree.

Part of the composition root.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import tyro

from suite.app import app, console
from suite.types import UserError, Verdict

LONGEST_SHOWN = 60


@app.command
def grade(file: tyro.conf.Positional[Path], /, out: Path | None = None) -> None:
    """Grade responses by the reward's rule and three others: counts, an agreement matrix, every disagreement.

    Args:
        file: JSON lines with id, gold and response.
        out: File for the verdicts: one line a response with id, verdict (the reward's) and every rule's own.
    """
    from suite.agreement import agreement_matrix, verdict_counts
    from suite.files import write_atomically
    from suite.grid import progress_bar
    from suite.printing import show
    from tasks.grading import PANEL, REWARD
    from tasks.jsonl import RESPONSE, read_rows

    rows = read_rows(file, RESPONSE, "give JSON lines with id, gold and response")
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


def _check_writable(out: Path, file: Path) -> None:
    """Refuses before the work what would fail or lose the responses after it."""
    if out.exists() and (out.is_dir() or out.samefile(file)):
        raise UserError(f"--out {out}: {'a folder' if out.is_dir() else 'the file of responses'}; name another file")
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"--out {out}: cannot write in {folder}; choose another place")


def _print_disagreements(rows: Sequence[Mapping[str, str]], panel: Mapping[str, Sequence[Verdict]]) -> None:
    from suite.agreement import disagreements

    found = disagreements(panel)
    console.print(f"{len(found)} disagreements", highlight=False)
    for i in found:
        said = ", ".join(f"{name} {verdicts[i]}" for name, verdicts in panel.items())
        line = f"line {i + 1}, {_shown(rows[i]['id'])}: gold {_shown(rows[i]['gold'])}; {said}"
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _shown(text: str) -> str:
    """A text of strangers on one short line."""
    from suite.printing import printable

    return printable(text if len(text) <= LONGEST_SHOWN else text[: LONGEST_SHOWN - 1] + "…")
