"""JSON-lines files: problems, and responses to grade. The first broken row raises with file, line and remedy.

A problem has `id`, `problem`, `answer`, `source`, all non-empty strings; `level`, `subject` and `solution` may be
there too, as strings; in a file of somebody's own `source` may be missing. A response to grade has `id`, `gold` and
`response`. Other fields are left alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.types import Problem, UserError


@dataclass(frozen=True)
class Fields:
    """The fields of a row, all strings: required and not empty, required, and those that may be missing."""

    required: tuple[str, ...]
    required_even_if_empty: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


PROBLEM = Fields(("id", "problem", "answer", "source"), optional=("level", "subject", "solution"))
OWN_PROBLEM = Fields(("id", "problem", "answer"), optional=("level", "source", "subject", "solution"))
RESPONSE = Fields(("id", "gold"), required_even_if_empty=("response",), optional=("expected",))


def read_problems(path: Path, task: str, task_version: str, fields: Fields = PROBLEM) -> list[Problem]:
    """The problems of a file, in its order."""
    rows = read_rows(path, fields, f"task {task} needs it, or leave --data-dir out to use the hub")
    seen: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        if row["id"] in seen:
            raise UserError(
                f"{path}, line {number}: id {row['id']!r} is already on line {seen[row['id']]}; "
                "give every row its own id"
            )
        seen[row["id"]] = number
    return [Problem(r["id"], r["problem"], r["answer"], task, task_version, r.get("solution")) for r in rows]


def read_rows(path: Path, fields: Fields, if_missing: str) -> list[dict[str, str]]:
    """The rows of a file, checked, in its order. `if_missing` is what to do where there is no such file."""
    try:
        lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {if_missing}") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(_row(line, fields))
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
    return rows


def _row(line: bytes, fields: Fields) -> dict[str, str]:
    """One line as a checked row; ValueError says what is wrong with it and what to do."""
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        hint = "an empty line; delete it" if not line.strip() else f"not JSON ({error}); mend or delete the row"
        raise ValueError(hint) from None
    except RecursionError:
        raise ValueError("nested too deeply; a row is one flat object of strings") from None
    if not isinstance(row, dict):
        wanted = _quoted((*fields.required, *fields.required_even_if_empty))
        raise ValueError(f"a {type(row).__name__} instead of an object; write {{{wanted}}}")
    for field in fields.required:
        if not isinstance(row.get(field), str) or not row[field].strip():
            raise ValueError(f"field {field!r} is {_state(row, field)}; give it a non-empty string")
    for field in fields.required_even_if_empty:
        if not isinstance(row.get(field), str):
            raise ValueError(f"field {field!r} is {_state(row, field)}; give it a string (it may be empty)")
    for field in fields.optional:
        if field in row and not isinstance(row[field], str):
            raise ValueError(f"field {field!r} is {_state(row, field)}; make it a string or leave it out")
    return row


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _state(row: dict, field: str) -> str:
    if field not in row:
        return "missing"
    return "empty" if isinstance(row[field], str) else f"a {type(row[field]).__name__}"
