"""Every sample of an evaluation on disk: Parquet parts that only grow, and a manifest that says what drew them.

    FOLDER/manifest.json                     what was asked of which model; a resumed evaluation must agree
    FOLDER/TASK/part-00000-DIGEST.parquet    one chunk of responses, written whole when it is finished
    FOLDER/TASK/verdicts-DIGEST.parquet      what the graders say, written when all responses of the task are there

A kill loses the chunk in flight. Chunks are cut from the requests alone, so a resumed evaluation writes the files that
an uninterrupted one writes, byte for byte. DIGEST is the start of the sha256 of a file, which every reader checks.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from suite.records.files import digest_of, flat, listed, write_atomically
from suite.types import FinishReason, UserError, Verdict

MANIFEST = "manifest.json"
FOLDER = "samples"
VERDICTS = "verdicts"
SCHEMA_VERSION = 2
UNSEALED = 1
"""The schema of manifests from before they had a digest."""
REWARD = "verdict"
"""Name of the verdict that scores come from; other graders' columns have their own names."""


@dataclass(frozen=True)
class Sample:
    """One response. `place` counts the samples of a task, those of a problem side by side; `template` is a sha256.

    `seed` is the 64-bit key of its noise. `prompt` is the text the model went on from, `tokens` what it drew, the end
    token included; `response` is their text without special tokens.
    """

    task: str
    problem: str
    sample: int
    place: int
    seed: int
    template: str
    prompt: str
    gold: str
    response: str
    tokens: tuple[int, ...]
    finish: FinishReason


PART = pa.schema(
    [
        ("task", pa.string()),
        ("problem", pa.string()),
        ("sample", pa.int32()),
        ("place", pa.int32()),
        ("seed", pa.int64()),
        ("template", pa.string()),
        ("prompt", pa.string()),
        ("gold", pa.string()),
        ("response", pa.string()),
        ("tokens", pa.list_(pa.int32())),
        ("finish", pa.string()),
    ]
)


@dataclass(frozen=True)
class Judged:
    """What the graders say of all samples of one task, by place: verdict columns by grader, and answers for votes."""

    verdicts: Mapping[str, Sequence[Verdict]]
    answers: Sequence[str | None]


class SampleStore:
    """The samples of one evaluation in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def claim(self, manifest: Mapping[str, Any]) -> None:
        """Write the manifest, or check that the samples here were asked for by the same one.

        `manifest["asked"]` must agree; the rest tells how the samples came about and stays as first written. UserError,
        with nothing written, where it does not agree or the folder holds something else.
        """
        path = self.folder / MANIFEST
        if MANIFEST not in (names := listed(self.folder)):
            if names:
                raise UserError(f"{self.folder}: not empty and no store of samples; choose another --out")
            content = json.loads(json.dumps({"schema": SCHEMA_VERSION, **manifest}))
            content["digest"] = digest_of(content)
            write_atomically(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
            return
        known, wanted = flat(read_manifest(self.folder)["asked"]), flat(manifest["asked"])
        for name in [*wanted, *known]:
            if name not in known or name not in wanted or known[name] != wanted[name]:
                raise UserError(
                    f"{self.folder}: holds samples with {name} = {_short(known.get(name))}, "
                    f"not {_short(wanted.get(name))}; choose another --out, or move that folder away"
                )

    def chunk_size(self, default: int) -> int:
        """How many samples a part holds: what the manifest says, whatever batch is asked for when it goes on."""
        return int(read_manifest(self.folder)["chunk"]) if (self.folder / MANIFEST).exists() else default

    def chunk(self, task: str, number: int) -> list[Sample] | None:
        """The samples of a finished chunk, None before it is finished."""
        path = _found(self.folder / task, f"part-{number:05d}")
        if path is None:
            return None
        return [
            Sample(**{**row, "tokens": tuple(row["tokens"]), "finish": FinishReason(row["finish"])})
            for row in _read(path).to_pylist()
        ]

    def add(self, task: str, number: int, samples: Sequence[Sample]) -> None:
        """Keep a finished chunk."""
        columns = {f.name: [getattr(sample, f.name) for sample in samples] for f in fields(Sample)}
        columns["finish"] = [sample.finish.value for sample in samples]
        _write(self.folder / task, f"part-{number:05d}", pa.table(columns, schema=PART))

    def judged(self, task: str) -> Judged | None:
        """What the graders said, None before they were asked."""
        path = _found(self.folder / task, VERDICTS)
        if path is None:
            return None
        columns = _read(path).to_pydict()
        answers, _ = columns.pop("answer"), columns.pop("place")
        return Judged({name: [Verdict(v) for v in column] for name, column in columns.items()}, answers)

    def judge(self, task: str, judged: Judged) -> None:
        """Keep what the graders say."""
        columns = {name: pa.array([v.value for v in column], pa.string()) for name, column in judged.verdicts.items()}
        answers = pa.array(judged.answers, pa.string())
        places = pa.array(range(len(answers)), pa.int32())
        _write(self.folder / task, VERDICTS, pa.table({"place": places, "answer": answers, **columns}))


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest in a folder of samples; UserError where there is none, or one of another schema."""
    path = folder / MANIFEST
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] not in (UNSEALED, SCHEMA_VERSION) or not isinstance(content["asked"], dict):
            raise ValueError(f"schema {content['schema']}, this version reads {SCHEMA_VERSION}")
        if content["schema"] == SCHEMA_VERSION and content.pop("digest") != digest_of(content):
            raise ValueError("altered: its digest differs")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no manifest of samples to read ({error}); evaluate into another folder") from error
    return content


