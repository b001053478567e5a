"""The command that reads finished comparisons: their report, the paper's claims, before against after."""

from __future__ import annotations

import sys
from pathlib import Path

import tyro

from suite.commands.console import complaints, console
from suite.types import UserError

Folder = tyro.conf.Positional[Path | None]


def report(
    folder: Folder = None,
    /,
    compare: tuple[Path, Path] | None = None,
    out: Path | None = None,
    pack: bool = False,
    claims: bool = False,
) -> None:
    """Make tables, figures and pages of a finished comparison again, from its stored results alone.

    Args:
        folder: The comparison's folder.
        compare: Instead: two comparisons of the same methods, before and after a change, and what it moved.
        out: With --compare: folder for changes.md and changes.csv.
        claims: Only print each claim of FSPO's abstract with what was measured and a computed verdict; write nothing.
        pack: Put the results of all runs into three files, and each cell's update logs into one, to be kept.
    """
    if (folder is None) == (compare is None):
        raise UserError("give one folder of a comparison, or --compare BEFORE AFTER")
    if claims and (pack or out is not None or compare is not None):
        raise UserError("--claims only prints: leave out --pack, --out and --compare")
    if compare is not None:
        return _changes(*compare, out)
    assert folder is not None
    with complaints.status("reading results, replaying methods, computing intervals"):
        from suite.experiments.finished import pack_comparison
        from suite.findings.comparison import Comparison
        from suite.report.terminal import print_claims, print_report
        from suite.report.write import write_report

        made = Comparison.at(folder)
        judged = made.claims if claims else []
        packed = pack_comparison(folder) if pack else []
        page = None if claims else write_report(made)
    if page is None:
        return print_claims(judged, console)
    for path in packed:
        console.print(f"packed: {path}", highlight=False, markup=False, soft_wrap=True)
    print_report(made, page, console)


def _changes(before: Path, after: Path, out: Path | None) -> None:
    """Print what moved between two comparisons, and write it where a folder is given."""
    with complaints.status("reading and comparing results"):
        from suite.findings.before_after import changes_between
        from suite.report.tables import changes_table
        from suite.report.terminal import show
        from suite.report.write import write_changes

        found = changes_between(before, after)
    show(changes_table(found), f"{after} minus {before}, points", console)
    if out is not None:
        console.print(f"table: {write_changes(found, out, ['fspo', *sys.argv[1:]])}", highlight=False)
