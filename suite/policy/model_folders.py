"""Model folders that this suite writes: the layout of `save_pretrained`, and a list of digests that loading checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from suite.records.files import file_sha256, write_atomically
from suite.types import UserError

SUMS = "fspo.sha256"
"""One line a file, as `sha256sum` writes and `sha256sum --check` reads it."""
CARD = "README.md"
"""A text for people, which its owner may edit: it is not in the list, but names the sha256 of the list."""


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Save a model and its tokenizer, and last of all the digests of the files."""
    (folder / SUMS).unlink(missing_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_sums(folder)


def write_sums(folder: Path) -> None:
    """List the sha256 of every file that lies in the folder, other than the card."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name not in (SUMS, CARD))
    write_atomically(folder / SUMS, "".join(f"{file_sha256(path)}  {path.name}\n" for path in files))


def check_sums(folder: Path) -> None:
    """UserError for a file that is missing, or not as it was saved; nothing is known of a folder without a list."""
    if not (folder / SUMS).exists():
        return
    for name, digest in _listed(folder):
        path = folder / name
        if not name or path.parent != folder or not path.is_file():
            raise UserError(f"{folder / SUMS}: lists {name!r}, which is not there; get the whole folder again")
        if file_sha256(path) != digest:
            raise UserError(f"{path}: altered since it was saved: not the sha256 of {SUMS}; get the folder again")


def listed_files(folder: Path) -> list[str]:
    """The names of the files that a folder's list of digests has."""
    return [name for name, _ in _listed(folder)]


def _listed(folder: Path) -> list[tuple[str, str]]:
    """Name and sha256 of every file in a folder's list."""
    lines = [line.partition("  ") for line in (folder / SUMS).read_bytes().decode(errors="replace").splitlines()]
    return [(name, digest) for digest, _, name in lines]
