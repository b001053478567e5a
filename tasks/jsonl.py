"""JSON-lines files: problems, and responses to grade. The first broken row raises with file, line and remedy.

A problem has `id`, `problem`, `answer`, `source`, all non-empty strings; `level`, `subject` and `solution` may be
there too, as strings; in a file of somebody's own `source` may be missing. A response to grade has `id`, `gold` and
`response`. In files of somebody's own ids and answers may be JSON numbers, which stand for their text: 4 is "4" and
1.50 is "1.50". Other fields are left alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from suite.types import Problem, UserError, kind_of


@dataclass(frozen=True)
class Fields:
    """The fields of a row, all strings: required and not empty, required, and those that may be missing.

    `numbers` are those of them that a JSON number may stand in, too.
    """

    required: tuple[str, ...]
    required_even_if_empty: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()


PROBLEM = Fields(("id", "problem", "answer", "source"), optional=("level", "subject", "solution"))
OWN_PROBLEM = Fields(
    ("id", "problem", "answer"), optional=("level", "source", "subject", "solution"), numbers=("id", "answer")
)
RESPONSE = Fields(("id", "gold"), ("response",), optional=("expected",), numbers=("id", "gold"))


def read_problems(path: Path, task: str, task_version: str, fields: Fields = PROBLEM) -> list[Problem]:
    """The problems of a file, in its order."""
    remedy = "give the path of your own file" if fields is OWN_PROBLEM else "or leave --data-dir out to use the hub"
    rows = read_rows(path, fields, f"task {task} needs it, {remedy}")
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
    """One line as a checked row; ValueError says all that is wrong with it and what to do."""
    try:
        row = json.loads(text := line.decode("utf-8"))
    except UnicodeDecodeError:
        raise ValueError("not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        hint = "an empty line; delete it" if not line.strip() else f"not JSON ({error}); mend or delete the row"
        raise ValueError(hint) from None
    except RecursionError:
        raise ValueError("nested too deeply; a row is one flat object of strings") from None
    if not isinstance(row, dict):
        wanted = _quoted((*fields.required, *fields.required_even_if_empty))
        raise ValueError(f"{kind_of(row)} instead of an object; write {{{wanted}}}")
    if any(type(row.get(field)) in (int, float) for field in fields.numbers):
        as_written = json.loads(text, parse_int=str, parse_float=str)
        row |= {field: as_written[field] for field in fields.numbers if type(row.get(field)) in (int, float)}
    bare = [field for field in fields.required if not isinstance(row.get(field), str) or not row[field].strip()]
    no_text = [field for field in fields.required_even_if_empty if not isinstance(row.get(field), str)]
    odd = [field for field in fields.optional if field in row and not isinstance(row[field], str)]
    wrong = [
        f"{', '.join(f'field {field!r} is {_state(row, field)}' for field in found)}; {remedy}"
        for found, remedy in (
            (bare, f"give {_it(bare)} a non-empty string"),
            (no_text, f"give {_it(no_text)} a string (it may be empty)"),
            (odd, f"make {_it(odd)} a string or leave it out"),
        )
        if found
    ]
    if wrong:
        raise ValueError("; ".join(wrong))
    return row


def _it(fields: Sequence[str]) -> str:
    return "it" if len(fields) == 1 else "each"


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names))


def _state(row: dict, field: str) -> str:
    if field not in row:
        return "missing"
    return "empty" if isinstance(row[field], str) else kind_of(row[field])
