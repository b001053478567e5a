"""Files that are whole or absent, and the digests that name their content."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from suite.records.installation import SHARED_MEMORY
from suite.types import UserError

LOCK, LOCK_SECONDS = ".lock", 10.0
TEMPORARY = ".tmp"


def digest_of(content: Any) -> str:
    """sha256 (hex) of the canonical JSON of plain data: sorted keys, no spaces, floats by their shortest repr."""
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(content: Any) -> str:
    """JSON text that is equal for equal content. NaN and infinity are refused with ValueError."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)


def flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested plain data by their path, `{"a": {"b": 1}}` as `{"a.b": 1}`."""
    items: dict[str, Any] = {}
    for key, value in content.items():
        items |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return items


def write_atomically(path: Path, data: bytes | str | Sequence[bytes | memoryview]) -> None:
    """Write a file so that a reader, or a crash, sees the old file or the whole new one and nothing between.

    A link is followed: the file that it names is written, in a folder that is there. A temporary file of a process that
    is gone, which a kill left there, is removed; so is this one's if writing fails.
    """
    if path.is_symlink():
        path = Path(os.path.realpath(path, strict=True))
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    _clear_temporary(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}{TEMPORARY}")
    try:
        with open(temporary, "wb") as file:
            for part in [data.encode()] if isinstance(data, str) else [data] if isinstance(data, bytes) else data:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _clear_temporary(path: Path) -> None:
    """Remove what killed processes left half written of this file."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{TEMPORARY}"):
        writer = left.name.removesuffix(TEMPORARY).rpartition(".")[2]
        if writer.isdigit() and not psutil.pid_exists(int(writer)):
            left.unlink(missing_ok=True)


def listed(folder: Path) -> set[str]:
    """The names in a folder, none where it is absent; without its lock and what is half written at this moment.

    One look at the folder: whoever asks whether a file is there and what else is there asks this set, so that a file
    that another process finishes in between is not taken for somebody else's.
    """
    names = {path.name for path in folder.iterdir()} if folder.exists() else set()
    return {name for name in names - {LOCK} if not (name.startswith(".") and name.endswith(TEMPORARY))}


OURS = "fspo-held-"
GRACE_SECONDS = 60
"""Age from which a folder in memory that no living process holds is cleared away."""


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A temporary folder in shared memory where the system has it, else on disk; gone when the block ends.

    A process that is killed leaves its folder behind, with gigabytes of weights at worst: whoever makes the next one
    clears it away. The lock that tells ends with its process, however that ends.
    """
    place = SHARED_MEMORY if SHARED_MEMORY.is_dir() else Path(tempfile.gettempdir())
    _clear_abandoned(place)
    with tempfile.TemporaryDirectory(prefix=f"{OURS}{os.getpid()}-", dir=place) as folder:
        holder = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(holder, fcntl.LOCK_EX)
            yield Path(folder)
        finally:
            os.close(holder)


def _clear_abandoned(place: Path) -> None:
    """Remove folders in memory of processes that were killed."""
    for folder in place.glob(f"{OURS}*"):
        if _abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _abandoned(folder: Path) -> bool:
    """Whether no living process holds the folder; False for one so young that it may not be held yet."""
    try:
        if time.time() - folder.stat().st_mtime < GRACE_SECONDS:
            return False
        holder = os.open(folder, os.O_RDONLY)
    except OSError:  # somebody else's, or gone meanwhile
        return False
    try:
        fcntl.flock(holder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(holder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process alone; a held one is waited for, then refused with UserError.

    The lock is the kernel's: it is gone as soon as its process is, however that ended. Its file names the machine, and
    is as old as the hold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(folder / LOCK).acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise UserError(f"{folder}: another process works here; wait for it or stop it") from None
    with held:
        (folder / LOCK).write_text(platform.node(), encoding="utf-8")
        yield


@dataclass(frozen=True)
class Hold:
    """When a folder was last taken by a process (Unix seconds), on which machine, and whether one here holds it now."""

    since: float
    machine: str
    now: bool


LOCKS = Path("/proc/locks")
"""Where Linux lists the locks of this machine's processes."""


def last_hold(folder: Path) -> Hold | None:
    """Who took the folder last; None where nobody did. Takes no lock itself: whoever works there does not notice."""
    try:
        found = (folder / LOCK).stat()
        machine = (folder / LOCK).read_text(encoding="utf-8", errors="replace") or platform.node()
    except FileNotFoundError:
        return None
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    listed_locks = LOCKS.read_text(encoding="ascii").split() if LOCKS.exists() else []
    return Hold(found.st_mtime, machine, device in listed_locks)
