"""The update log: what every optimizer step saw of every response, and the same log under any method's clip."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from suite.files import write_atomically
from suite.types import Method, PolicyBatch, State, UserError

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
CHUNK_TOKENS = 1 << 18


@dataclass(frozen=True)
class UpdateLog:
    """One row for every response that an optimizer step used, in the order of the steps.

    `step` counts rollouts, `update` the optimizer steps within one (from 0). `advantage` is the reward minus its
    group's mean, whatever the training method's own credit was, so that one log serves every method. `lengths` counts
    response tokens; `log_probs` and `old_log_probs` hold their log-probs before the step and before the rollout's first
    step, in nats, all rows one after the other. `cells` names the run that a row comes from. `seed`, `step`, `update`
    and `cells` may be given as one value.
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

    def save(self, path: Path) -> None:
        """Write the log as safetensors, in one move: the same log gives the same bytes, and no half file is left."""
        tensors = {name: getattr(self, name) for name in (*DTYPES, *TOKEN_COLUMNS)}
        texts = {}
        for name in TEXT_COLUMNS:
            words, codes = np.unique(getattr(self, name), return_inverse=True)
            texts[name], tensors[name] = words.tolist(), codes.astype(np.int64)
        # One metadata key only: safetensors writes several in an order that changes from run to run.
        header = json.dumps({"schema": SCHEMA, "texts": texts}, sort_keys=True)
        write_atomically(path, save(tensors, metadata={"json": header}))

    @classmethod
    def load(cls, path: Path) -> UpdateLog:
        """Read a log back. Raises UserError for a file that is missing, cut short or something else."""
        try:
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


def replay(method: Method, log: UpdateLog, state: State) -> pd.DataFrame:
    """What a method's clip would have done to every logged response: one row per response.

    Columns: cell, seed, step, update, problem_id, length, truncated, sign (of the advantage: -1, 0, 1), log_ratio (S),
    outside_band and clipped (0 or 1 for a sequence ratio; the share of the response's tokens for a token ratio).
    `clipped` is 0 for sign 0: such a response has no gradient to cut.

    Rows with update 0 are left out: there the ratio is exactly 1 and no clip can act. A method with running estimates
    (`observe`) sees one optimizer step at a time, update 0 included, and starts every run from `state`.
    Advantages are the group-centred rewards, for PPO too (whose critic is not in the log): only their sign matters
    to a clip.

    Source: ours.
    """
    outside, clipped = np.full(len(log), np.nan), np.full(len(log), np.nan)
    for rows, current in stages(method, log, state):
        for chunk in length_sorted(log, rows):
            surrogate = method.surrogate(policy_batch(log, chunk), method.hyper, current)
            lengths = log.lengths[chunk]
            outside[chunk] = flag_share(surrogate.outside_band, lengths)
            clipped[chunk] = flag_share(surrogate.clipped, lengths)
    return per_response(log, {"log_ratio": log.sums(), "outside_band": outside, "clipped": clipped})


def per_response(log: UpdateLog, measured: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """One row per logged response with update > 0: who it is (as `replay` says), then what was measured of it."""
    columns = {
        "cell": log.cells,
        "seed": log.seed,
        "step": log.step,
        "update": log.update,
        "problem_id": log.problem_ids,
        "length": log.lengths,
        "truncated": log.truncated,
        "sign": np.sign(log.advantage).astype(np.int64),
    }
    return pd.DataFrame({**columns, **measured}).take(np.flatnonzero(log.update > 0)).reset_index(drop=True)


def clip_rate(method: Method, log: UpdateLog, state: State) -> float:
    """Mean clipped share over the responses that have a gradient (advantage not 0, update > 0); nan without any.

    The number that matched ranges make equal. Rows that cannot count are dropped before the replay where the method
    keeps no running estimates.
    """
    if not method.reads_state(method.hyper):
        log = log.rows((log.update > 0) & (log.advantage != 0))
    frame = replay(method, log, state)
    return float(frame.loc[frame["sign"] != 0, "clipped"].mean())


def policy_batch(log: UpdateLog, rows: np.ndarray) -> PolicyBatch:
    """The given rows as a padded batch, float32, with the group-centred rewards as advantages."""
    lengths = torch.from_numpy(log.lengths[rows])
    mask = torch.arange(int(lengths.max()))[None, :] < lengths[:, None]
    tokens = log.token_index(rows)

    def padded(column: np.ndarray) -> torch.Tensor:
        return torch.zeros(mask.shape).masked_scatter(mask, torch.from_numpy(column[tokens]))

    log_probs = padded(log.log_probs)
    return PolicyBatch(
        log_probs=log_probs,
        old_log_probs=padded(log.old_log_probs),
        advantages=torch.from_numpy(log.advantage[rows])[:, None],
        response_mask=mask,
        lengths=lengths.to(log_probs.dtype),
    )


def stages(method: Method, log: UpdateLog, state: State) -> Iterator[tuple[np.ndarray, State]]:
    """Rows with the running estimates that their surrogate sees: all at once, or one optimizer step after another."""
    if method.observe is None or not method.reads_state(method.hyper):
        counted = np.flatnonzero(log.update > 0)
        yield counted, state
        return
    keys = np.stack([np.unique(log.cells, return_inverse=True)[1], log.seed, log.step, log.update])
    order = np.lexsort(keys[::-1])
    keys = keys[:, order]
    new_step = np.any(np.diff(keys) != 0, axis=0)
    run, current = None, state
    for rows in np.split(order, np.flatnonzero(new_step) + 1):
        if not len(rows):
            continue
        here = (log.cells[rows[0]], log.seed[rows[0]])
        run, current = here, current if here == run else state
        batch = policy_batch(log, rows)
        seen = method.observe(batch, method.hyper, current)
        if log.update[rows[0]] > 0:
            yield rows, seen if method.observe_first(method.hyper) else current
        current = seen


def length_sorted(log: UpdateLog, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows in chunks of similar length, each at most CHUNK_TOKENS with its padding (or one row)."""
    rows = rows[np.argsort(log.lengths[rows], kind="stable")]
    while len(rows):
        padded = log.lengths[rows] * np.arange(1, len(rows) + 1)
        count = max(1, int(np.searchsorted(padded, CHUNK_TOKENS, side="right")))
        yield rows[:count]
        rows = rows[count:]


def flag_share(flags: torch.Tensor, lengths: np.ndarray) -> np.ndarray:
    """Share of True per row: over the one flag of a sequence ratio, over the response's tokens of a token ratio."""
    counts = flags.sum(dim=1).numpy().astype(np.float64)
    return counts / (1 if flags.shape[1] == 1 else lengths)
