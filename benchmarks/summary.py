"""One table of all ratios, from the JSON files of the benchmarks that ran.

    python -m benchmarks.summary [--folder results/bench]        # prints the table and writes FOLDER/table.md

Every file of the folder with a list `ratios` gives its rows (benchmarks/README.md says what stands in one). Files
without it, and benchmarks of EXPECTED without a file, are named below the table.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.gpu_text import markdown
from benchmarks.ratios import Ratio
from suite.records.files import write_atomically
from suite.statistics.frames import Number
from suite.types import UserError

EXPECTED = ("training_step", "cycles", "cycles_tail", "log_probs", "scaling", "arena", "grading")
"""In the order of the table; other files follow by name."""


def read(folder: Path) -> tuple[list[tuple[str, Ratio]], list[str]]:
    """(file's name, ratio) of all rows, and a line for everything that is missing, broken or not worth its name."""
    found = {path.stem: path for path in sorted(folder.glob("*.json"))}
    names = [*(name for name in EXPECTED if name in found), *(name for name in found if name not in EXPECTED)]
    rows, notes = [], []
    for name in names:
        try:
            content = json.loads(found[name].read_text(encoding="utf-8"))
            part = [(name, Ratio(**row)) for row in content["ratios"]]
        except KeyError:
            notes.append(f"{name}: no ratios in {found[name].name}")
        except (ValueError, TypeError) as error:
            notes.append(f"{name}: {found[name].name} is broken ({error}); run it again")
        else:
            rows += part
            notes += caveats(name, content)
    notes += [f"{name}: not run" for name in EXPECTED if name not in found]
    return rows, notes


def caveats(name: str, content: Mapping[str, Any]) -> list[str]:
    """What a reader of one file's ratios has to know."""
    said = [f"{name}: --quick, its figures mean nothing"] if content.get("quick") else []
    absent = content.get("did_not_run", {})
    return said + [f"{name}: {what} did not run: {reason}" for what, reason in absent.items()]


def table(rows: Sequence[tuple[str, Ratio]]) -> str:
    """The table in markdown."""
    columns = ["benchmark", "what", "ratio", "goal", "met", "padding"]
    content = []
    for name, row in rows:
        sign = "at least" if row.better == "higher" else "at most"
        goal = "" if row.goal is None else f"{sign} {row.goal:.2f}"
        met = {None: "", True: "yes", False: "no"}[row.met]
        padding = "" if row.padding is None else Number(f"{100 * row.padding:.0f} %")
        content.append([name, f"{row.name}: {row.what}", Number.of(row.ratio, ".2f"), goal, met, padding])
    return markdown(pd.DataFrame(content, columns=columns))


def summarise(folder: Path) -> str:
    """The table and the notes below it, as written to table.md; UserError where no file has a ratio."""
    rows, notes = read(folder)
    if not rows:
        raise UserError(f"{folder}: no ratios to show ({'; '.join(notes)}); run `make bench`")
    lines = [table(rows), "", *(f"- {note}" for note in notes)]
    text = "\n".join(lines).rstrip() + "\n"
    write_atomically(folder / "table.md", text)
    return text


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description="One table of all ratios.")
    parser.add_argument("--folder", type=Path, default=Path("results/bench"))
    try:
        print(summarise(parser.parse_args().folder))
    except UserError as error:
        sys.exit(f"benchmarks.summary: error: {error}")


if __name__ == "__main__":
    main()
