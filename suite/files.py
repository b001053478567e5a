"""Files that are whole or absent, and the digests that name their content."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def digest_of(content: Any) -> str:
    """sha256 (hex) of the canonical JSON of plain data: sorted keys, no spaces, floats by their shortest repr."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def canonical_json(content: Any) -> str:
    """JSON text that is equal for equal content. NaN and infinity are refused with ValueError."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested plain data by their path, `{"a": {"b": 1}}` as `{"a.b": 1}`."""
    items: dict[str, Any] = {}
    for key, value in content.items():
        items |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return items


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader, or a crash, sees the old file or the whole new one and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A temporary folder in shared memory where the system has it, else on disk; gone when the block ends."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="fspo-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
