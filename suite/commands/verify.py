"""The command that makes cells of a finished comparison again and says whether they are the same bytes."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import tyro

from suite.commands.compare import code_of
from suite.commands.console import console, say
from suite.records.result import BASE
from suite.types import UserError

if TYPE_CHECKING:
    from suite.config import CompareConfig
    from suite.findings.made_again import MadeAgain
    from suite.types import RunResult

NOTHING_RECORDED = "no fact on record is otherwise here: the stored numbers are not what this code computes"
Folder = tyro.conf.Positional[Path]


def verify(
    folder: Folder,
    /,
    cells: str = "2",
    draw: int | None = None,
    out: Path | None = None,
    workers: int | None = None,
) -> None:
    """Make cells of a finished comparison again: the same bytes, or what differs and why. Exit code 1 if one differs.

    Args:
        folder: The comparison's folder, packed or not.
        cells: How many cells, drawn at random, or which: METHOD-seedK, or base, with commas between.
        draw: Seed of the draw, to draw the same cells again; default a fresh one, which is printed.
        out: Folder to keep what is made; default a temporary one.
        workers: Processes side by side on this machine; default one per GPU that can be seen, or one per core.
    """
    from suite.experiments.layouts import layout_for
    from suite.experiments.local_jobs import run_jobs
    from suite.experiments.remake import chosen_cells, keep_canary, recorded_threads, require_files_here
    from suite.findings.made_again import RULE
    from suite.records.comparison_folder import claim_folder, stored_config

    config = stored_config(folder)
    if out is not None and out.resolve() == folder.resolve():
        raise UserError(f"--out {out}: it is the folder that is verified; give another one for what is made again")
    require_files_here(config, folder)
    seed = random.SystemRandom().randrange(10_000) if draw is None else draw
    chosen = chosen_cells(config, cells, seed)
    names = chosen.names()
    whence = f" (drawn; --draw {seed} draws them again)" if cells.isdecimal() else ""
    say([f"{folder}: {config.name}, made again: {', '.join(names)}{whence}"])
    stored, found = _stored(folder, names)
    chosen = chosen.without([one.name for one in found])
    with _place(out) as place:
        claim_folder(config, place, ["fspo", *sys.argv[1:]], code_of(config))
        keep_canary(folder, place)
        stages = chosen.stages(config, place)
        layout = layout_for(config.train, max(1, *map(len, stages)), workers)
        run_jobs(stages, replace(layout, threads=recorded_threads(list(stored.values()), layout.threads)), console)
        found += _compared(config, folder, place, stored)
    for one in found:
        say(_lines(one))
    if not all(one.same for one in found):
        say([RULE + "."])
    say([f"{sum(one.same for one in found)} of {len(found)} agree byte for byte"])
    if not all(one.same for one in found):
        sys.exit(1)


@contextmanager
def _place(out: Path | None) -> Iterator[Path]:
    """The folder for what is made: the one that was given, or one that is gone afterwards."""
    if out is not None:
        yield out
        return
    with TemporaryDirectory(prefix="fspo-verify-") as made:
        yield Path(made) / "again"


def _path(name: str) -> Path:
    """Where a cell lies in a comparison's folder."""
    return Path(BASE) if name == BASE else Path("cells") / name


def _stored(folder: Path, names: Sequence[str]) -> tuple[dict[str, RunResult], list[MadeAgain]]:
    """The stored results of those cells that can be read, and what is said of the others."""
    from suite.findings.made_again import MadeAgain
    from suite.records.packed import read_result

    stored, broken = {}, []
    for name in names:
        try:
            stored[name] = read_result(folder / _path(name))
        except UserError as error:
            broken.append(MadeAgain(name, (f"cannot be read: {error}",), reasons=("the stored file itself",)))
    return stored, broken


def _compared(
    config: CompareConfig, folder: Path, place: Path, results: Mapping[str, RunResult]
) -> Iterator[MadeAgain]:
    """Every stored result beside the one that was made again."""
    from suite.experiments.cells import FirstRolloutsJob
    from suite.experiments.finished import stored_cells
    from suite.experiments.remake import digest_under
    from suite.findings.made_again import compared
    from suite.records.comparison_folder import recorded_code, recorded_growth, recorded_versions
    from suite.records.packed import read_result

    here, recorded, others = code_of(config), recorded_code(folder), stored_cells(config, folder)
    for name, stored in results.items():
        same = True
        if name != BASE:
            first, _ = FirstRolloutsJob(config, place, stored.seed).read()
            grown = [growth["versions"] for growth in recorded_growth(folder)]
            known = (first.header["versions"], stored.environment, recorded_versions(folder), *grown)
            same = stored.digests["first_rollouts"] in {digest_under(first, versions) for versions in known}
        sources = (recorded.get(stored.method, ""), here.get(stored.method, ""))
        made = read_result(place / _path(name))
        yield compared(name, stored, made, same, sources if all(sources) else ("", ""), others)


def _lines(one: MadeAgain) -> Iterator[str]:
    """What is said of one cell."""
    if one.same:
        yield f"{one.name}: the same bytes (settings, first rollouts, curves, verdicts, lengths, weights)"
    else:
        yield f"{one.name}: NOT the same"
        yield from (f"  differs   {line}" for line in one.differs)
        yield from (f"  reason?   {line}" for line in one.reasons)
        if not one.reasons:
            yield f"  reason?   {NOTHING_RECORDED}"
        if one.noise:
            yield f"  noise?    {one.noise}"
    yield from (f"  note      {line}" for line in one.notes)
