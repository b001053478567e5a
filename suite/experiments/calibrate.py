"""Calibration: from recorded updates and a wanted clip rate to a range file."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.experiments.finished import load_comparison, replayed_cells
from suite.experiments.names import REFERENCE, find_method, known_methods
from suite.experiments.settings import method_with, with_ranges
from suite.methods.cards import card_digest
from suite.records.bank import MANIFEST, Bank
from suite.records.comparison_folder import CONFIG_FILE, stored_config
from suite.records.files import digest_of
from suite.records.packed import update_files
from suite.records.provenance import versions
from suite.records.ranges import Calibration, Range, Ranges
from suite.records.update_log import UpdateLog
from suite.replay.matched_ranges import TOLERANCE, matched_ranges, recorded_updates
from suite.replay.one_method import clip_rate
from suite.replay.replays import MORE_UPDATES, NO_CLIP_ACTS
from suite.types import UserError


@dataclass(frozen=True)
class Records:
    """Recorded updates, the methods to calibrate on them by default, those methods' settings, and where it all lies."""

    log: UpdateLog
    methods: tuple[str, ...]
    options: tuple[str, ...]
    source: Mapping[str, Any]


def records_in(folder: Path) -> Records:
    """The records of a bank, or of a finished comparison with the settings that its methods were trained with.

    UserError where there is neither, or where a file is missing or altered.
    """
    if (folder / MANIFEST).exists():
        digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
        source = {"kind": "bank", "folder": folder.resolve().name, "manifest_sha256": digest}
        return Records(Bank.open(folder).updates(), tuple(known_methods()), (), source)
    if not (folder / CONFIG_FILE).exists():
        raise UserError(
            f"{folder}: no bank and no comparison; give the --out folder of fspo bank record or fspo compare"
        )
    config = stored_config(folder)
    load_comparison(config, folder)  # refuses one that is unfinished or altered
    cells = replayed_cells(config, folder)
    log = recorded_updates(cells)
    files = [path for cell in cells for path in update_files(cell)]
    digests = {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    source = {"kind": "comparison", "folder": folder.resolve().name, "update_logs": len(files)}
    return Records(log, config.methods, config.options, {**source, "update_logs_sha256": digest_of(digests)})


def calibrate(
    folder: Path,
    names: Sequence[str] | None,
    target: float | None,
    ranges: Ranges,
    options: Sequence[str],
    command: Sequence[str],
) -> Calibration:
    """Ranges at which methods clip `target` of the responses in a folder's records that have a gradient.

    Widths are multiplied by one factor a method, in log space where they are a ratio's, found by bisection. A share of
    n responses moves in steps of 1 / n, so a measured share may be away from the target by the larger of .001 and
    1 / n; a method that misses it by more has no range, but a reason. `options` are settings that the search starts
    from, on top of the records' own and of `ranges`. target None: FSPO's own share with those settings.

    UserError for an impossible target, and where no method can be matched.

    Source: ours.
    """
    records = records_in(folder)
    names = records.methods if names is None else names
    options = (*records.options, *with_ranges(ranges, names, options))
    chosen = {name: method_with(name, options) for name in names}
    if not records.log.ratios_moved:
        raise UserError(f"{folder}: its rollouts have no second update: {NO_CLIP_ACTS}; {MORE_UPDATES}")
    responses = int(((records.log.update > 0) & (records.log.advantage != 0)).sum())
    if not responses:
        raise UserError(f"{folder}: no recorded response has a gradient; record more steps")
    wanted = clip_rate(method_with(REFERENCE, options), records.log, {}) if target is None else target
    if not 0 < wanted < 1:
        whose = f"{REFERENCE} clips a share of" if target is None else "--target"
        raise UserError(f"{whose} {wanted:g}: must be between 0 and 1; choose another --target")
    tolerance = max(TOLERANCE, 1 / responses)
    found, reasons = matched_ranges(chosen, records.log, wanted)
    for name, one in found.items():
        if abs(one.rate - wanted) > tolerance:
            reasons[name] = f"its clipped share jumps over {wanted:.4g}: {one.rate:.4g} is the nearest that it takes"
    if reasons.keys() == chosen.keys():
        raise UserError(f"{folder}: no method can be matched: {'; '.join(reasons.values())}")
    return Calibration(
        target=wanted,
        tolerance=tolerance,
        responses=responses,
        source=records.source,
        command=shlex.join(command),
        versions=versions(),
        methods={
            name: Range(one.factor, one.rate, card_digest(one.method), dict(one.changes(find_method(name))))
            for name, one in found.items()
            if name not in reasons
        },
        unmatched={name: reasons[name] for name in chosen if name in reasons},
    )


def out_path(folder: Path, out: Path | None) -> Path:
    """Where the range file goes: FOLDER/ranges.json by default. Only another range file is ever written over."""
    path = folder / "ranges.json" if out is None else out
    if path.exists():
        try:
            Ranges.read(path)
        except UserError as error:
            raise UserError(f"{path}: exists and is no range file; choose another --out") from error
    return path
