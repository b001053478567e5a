"""A rollout set is one safetensors file with a header, named by its sha256: the same bytes for the same content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from suite.records.files import write_atomically
from suite.types import FinishReason, Rollout, UserError, Verdict

SCHEMA = 1


@dataclass(frozen=True)
class RolloutSet:
    """Rollouts of one policy on one list of problems, with a header that says where every number came from.

    header: schema, model and tokenizer digest, task and data digests, sampling settings, run seed, commit, versions.
    """

    header: Mapping[str, Any]
    rollouts: tuple[Rollout, ...]

    def to_bytes(self) -> bytes:
        """The file's bytes; deterministic, because safetensors gets exactly one metadata key."""
        rs = self.rollouts
        prompts, responses = [r.prompt_ids for r in rs], [r.response_ids for r in rs]
        tensors = {
            "prompt_ids": torch.tensor([t for p in prompts for t in p], dtype=torch.int32),
            "prompt_lengths": torch.tensor([len(p) for p in prompts], dtype=torch.int32),
            "response_ids": torch.tensor([t for y in responses for t in y], dtype=torch.int32),
            "response_lengths": torch.tensor([len(y) for y in responses], dtype=torch.int32),
            "sampler_log_probs": torch.tensor([x for r in rs for x in r.sampler_log_probs], dtype=torch.float32),
            "sample_index": torch.tensor([r.sample_index for r in rs], dtype=torch.int32),
            "seed": torch.tensor([r.seed for r in rs], dtype=torch.int64),
            "reward": torch.tensor([float("nan") if r.reward is None else r.reward for r in rs]),
        }
        columns = {
            "problem_id": [r.problem_id for r in rs],
            "finish_reason": [str(r.finish_reason) for r in rs],
            "verdict": [None if r.verdict is None else str(r.verdict) for r in rs],
        }
        meta = json.dumps({"header": {**self.header, "schema": SCHEMA}, "columns": columns}, sort_keys=True)
        return save(tensors, metadata={"fspo_rollout_set": meta})

    @property
    def digest(self) -> str:
        """sha256 of the file's bytes, as hex."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def write(self, folder: Path) -> Path:
        """Write the set to `folder`, named by its digest; an existing file of that name is left as it is."""
        data = self.to_bytes()
        path = folder / f"{hashlib.sha256(data).hexdigest()}.safetensors"
        if not path.exists():
            write_atomically(path, data)
        return path

    @classmethod
    def read(cls, path: Path) -> RolloutSet:
        """Read a set and check its bytes against its name. A foreign, truncated or altered file raises UserError."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot read this rollout set ({error.strerror})") from error
        found = hashlib.sha256(data).hexdigest()
        if found != path.stem:
            raise UserError(f"{path}: altered or truncated (sha256 is {found[:12]}...); delete it to record it again")
        try:
            recorded = cls.from_bytes(data)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path}: not a rollout set of this suite ({error})") from error
        if (schema := recorded.header["schema"]) != SCHEMA:
            raise UserError(f"{path}: schema {schema}, this version reads {SCHEMA}; record it again")
        return recorded

    @classmethod
    def from_bytes(cls, data: bytes) -> RolloutSet:
        """The set that `to_bytes` wrote; KeyError, TypeError, ValueError or SafetensorError for anything else."""
        tensors, size = load(data), int.from_bytes(data[:8], "little")
        meta = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["fspo_rollout_set"])
        return cls(meta["header"], _rollouts(tensors, meta["columns"]))


def _rollouts(tensors: Mapping[str, Tensor], columns: Mapping[str, list[Any]]) -> tuple[Rollout, ...]:
    def ragged(name: str, lengths: str) -> list[tuple[Any, ...]]:
        return [tuple(part.tolist()) for part in tensors[name].split(tensors[lengths].tolist())]

    rows = zip(
        columns["problem_id"],
        tensors["sample_index"].tolist(),
        tensors["seed"].tolist(),
        ragged("prompt_ids", "prompt_lengths"),
        ragged("response_ids", "response_lengths"),
        ragged("sampler_log_probs", "response_lengths"),
        map(FinishReason, columns["finish_reason"]),
        (None if v is None else Verdict(v) for v in columns["verdict"]),
        (None if r != r else r for r in tensors["reward"].tolist()),
        strict=True,
    )
    return tuple(Rollout(*row) for row in rows)
