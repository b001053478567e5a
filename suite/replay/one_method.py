"""One method on one update log: what its clip would have done to every response."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch

from suite.records.texts import one_line
from suite.records.update_log import UpdateLog
from suite.training.returned import require_surrogate
from suite.types import Method, PolicyBatch, State, UserError

CHUNK_TOKENS = 1 << 18


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
    for rows, current in steps_with_state(method, log, state):
        for chunk in length_sorted(log, rows):
            batch = policy_batch(log, chunk)
            with asking(method):
                surrogate = method.surrogate(batch, method.hyper, current)
                require_surrogate(method, surrogate, batch.log_probs)
            lengths = log.lengths[chunk]
            outside[chunk] = flag_share(surrogate.outside_band, lengths)
            clipped[chunk] = flag_share(surrogate.clipped, lengths)
    return per_response(log, {"log_ratio": log.sums(), "outside_band": outside, "clipped": clipped})


@contextmanager
def asking(method: Method) -> Iterator[None]:
    """A block that asks a method about recorded responses: what it raises becomes a UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a method of somebody's own may raise anything
        raise UserError(
            f"{method.name}: fails where it is replayed ({one_line(error)}); fspo method check shows on which batch"
        ) from error


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


def steps_with_state(method: Method, log: UpdateLog, state: State) -> Iterator[tuple[np.ndarray, State]]:
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
        with asking(method):
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
