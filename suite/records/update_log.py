"""The update log: what every optimizer step saw of every response, as one file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from suite.records.files import write_atomically
from suite.records.seals import BLANK, check_seal, sealed
from suite.types import UserError

SCHEMA = "fspo-update-log-2"
TEXT_COLUMNS = ("cells", "problem_ids")
DTYPES = {
    "seed": np.int64,
    "step": np.int64,
    "update": np.int64,
    "reward": np.float32,
    "advantage": np.float32,
    "truncated": np.bool_,
    "lengths": np.int64,
}
TOKEN_COLUMNS = ("log_probs", "old_log_probs")


def step_file(step: int) -> str:
    """The name of the file with the update log of a step."""
    return f"step-{step:05d}.safetensors"


@dataclass(frozen=True)
class UpdateLog:
    """One row for every response that an optimizer step used, in the order of the steps.

    `step` counts rollouts, `update` the optimizer steps within one (from 0). `advantage` is the reward minus its
    group's mean, whatever the training method's own credit was, so that one log serves every method; where another
    trainer's run was recorded (`suite.records.other_runs`) it is that trainer's own. `lengths` counts
    response tokens; `log_probs` and `old_log_probs` hold their log-probs before the step and before the
    rollout's first step, in nats, all rows one after the other. `cells` names the run that a row comes from. `seed`,
    `step`, `update` and `cells` may be given as one value.
    """

    problem_ids: np.ndarray
    seed: np.ndarray
    step: np.ndarray
    update: np.ndarray
    reward: np.ndarray
    advantage: np.ndarray
    truncated: np.ndarray
    lengths: np.ndarray
    log_probs: np.ndarray
    old_log_probs: np.ndarray
    cells: np.ndarray | str = ""

    def __post_init__(self) -> None:
        n = len(self.problem_ids)
        for name in (*TEXT_COLUMNS, *DTYPES):
            dtype = DTYPES.get(name, np.str_)
            column = np.asarray(getattr(self, name), dtype=dtype)
            column = np.full(n, column) if column.ndim == 0 else column
            if column.shape != (n,):
                raise ValueError(f"UpdateLog.{name} has shape {column.shape}; {n} rows are expected")
            object.__setattr__(self, name, column)
        if n and self.lengths.min() < 1:
            raise ValueError("UpdateLog.lengths must be at least 1")
        tokens = int(self.lengths.sum())
        for name in TOKEN_COLUMNS:
            column = np.asarray(getattr(self, name), dtype=np.float32)
            if column.shape != (tokens,):
                raise ValueError(f"UpdateLog.{name} has shape {column.shape}; {tokens} are expected")
            object.__setattr__(self, name, column)

    def __len__(self) -> int:
        return len(self.problem_ids)

    @classmethod
    def concat(cls, logs: Sequence[Self]) -> Self:
        """The rows of all logs, in order. Raises ValueError for no log at all."""
        if not logs:
            raise ValueError("nothing to concatenate: no update log was given")
        names = [f.name for f in dataclasses.fields(cls)]
        return cls(**{name: np.concatenate([getattr(log, name) for log in logs]) for name in names})

    def rows(self, index: np.ndarray) -> UpdateLog:
        """The given rows (boolean mask or indices) with their tokens."""
        index = np.arange(len(self))[index]
        columns = {name: getattr(self, name)[index] for name in (*TEXT_COLUMNS, *DTYPES)}
        tokens = self.token_index(index)
        return UpdateLog(**columns, **{name: getattr(self, name)[tokens] for name in TOKEN_COLUMNS})

    def labelled(self, cell: str) -> UpdateLog:
        """The same log with every row marked as coming from `cell`."""
        return dataclasses.replace(self, cells=cell)

    @property
    def ratios_moved(self) -> bool:
        """Whether a rollout got a second update: at the first every ratio is exactly 1, and no clip can act."""
        return bool((self.update > 0).any())

    @cached_property
    def log_ratios(self) -> np.ndarray:
        """New minus old log-prob of every token, in nats, float32."""
        return self.log_probs - self.old_log_probs

    @cached_property
    def starts(self) -> np.ndarray:
        """Position in `log_probs` of every row's first token."""
        return np.cumsum(self.lengths) - self.lengths

    def token_index(self, rows: np.ndarray) -> np.ndarray:
        """Positions in `log_probs` of the tokens of the given rows, row after row."""
        lengths = self.lengths[rows]
        before = np.cumsum(lengths) - lengths
        return np.arange(int(lengths.sum())) + np.repeat(self.starts[rows] - before, lengths)

    def sums(self) -> np.ndarray:
        """Sequence log ratio S of every row, in nats, summed in float64."""
        ratios = self.log_ratios.astype(np.float64)
        return np.add.reduceat(ratios, self.starts) if len(self) else ratios

    def table(self) -> pa.Table:
        """The log as a table with one row a response; its log-probs are lists."""
        ends = np.concatenate([[0], np.cumsum(self.lengths)]).astype(np.int32)
        columns = {name: pa.array(getattr(self, name)) for name in (*TEXT_COLUMNS, *DTYPES)}
        for name in TOKEN_COLUMNS:
            columns[name] = pa.ListArray.from_arrays(pa.array(ends), pa.array(getattr(self, name)))
        return pa.table(columns)

    @classmethod
    def from_table(cls, table: pa.Table) -> UpdateLog:
        """The log that `table` wrote."""
        columns: dict[str, Any] = {}
        for name in (*TEXT_COLUMNS, *DTYPES):
            columns[name] = table.column(name).to_numpy(zero_copy_only=False)
        for name in TOKEN_COLUMNS:
            columns[name] = table.column(name).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return cls(**columns)

    def save(self, path: Path) -> None:
        """Write the log as safetensors, in one move: the same log gives the same bytes, and no half file is left."""
        write_atomically(path, self.parts())

    def parts(self) -> Sequence[bytes | memoryview]:
        """The bytes of the log's file, in parts."""
        tensors = {name: getattr(self, name) for name in (*DTYPES, *TOKEN_COLUMNS)}
        texts = {}
        for name in TEXT_COLUMNS:
            words, codes = np.unique(getattr(self, name), return_inverse=True)
            texts[name], tensors[name] = words.tolist(), codes.astype(np.int64)
        # One metadata key only: safetensors writes several in an order that changes from run to run.
        header = json.dumps({"schema": SCHEMA, "sealed": BLANK, "texts": texts}, sort_keys=True)
        return sealed(save(tensors, metadata={"json": header}))

    @classmethod
    def load(cls, path: Path, checked: bool = False) -> UpdateLog:
        """Read a log back. Raises UserError for a file that is missing, altered, cut short or something else.

        `checked`: a manifest has vouched for the file, which may then be one from before logs were sealed.
        """
        try:
            if not checked:
                check_seal(path, "delete it and train again")
            with safe_open(path, framework="numpy") as file:
                header = json.loads((file.metadata() or {}).get("json", "{}"))
                if header.get("schema") != SCHEMA:
                    raise UserError(f"{path} is no update log ({SCHEMA}): point to the file that training wrote")
                columns = {name: file.get_tensor(name) for name in (*TEXT_COLUMNS, *DTYPES, *TOKEN_COLUMNS)}
            for name in TEXT_COLUMNS:
                words = np.asarray(header["texts"][name], dtype=np.str_)
                columns[name] = words[columns[name]] if words.size else words
            return cls(**columns)
        except (OSError, SafetensorError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"{path} cannot be read as an update log ({reason}): delete it and train again") from error
