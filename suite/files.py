"""Files that are whole or absent, and the digests that name their content."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any


def digest_of(content: Any) -> str:
    """sha256 (hex) of the canonical JSON of plain data: sorted keys, no spaces, floats by their shortest repr."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def canonical_json(content: Any) -> str:
    """JSON text that is equal for equal content. NaN and infinity are refused with ValueError."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file so that a reader, or a crash, sees the old file or the whole new one and nothing between."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(data.encode() if isinstance(data, str) else data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
