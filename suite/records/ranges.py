"""Range files: settings at which methods clip one share of recorded responses, written once and given to `--ranges`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from suite.records.files import digest_of, write_atomically
from suite.types import UserError

SCHEMA, UNSEALED = "fspo-ranges-2", "fspo-ranges-1"
"""Files of the older schema have no digest."""
AGAIN = "write it with fspo bank calibrate"
KINDS: Mapping[str, tuple[type | tuple[type, ...], str]] = {
    "factor": ((int, float), "a number"),
    "rate": ((int, float), "a number"),
    "card": (str, "the digest of a card"),
    "settings": (dict, "an object of settings"),
}


@dataclass(frozen=True)
class Range:
    """One method's range: what its widths were multiplied by, the clipped share measured then, card and settings.

    `settings` are all hyper-parameters that differ from the method's defaults: with them and nothing else the method
    is the one that was measured, and `card` is its card's digest.
    """

    factor: float
    rate: float
    card: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Calibration:
    """What a range file says: the ranges, and what they were measured on.

    target: clipped share of the responses with a gradient. tolerance: most that a measured share is away from it.
    responses: how many such responses there are. source: which records. unmatched: why a method has no range.
    """

    target: float
    tolerance: float
    responses: int
    source: Mapping[str, Any]
    command: str
    versions: Mapping[str, str]
    methods: Mapping[str, Range]
    unmatched: Mapping[str, str]

    def lines(self) -> list[str]:
        """The calibration in words: what was counted, then a line a method."""
        width = max(map(len, [*self.methods, *self.unmatched]))
        head = f"clipped share {self.target:.4f} of {self.responses} responses with a gradient, first updates left out"
        found = [
            f"{name:<{width}}  clips {one.rate:.4f} with its range times {one.factor:.4g}"
            for name, one in self.methods.items()
        ]
        return [head, *found, *(f"{name:<{width}}  not matched: {why}" for name, why in self.unmatched.items())]

    def write(self, path: Path) -> None:
        """Write the range file, whole or not at all: the same calibration gives the same bytes, floats exactly."""
        content = json.loads(json.dumps({"schema": SCHEMA, **asdict(self)}, allow_nan=False))
        text = json.dumps(content | {"digest": digest_of(content)}, indent=1) + "\n"
        try:
            write_atomically(path, text)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error


@dataclass(frozen=True)
class Ranges:
    """The ranges of one file, as `--ranges` reads them; without a file there are none. `sha256` is of the file."""

    path: Path | None = None
    sha256: str = ""
    methods: Mapping[str, Range] = field(default_factory=dict)
    unmatched: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path | None) -> Ranges:
        """The ranges in a file, none for None. Names and values of settings are the methods' business, not checked.

        UserError names the file and what in it is missing, of another schema or of another kind.
        """
        if path is None:
            return NO_RANGES
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: no range file to read (not a file); {AGAIN}")
        try:
            data = path.read_bytes()
            content = json.loads(data.decode(), parse_constant=_no_number)
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(f"{path}: no range file to read ({error}); {AGAIN}") from error
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema not in (SCHEMA, UNSEALED):
            raise UserError(f"{path}: schema {schema!r}, this version reads {SCHEMA!r}; {AGAIN}")
        for part in ("methods", "unmatched"):
            _check_kind(path, part, content.get(part), dict, "an object with names of methods")
        for name, reason in content["unmatched"].items():
            _check_kind(path, f"unmatched.{name}", reason, str, "a reason")
        methods = {name: _range(path, f"methods.{name}", entry) for name, entry in content["methods"].items()}
        if schema == SCHEMA and content.pop("digest", None) != digest_of(content):
            raise UserError(f"{path}: altered after it was written; {AGAIN}, or give values of your own with --set")
        return cls(path, hashlib.sha256(data).hexdigest(), methods, content["unmatched"])

    @property
    def facts(self) -> dict[str, str]:
        """The file's name and sha256, for the record of a run; empty without a file."""
        return {} if self.path is None else {"file": self.path.name, "sha256": self.sha256}

    def notes(self, methods: Sequence[str]) -> list[str]:
        """A line for each of these methods that the file has no range for."""
        missing = [name for name in methods if self.path is not None and name not in self.methods]
        reasons = {name: f" ({self.unmatched[name]})" if name in self.unmatched else "" for name in missing}
        return [f"{self.path}: no range for {name}{reasons[name]}; it keeps its own" for name in missing]


NO_RANGES = Ranges()


def _range(path: Path, where: str, entry: Any) -> Range:
    _check_kind(path, where, entry, dict, "an object")
    for name, (kind, what) in KINDS.items():
        _check_kind(path, f"{where}.{name}", entry.get(name), kind, what)
    return Range(**{name: entry[name] for name in KINDS})


def _check_kind(path: Path, where: str, value: Any, kind: type | tuple[type, ...], what: str) -> None:
    """UserError unless this part of the file is there and of that kind."""
    if isinstance(value, bool) or not isinstance(value, kind):
        found = "is missing" if value is None else f"is {value!r}"
        raise UserError(f"{path}: {where} {found}, must be {what}; {AGAIN}")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number in JSON")
