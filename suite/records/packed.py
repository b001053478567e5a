"""A finished comparison in few files: verdicts and curves of all runs as Parquet, the rest of each run as JSON.

While a comparison runs, every run has a `result.json` of its own, which resuming needs. `pack_results` writes the same
content into `runs.json`, `verdicts.parquet` and `curves.parquet` of the folder, checks that every result reads back
with the digest that it had, and then removes the single files. The update logs of a cell become one Parquet file.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from suite.records.files import file_sha256, write_atomically
from suite.records.result import FILE, RunResult, digests, read_file
from suite.records.update_log import UpdateLog, step_file
from suite.types import UserError

RUNS, VERDICTS, CURVES, UPDATES = "runs.json", "verdicts.parquet", "curves.parquet", "updates.parquet"
SCHEMA = "fspo-runs-1"
EVAL_FACTS = ("task", "task_version", "data_digest", "truncated_share")
DEEPEST = 2
"""A run's folder lies at most so many folders below its comparison's."""


def is_finished(folder: Path) -> bool:
    """Whether a run's result is on disk, in a file of its own or packed."""
    return (folder / FILE).exists() or _packed_at(folder) is not None


def read_result(folder: Path) -> RunResult:
    """The result of a run, from its own file or from a packed comparison above it, checked against its digest.

    UserError: no result, one of another protocol, a broken or altered file.
    """
    place = None if (folder / FILE).exists() else _packed_at(folder)
    return read_file(folder / FILE) if place is None else _unpacked(*place)


def result_file(folder: Path) -> Path:
    """The file that holds a run's result, its own or the packed one."""
    place = None if (folder / FILE).exists() else _packed_at(folder)
    return folder / FILE if place is None else place[0] / RUNS


def unpacked_results(folder: Path) -> list[Path]:
    """The results of a comparison's runs that lie in files of their own, in order.

    A comparison that lies deeper, such as one of a sweep, has its own.
    """
    return sorted(path for path in folder.rglob(FILE) if len(path.relative_to(folder).parts) <= DEEPEST + 1)


def pack_results(folder: Path) -> list[Path]:
    """Pack a finished comparison in place; the files that were written. UserError where there is nothing to pack.

    Results that were packed before stay, beside those of methods and seeds that were added since.
    """
    paths = unpacked_results(folder)
    if not paths:
        raise UserError(f"{folder}: no {FILE} to pack; give the folder of a finished comparison that is not packed yet")
    before = _packed(folder) if (folder / RUNS).exists() else {"runs": {}, "updates": {}}
    found = {name: _unpacked(folder, name) for name in before["runs"]}
    found |= {path.parent.relative_to(folder).as_posix(): read_file(path) for path in paths}
    results = {name: found[name] for name in sorted(found, key=Path)}
    written = [
        _write(folder / VERDICTS, _verdicts(results)),
        _write(folder / CURVES, _curves(results)),
        folder / RUNS,
    ]
    content = {"schema": SCHEMA, "runs": {name: _facts(result) for name, result in results.items()}}
    content |= {"updates": before["updates"]} if before["updates"] else {}
    write_atomically(folder / RUNS, json.dumps(content, indent=1, allow_nan=False) + "\n")
    for name, result in results.items():
        if _unpacked(folder, name) != result:
            raise RuntimeError(f"{folder}: {name} does not read back as it was; its {FILE} stays")
    for path in paths:
        path.unlink()
    written += [made for made in map(_pack_updates, sorted(folder.rglob("updates"))) if made is not None]
    list_updates(folder)
    return written


def is_listed(folder: Path) -> bool:
    """Whether a packed comparison lists its update logs; those of older versions do not."""
    return "updates" in json.loads((folder / RUNS).read_text(encoding="utf-8"))


