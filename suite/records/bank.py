"""A bank: recorded rollouts and what every later policy said of them, to try any method on the same bytes.

    BANK/manifest.json               what was recorded, with which command, and the sha256 of every file
    BANK/updates/SHA256.safetensors  an update log: one rollout step, every optimizer step's log-probs
    BANK/rollouts/SHA256.safetensors the step's rollout set (suite.records.rollout_set)

Files are named by their content and never written again; recording once more with another seed appends.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from suite.records.files import digest_of, listed, locked, write_atomically
from suite.records.update_log import UpdateLog
from suite.types import UserError

SCHEMA = "fspo-bank-2"
MANIFEST = "manifest.json"
DIGEST = "digest"
BEGUN = {"updates", "rollouts"}
"""What lies in the folder of a bank before its manifest does."""


@dataclass(frozen=True)
class Entry:
    """One file of a bank: "updates" or "rollouts" of one recorded step. `policy` digests the policy that sampled it."""

    kind: str
    sha256: str
    recording: str
    seed: int
    step: int
    rows: int
    policy: str

    @property
    def path(self) -> str:
        """Where the file lies, from the bank's folder."""
        return f"{self.kind}/{self.sha256}.safetensors"


@dataclass(frozen=True)
class PendingFile:
    """The bytes of one file on its way into a bank, with what its entry will say."""

    kind: str
    data: bytes
    seed: int
    step: int
    rows: int
    policy: str


@dataclass(frozen=True)
class Bank:
    """A folder of recorded steps. `recordings` says per recording what made it: config, method, command, versions."""

    folder: Path
    recordings: Mapping[str, Mapping[str, Any]]
    entries: tuple[Entry, ...]

    @classmethod
    def open(cls, folder: Path) -> Bank:
        """The bank in a folder. UserError where there is none, or one of another schema."""
        path = folder / MANIFEST
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["schema"] != SCHEMA:
                raise UserError(f"{path}: schema {content['schema']}, this version reads {SCHEMA}; record it again")
            said = content.pop(DIGEST)
            entries = tuple(Entry(**entry) for entry in content["entries"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: no bank to read ({error}); make one with fspo bank record") from error
        if digest_of(content) != said:
            raise UserError(f"{path}: altered after it was written (its digest differs); record it again")
        return cls(folder, content["recordings"], entries)

    @classmethod
    def open_or_new(cls, folder: Path) -> Bank:
        """The bank in a folder, or an empty one where nothing is, or what a first recording that was stopped left.

        UserError for a folder that holds something else.
        """
        if MANIFEST in (names := listed(folder)):
            return cls.open(folder)
        if names - BEGUN:
            raise UserError(f"{folder}: not empty and no bank; choose another --out")
        return cls(folder, {}, ())

    def read(self, entry: Entry) -> bytes:
        """An entry's bytes. UserError names a file that is missing, cut short or altered."""
        path = self.folder / entry.path
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: missing from the bank ({error.strerror}); record it again") from error
        if (found := hashlib.sha256(data).hexdigest()) != entry.sha256:
            raise UserError(f"{path}: altered or truncated (sha256 is {found[:12]}...); record it again")
        return data

    def check(self) -> None:
        """Read every file and compare its digest; UserError names the first that differs."""
        for entry in self.entries:
            self.read(entry)

    def updates(self) -> UpdateLog:
        """All update logs, in the order of recording; every row's cell is its recording. Digests are checked."""
        logs = []
        for entry in self.entries:
            if entry.kind == "updates":
                self.read(entry)
                logs.append(UpdateLog.load(self.folder / entry.path, checked=True).labelled(entry.recording))
        if not logs:
            raise UserError(f"{self.folder}: the bank holds no updates; record some with fspo bank record")
        return UpdateLog.concat(logs)

    def append(self, recording: str, facts: Mapping[str, Any], files: Sequence[PendingFile]) -> Bank:
        """The bank with one more recording, its files written first and the manifest last: a crash leaves the old bank.

        The bank is read anew under a lock, so that what another process recorded meanwhile stays. UserError for a
        recording that the bank holds already: nothing in a bank is ever replaced.
        """
        with locked(self.folder):
            bank = Bank.open_or_new(self.folder)
            if recording in bank.recordings:
                raise UserError(
                    f"{self.folder}: holds the recording {recording} already; choose another --method or seed"
                )
            return bank._with(recording, facts, files)

    def extend(self, recording: str, facts: Mapping[str, Any], files: Sequence[PendingFile]) -> Bank:
        """The bank with more steps of a recording, which its first steps begin: a run that goes on can be read already.

        Written as by `append`. UserError where the bank holds one of the name with other facts, or one of these steps.
        """
        with locked(self.folder):
            bank = Bank.open_or_new(self.folder)
            known = bank.recordings.get(recording)
            held = {(entry.kind, entry.step) for entry in bank.entries if entry.recording == recording}
            if known is not None and (
                known != json.loads(json.dumps(facts)) or any((file.kind, file.step) in held for file in files)
            ):
                raise UserError(f"{self.folder}: holds another recording {recording} already; choose another folder")
            return bank._with(recording, facts, files)

    def _with(self, recording: str, facts: Mapping[str, Any], files: Sequence[PendingFile]) -> Bank:
        added = []
        for file in files:
            digest = hashlib.sha256(file.data).hexdigest()
            entry = Entry(file.kind, digest, recording, file.seed, file.step, file.rows, file.policy)
            if not (self.folder / entry.path).exists():
                write_atomically(self.folder / entry.path, file.data)
            added.append(entry)
        bank = Bank(self.folder, {**self.recordings, recording: facts}, (*self.entries, *added))
        content = {
            "schema": SCHEMA,
            "recordings": bank.recordings,
            "entries": [asdict(entry) for entry in bank.entries],
        }
        content = json.loads(json.dumps(content)) | {DIGEST: digest_of(content)}
        write_atomically(self.folder / MANIFEST, json.dumps(content, indent=1, sort_keys=True) + "\n")
        return bank