def samples_folder(folder: Path) -> Path:
    """Where the samples of an evaluation, of a cell or of a base model are: the folder itself, or `samples` in it."""
    for place in (folder, folder / FOLDER):
        if (place / MANIFEST).exists():
            return place
    raise UserError(
        f"{folder}: no samples here; give the folder of fspo evaluate, or in a comparison base or cells/METHOD-seedN"
    )


def read_frame(folder: Path) -> pd.DataFrame:
    """All samples of a folder, one row each, in the order of the manifest's tasks and of their problems.

    Columns are those of `Sample`, `length` in tokens, and for graded tasks `verdict`, `answer` and one column a further
    grader; those are missing values where a task is not graded yet, or not by that grader. UserError where a part is
    not readable or two parts hold the same sample.
    """
    tasks = list(read_manifest(folder)["asked"]["tasks"])
    parts = []
    for task in tasks:
        found = [_read(path).to_pandas() for path in sorted((folder / task).glob("part-*.parquet"))]
        if not found:
            continue
        frame = pd.concat(found, ignore_index=True).sort_values("place", ignore_index=True)
        if frame["place"].duplicated().any():
            raise UserError(f"{folder / task}: two parts hold the same sample; move the folder away and evaluate again")
        verdicts = _found(folder / task, VERDICTS)
        if verdicts is not None:
            frame = frame.merge(_read(verdicts).to_pandas(), on="place", how="left")
        parts.append(frame)
    if not parts:
        return pd.DataFrame(columns=[*PART.names, "length", REWARD, "answer"])
    frame = pd.concat(parts, ignore_index=True).assign(length=lambda rows: rows["tokens"].map(len))
    return frame.reindex(columns=[*frame.columns, *(c for c in (REWARD, "answer") if c not in frame)])


def unfinished(folder: Path, frame: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """(samples there, samples asked for) of the tasks that `read_frame`'s rows do not complete."""
    asked = read_manifest(folder)["asked"]
    wanted = _wanted(asked)
    have = Counter(frame["task"])
    return {task: (have[task], count) for task, count in wanted.items() if have[task] != count}


def counts(folder: Path, since: float = 0.0) -> dict[str, tuple[int, int]]:
    """(samples kept, samples asked for) of each task, from the headers of its parts; UserError for a broken one.

    Of the parts written since then alone, a Unix time.
    """
    asked = read_manifest(folder)["asked"]
    found = {}
    for task, wanted in _wanted(asked).items():
        parts = [path for path in (folder / task).glob("part-*.parquet") if path.stat().st_mtime >= since]
        found[task] = sum(map(_rows, parts)), wanted
    return found


def _wanted(asked: Mapping[str, Any]) -> dict[str, int]:
    """How many samples a manifest asks for, by task."""
    return {task: facts["problems"] * asked["samples"] for task, facts in asked["tasks"].items()}


def _rows(path: Path) -> int:
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path}: altered or truncated; delete it and evaluate again") from error


def _write(folder: Path, stem: str, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomically(folder / f"{stem}-{_digest(buffer.getvalue())}.parquet", buffer.getvalue())


def _found(folder: Path, stem: str) -> Path | None:
    """The file of that name with whatever digest; UserError where there are two."""
    paths = sorted(folder.glob(f"{stem}-*.parquet"))
    if len(paths) > 1:
        raise UserError(f"{folder}: {stem} is there twice; delete one of {', '.join(path.name for path in paths)}")
    return paths[0] if paths else None


def _read(path: Path) -> pa.Table:
    try:
        data = path.read_bytes()
        if path.stem.rpartition("-")[2] != _digest(data):
            raise ValueError("its content does not have the digest of its name")
        return pq.read_table(io.BytesIO(data))
    except (OSError, ValueError, pa.ArrowException) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise UserError(f"{path}: altered or truncated ({reason}); delete it and evaluate again") from error


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
