"""Problems from a JSON-lines file: one object a line with `id`, `problem`, `answer`, `source`, all non-empty strings.

`level`, `subject` and `solution` may be there too, as strings; other fields are left alone.
"""

from __future__ import annotations

import json
from pathlib import Path

from suite.types import Problem, UserError

REQUIRED = ("id", "problem", "answer", "source")
OPTIONAL = ("level", "subject", "solution")


def read_problems(path: Path, task: str, task_version: str) -> list[Problem]:
    """The problems of a file, in its order; the first broken row raises a UserError with file, line and remedy."""
    try:
        lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; task {task} needs it, or leave --data-dir out to use the hub") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        try:
            row = _row(line)
            if row["id"] in seen:
                raise ValueError(f"id {row['id']!r} is already on line {seen[row['id']]}; give every row its own id")
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        seen[row["id"]] = number
        problems.append(Problem(row["id"], row["problem"], row["answer"], task, task_version, row.get("solution")))
    return problems


def _row(line: bytes) -> dict[str, str]:
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
        raise ValueError(f"a {type(row).__name__} instead of an object; write {{{', '.join(map(repr, REQUIRED))}}}")
    for field in REQUIRED:
        if not isinstance(row.get(field), str) or not row[field].strip():
            raise ValueError(f"field {field!r} is {_state(row, field)}; give it a non-empty string")
    for field in OPTIONAL:
        if field in row and not isinstance(row[field], str):
            raise ValueError(f"field {field!r} is {_state(row, field)}; make it a string or leave it out")
    return row


def _state(row: dict, field: str) -> str:
    if field not in row:
        return "missing"
    return "empty" if isinstance(row[field], str) else f"a {type(row[field]).__name__}"
