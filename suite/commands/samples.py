"""`fspo samples`: the stored responses of an evaluation for a person to read, and the numbers that follow from them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from suite.commands.console import console, say
from suite.types import FinishReason, UserError, Verdict

if TYPE_CHECKING:
    import pandas as pd

IN_PLACE = (
    "task",
    "problem",
    "sample",
    "place",
    "seed",
    "template",
    "prompt",
    "gold",
    "response",
    "tokens",
    "finish",
    "length",
    "answer",
)
"""Columns that are no grader's verdict."""


def samples(
    folder: tyro.conf.Positional[Path],
    /,
    task: str | None = None,
    problem: str | None = None,
    wrong: bool = False,
    undecided: bool = False,
    no_answer: bool = False,
    truncated: bool = False,
    limit: int = 5,
    metrics: bool = False,
    k: str | None = None,
) -> None:
    """Show stored responses with prompt, gold answer and every grader's verdict, or the metrics that follow from them.

    Args:
        folder: Folder of fspo evaluate, or base or cells/METHOD-seedN in the folder of a comparison.
        task: One set; default all.
        problem: One problem, by its id.
        wrong: Only responses that are wrong. Several such choices together show what any of them chooses.
        undecided: Only responses that the grader could not decide.
        no_answer: Only responses without an answer.
        truncated: Only responses that were cut at the token limit.
        limit: Show so many.
        metrics: Print the table of avg@k, pass@k, pass^k and maj@k instead, computed from the stored samples alone.
        k: Comma-separated numbers of samples for the table; default 1, 2, 4, ... up to all.
    """
    from suite.evaluation.sample_store import read_frame, samples_folder, unfinished

    if limit < 1:
        raise UserError(f"--limit {limit}: at least 1")
    place = samples_folder(folder)
    frame = read_frame(place)
    for column, value in (("task", task), ("problem", problem)):
        if value is not None:
            frame = _only(frame, column, value, place)
    missing = {name: counts for name, counts in unfinished(place, frame).items() if task in (None, name)}
    if metrics:
        if problem is None and missing:
            name, (have, wanted) = next(iter(missing.items()))
            raise UserError(f"{place}: {have} of {wanted} samples of {name}; finish the evaluation first")
        _print_metrics(frame, k)
        return
    say(f"{name}: {have} of {wanted} samples so far" for name, (have, wanted) in missing.items() if problem is None)
    chosen = _chosen(frame, wrong, undecided, no_answer, truncated)
    for row in chosen.head(limit).to_dict("records"):
        _print_sample(row)
    say([f"{min(limit, len(chosen))} of {len(chosen)} samples shown" + (", --limit for more" * (len(chosen) > limit))])


def _only(frame: pd.DataFrame, column: str, value: str, place: Path) -> pd.DataFrame:
    """The rows with that value; UserError where there are none."""
    found = frame.loc[frame[column] == value]
    if found.empty:
        known = list(dict.fromkeys(frame[column].astype(str)))
        some = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
        raise UserError(f"--{column} {value!r}: no samples of it in {place}; there are: {some or 'none'}")
    return found


def _chosen(frame: pd.DataFrame, wrong: bool, undecided: bool, no_answer: bool, truncated: bool) -> pd.DataFrame:
    """The rows that any of the choices chooses; all where there is none."""
    verdicts = {Verdict.WRONG: wrong, Verdict.UNDECIDED: undecided, Verdict.NO_ANSWER: no_answer}
    wanted = [verdict.value for verdict, asked in verdicts.items() if asked]
    if not wanted and not truncated:
        return frame
    cut = (frame["finish"] == FinishReason.LENGTH.value) & truncated
    return frame.loc[frame["verdict"].isin(wanted) | cut]


def _print_metrics(frame: pd.DataFrame, k: str | None) -> None:
    from suite.evaluation.sample_metrics import sample_metrics
    from suite.report.tables import sample_tables
    from suite.report.terminal import show

    most = min(Counter(zip(frame["task"], frame["problem"], strict=True)).values(), default=0)
    if most == 0:
        raise UserError("no samples to count; finish the evaluation first")
    if k is None:
        ks = sorted({2**i for i in range(most.bit_length())} | {most})
    elif all(word.isdecimal() for word in k.split(",")):
        ks = [int(word) for word in k.split(",")]
    else:
        raise UserError(f"--k {k!r}: whole numbers with commas between, for instance 1,2,4")
    by_k, shares = sample_tables(sample_metrics(frame, ks))
    show(by_k, "from the stored samples, in per cent", console)
    show(shares, "of all of them, in per cent; lengths in tokens", console)


def _print_sample(row: dict[str, Any]) -> None:
    """One response with all that belongs to it; nothing in it is markup or reaches the terminal as a command."""
    from rich.rule import Rule
    from rich.text import Text

    from suite.records.texts import printable

    said = {name: value for name, value in row.items() if name not in IN_PLACE and isinstance(value, str)}
    graded = ", ".join(f"{name} {value}" for name, value in said.items()) or "not graded yet"
    console.print(Rule(Text(f"{row['task']}  {printable(row['problem'])}  sample {row['sample']}"), align="left"))
    for title, text in (("prompt", row["prompt"]), ("response", row["response"]), ("gold", row["gold"])):
        console.print(Text(f"{title}:", "bold"))
        console.print(Text(printable(text, keep="\n\t")), soft_wrap=True)
    answer = row["answer"] if isinstance(row["answer"], str) else None
    end = "cut at the token limit" if row["finish"] == FinishReason.LENGTH else "ended"
    say([f"answer: {'none' if answer is None else printable(answer)}; {graded}; {row['length']} tokens, {end}", ""])