def list_updates(folder: Path) -> None:
    """Note the sha256 of every packed update log of a packed comparison in its runs.json, which readers compare.

    What was noted stays: a log that was altered since is not taken for the right one.
    """
    content = json.loads((folder / RUNS).read_text(encoding="utf-8"))
    noted, logs = content.get("updates", {}), {run: folder / run / UPDATES for run in content["runs"]}
    content["updates"] = {
        run: noted.get(run) or file_sha256(path) for run, path in logs.items() if run in noted or path.exists()
    }
    write_atomically(folder / RUNS, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_updates(cell: Path) -> UpdateLog:
    """What every optimizer step of a cell saw, from its packed file or from one file a step.

    UserError where a cell holds no update log, where one is altered, and where a step of a finished cell is missing.
    """
    paths = update_files(cell)
    if not paths:
        raise UserError(
            f"{cell}: its update logs are not here, so no method can be replayed on it; the command in the folder's "
            "comparison.json makes them again, into another --out folder"
        )
    if paths[0].name == UPDATES:
        _check_listed(cell)
        return UpdateLog.from_table(pq.read_table(paths[0]))
    logs = [UpdateLog.load(path) for path in paths]
    for step, (path, log) in enumerate(zip(paths, logs, strict=True)):
        if path.name != step_file(step) or (log.step != step).any():
            raise UserError(f"{path}: not the update log of step {step}; move {cell} away and run the command again")
    if is_finished(cell) and len(logs) != (steps := read_result(cell).config["steps"]):
        raise UserError(f"{cell}: update logs of {len(logs)} steps, {steps} expected; run the command again elsewhere")
    return UpdateLog.concat(logs)


def _check_listed(cell: Path) -> None:
    place = _packed_at(cell)
    said = None if place is None else _packed(place[0])["updates"].get(place[1])
    if said != file_sha256(cell / UPDATES):
        raise UserError(f"{cell / UPDATES}: altered, or not listed in {RUNS}; get the folder again")


def update_files(cell: Path) -> list[Path]:
    """The files that hold what a cell's optimizer steps saw: the packed one, or one a step."""
    if (cell / UPDATES).exists():
        return [cell / UPDATES]
    return sorted((cell / "updates").glob("step-*.safetensors"))


def _pack_updates(folder: Path) -> Path | None:
    """One Parquet file in the place of a cell's folder of update logs; None where it holds none."""
    paths = sorted(folder.glob("step-*.safetensors"))
    if not paths:
        return None
    log = read_updates(folder.parent)
    table = log.table()
    made = folder.parent / UPDATES
    numbers = [name for name in table.column_names if pa.types.is_floating(table.schema.field(name).type)]
    lists = [f"{name}.list.element" for name in ("log_probs", "old_log_probs")]
    split = dict.fromkeys((*numbers, *lists), "BYTE_STREAM_SPLIT")
    _write(made, table, column_encoding=split, use_dictionary=["problem_ids", "cells"])
    back = UpdateLog.from_table(pq.read_table(made))
    if any((getattr(back, f.name) != getattr(log, f.name)).any() for f in dataclasses.fields(log)):
        raise RuntimeError(f"{made}: does not read back as it was; the files of the steps stay")
    for path in paths:
        path.unlink()
    folder.rmdir()
    return made


def _write(path: Path, table: pa.Table, **options: Any) -> Path:
    """The same table gives the same bytes: no metadata of a writer's, fixed settings."""
    sink = io.BytesIO()
    settings = {"use_dictionary": True, **options}
    pq.write_table(table.replace_schema_metadata(None), sink, compression="zstd", compression_level=19, **settings)
    write_atomically(path, sink.getvalue())
    return path


def _facts(result: RunResult) -> dict[str, Any]:
    """All of a result but verdicts, lengths, problem ids and the numbers of its curves."""
    plain = {f.name: getattr(result, f.name) for f in dataclasses.fields(result) if f.name not in ("evals", "curves")}
    evals = [{name: getattr(one, name) for name in EVAL_FACTS} for one in result.evals]
    return {**plain, "evals": evals, "curves": list(result.curves), **digests(result)}


def _verdicts(results: Mapping[str, RunResult]) -> pa.Table:
    """One row for every response, in order: run, task, problem, verdict and length."""
    columns: dict[str, list[Any]] = {name: [] for name in ("run", "task", "problem", "verdict", "length")}
    for run, result in results.items():
        for one in result.evals:
            for problem, verdicts, lengths in zip(one.problem_ids, one.verdicts, one.lengths, strict=True):
                for verdict, length in zip(verdicts, lengths, strict=True):
                    for column, value in zip(columns.values(), (run, one.task, problem, verdict, length), strict=True):
                        column.append(value)
    return pa.table(columns)


def _curves(results: Mapping[str, RunResult]) -> pa.Table:
    """One row for every number of every curve, in order: run, curve and value."""
    rows = [(run, name, x) for run, result in results.items() for name, xs in result.curves.items() for x in xs]
    names = ("run", "curve", "value")
    kinds = (pa.string(), pa.string(), pa.float64())
    return pa.table({n: pa.array([row[i] for row in rows], kinds[i]) for i, n in enumerate(names)})


def _packed_at(folder: Path) -> tuple[Path, str] | None:
    """(comparison folder, name of the run in it) where a packed comparison above a run's folder holds its result."""
    for above in list(folder.parents)[:DEEPEST]:
        name = folder.relative_to(above).as_posix()
        if (above / RUNS).exists() and name in _packed(above)["runs"]:
            return above, name
    return None


def _packed(folder: Path) -> Mapping[str, Any]:
    """runs.json of a packed comparison."""
    path = folder / RUNS
    return _read_packed(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=8)
def _read_packed(path: Path, changed: int) -> Mapping[str, Any]:
    """The packed runs with their verdicts and curves, by run; read once while the file stays the same."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']!r}")
        verdicts = pq.read_table(path.parent / VERDICTS).to_pylist()
        curves = pq.read_table(path.parent / CURVES).to_pylist()
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).strip().split("\n", 1)[0][:200]
        raise UserError(f"{path}: no packed runs of this suite ({reason}); get the folder again") from error
    return {
        "runs": content["runs"],
        "updates": content.get("updates", {}),
        "verdicts": _grouped(verdicts, ("run", "task")),
        "curves": _grouped(curves, ("run", "curve")),
    }


def _grouped(rows: Sequence[Mapping[str, Any]], keys: tuple[str, str]) -> dict[tuple[Any, ...], list[Any]]:
    """Rows by two of their columns, in order."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    return found


def _unpacked(folder: Path, name: str) -> RunResult:
    """A run of a packed comparison, put together and checked."""
    packed = _packed(folder)
    content = dict(packed["runs"][name])
    evals = []
    for one in content["evals"]:
        problems: dict[str, list[Any]] = {}
        for row in packed["verdicts"].get((name, one["task"]), ()):
            problems.setdefault(row["problem"], []).append(row)
        evals.append(
            {
                **one,
                "problem_ids": list(problems),
                "verdicts": [[row["verdict"] for row in rows] for rows in problems.values()],
                "lengths": [[row["length"] for row in rows] for rows in problems.values()],
            }
        )
    curves = {c: [row["value"] for row in packed["curves"].get((name, c), ())] for c in content["curves"]}
    return read_file(folder / RUNS, {**content, "evals": evals, "curves": curves})
