"""What a method makes of logged responses beyond its clip: gradient and weight of each, by length, and shared clips.

Everything counts responses, not tokens. The log holds one advantage a response, its group-centred reward: differences
between methods come from ratio, weight and clip, never from how a method standardises its rewards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from suite.arithmetic import effective_sample_size, masked, per_token
from suite.records.update_log import UpdateLog
from suite.replay.one_method import asking, flag_share, length_sorted, per_response, policy_batch, steps_with_state
from suite.types import Method, PolicyBatch, State

QUANTILES = {"weight_q01": 0.01, "weight_q25": 0.25, "weight_q50": 0.5, "weight_q75": 0.75, "weight_q99": 0.99}
MEASURED = (
    "objective",
    "unclipped",
    "clipped",
    "gradient_norm",
    "unclipped_gradient_norm",
    "gradient_sum",
    "log_weight",
)
NORMS = ("gradient_norm", "unclipped_gradient_norm")
IDENTITY = ("cell", "seed", "step", "update", "problem_id", "length", "truncated", "sign")
EVERY, TRUNCATED = "all", "truncated"


# --- one row per response -------------------------------------------------------------------------


def response_gradients(method: Method, log: UpdateLog, state: State) -> pd.DataFrame:
    """What a method's surrogate says of every logged response, and its gradient: one row per response.

    With g_t = dJ / d log pi_t, the derivative of the response's objective J before the trainer divides by anything:

        gradient_norm = sqrt(sum_t g_t^2),     gradient_sum = sum_t g_t

    `unclipped_gradient_norm` is the same of the objective without clip. gradient_sum is the response's total weight on
    its own log-probability (a sequence ratio's e^S A is at every token, so L times that); the norm is that of the whole
    gradient if the tokens' scores were of one size and at right angles. Both in the advantage's units per nat.

    Columns: cell, seed, step, update, problem_id, length, truncated, sign (of the advantage), objective, unclipped,
    clipped (0 or 1 for a sequence ratio; the share of the response's tokens for a token ratio), gradient_norm,
    unclipped_gradient_norm, gradient_sum, and log_weight: the log ratio, in nats, that the method weighs the response
    by, for a token ratio its mean over the tokens (so e^log_weight is the geometric mean of the tokens' weights).

    Rows, their order, `clipped`, advantages and the handling of `state` are those of `suite.replay.one_method.replay`:
    update 0 is left out. An empty log gives an empty frame with the same columns. float32 inside: beyond e^88 a
    response with A < 0 overflows, and that is left visible as inf. Source: ours.
    """
    values = {name: np.full(len(log), np.nan) for name in MEASURED}
    for rows, current in steps_with_state(method, log, state):
        for chunk in length_sorted(log, rows):
            for name, column in _measured(method, policy_batch(log, chunk), current).items():
                values[name][chunk] = column
    return per_response(log, values)


def _measured(method: Method, batch: PolicyBatch, state: State) -> dict[str, np.ndarray]:
    """The MEASURED columns of a batch, [N] each, in float64: one forward pass, one backward pass an objective."""
    with asking(method), torch.enable_grad():
        log_probs = batch.log_probs.detach().requires_grad_(True)
        said = method.surrogate(dataclasses.replace(batch, log_probs=log_probs), method.hyper, state)
        (kept,) = torch.autograd.grad(said.objective.sum(), log_probs, retain_graph=True)
        (free,) = torch.autograd.grad(said.unclipped.sum(), log_probs)
    columns = {
        "objective": said.objective,
        "unclipped": said.unclipped,
        "gradient_norm": kept.double().norm(dim=1),
        "unclipped_gradient_norm": free.double().norm(dim=1),
        "gradient_sum": kept.double().sum(dim=1),
        "log_weight": _mean_weight(said.log_weight.double(), batch),
    }
    shares = {"clipped": flag_share(said.clipped, batch.lengths.numpy())}
    return {name: column.detach().double().numpy() for name, column in columns.items()} | shares


def _mean_weight(log_weight: Tensor, batch: PolicyBatch) -> Tensor:
    """A response's one log weight, or the mean over its tokens; padding of a token weight may hold anything."""
    # A response of one token looks like a sequence weight: both readings give the same number.
    if log_weight.shape[1] == 1:
        return log_weight[:, 0]
    return per_token(masked(log_weight, batch.response_mask).sum(dim=1), batch.lengths)


# --- one row per length bin -----------------------------------------------------------------------


def weight_summary(frame: pd.DataFrame, edges: Sequence[int] | np.ndarray) -> pd.DataFrame:
    """Weights and gradients of one method's responses by length: one row per sign of the advantage and length bin.

    `frame` is from `response_gradients`; bin i is edges[i] <= L < edges[i + 1], labelled as
    suite.replay.resampling.bin_labels.
    `sign` is "all" (A = 0 too), "A > 0" or "A < 0"; `bin` is "all" (truncated ones too), a bin, or "truncated"
    (truncated responses are in no other bin). With w = e^log_weight and g = gradient_norm of a response:

        ess_weight = (sum w)^2 / (N sum w^2)         over the row's N = `responses`, in (0, 1]
        ess_gradient = (sum g)^2 / (N sum g^2)       over the row's N = `with_gradient` (A not 0), in (0, 1]
        gradient_share = sum_row g / sum_sign g      share among all lengths of the same sign; the bins sum to 1
        loss_scale = sum_row g / sum_row g_unclipped

    mean_weight and weight_q01 .. weight_q99 are of w over responses (quantiles interpolated in log w, so that none
    overflows); unclipped_gradient_share is gradient_share without clip. loss_scale is 1 without a clip, 0 where
    everything is clipped, and may exceed 1 where a smooth gate raises weights (VESPO) or a clipped token raises those
    beside it (GMPO). Sums run over optimizer steps as if each were divided by the same number; a step divided by its
    own tokens (Divisor.TOKENS) is that only as far as steps hold equally many.

    Rows without a response are left out; a ratio is nan where its divisor is 0 or overflowed. Raises ValueError for an
    empty frame and for edges that do not rise or do not cover every finished response. Source: ours.
    """
    if frame.empty:
        raise ValueError("no responses to measure: were all updates the first of their rollout?")
    bins, rows = _bins(frame, edges), []
    for sign, of_sign in _signs(frame).items():
        total = frame.take(np.flatnonzero(of_sign))
        for label, in_bin in bins.items():
            part = frame.take(np.flatnonzero(of_sign & in_bin))
            if len(part):
                rows.append({"sign": sign, "bin": label, "truncated": label == TRUNCATED} | _row(part, total))
    return pd.DataFrame(rows)


def _row(part: pd.DataFrame, total: pd.DataFrame) -> dict[str, float]:
    """The numbers of one row of `weight_summary`: `part` of the `total` responses of its sign."""
    log_weight = part["log_weight"].to_numpy(float)
    with_gradient = part["gradient_norm"].to_numpy(float)[part["sign"] != 0]
    # Not by pandas, whose sum leaves out a nan in silence.
    kept, free = (part[name].to_numpy(float).sum() for name in NORMS)
    all_kept, all_free = (total[name].to_numpy(float).sum() for name in NORMS)
    with np.errstate(over="ignore", divide="ignore"):
        row = {
            "responses": len(part),
            "with_gradient": len(with_gradient),
            "mean_length": part["length"].mean(),
            "ess_weight": _ess(log_weight),
            "ess_gradient": _ess(np.log(with_gradient)),
            "mean_weight": np.exp(log_weight).mean(),
        }
        row |= {name: np.exp(np.quantile(log_weight, q)) for name, q in QUANTILES.items()}
    row["gradient_share"] = _ratio(kept, all_kept)
    row["unclipped_gradient_share"] = _ratio(free, all_free)
    row["loss_scale"] = _ratio(kept, free)
    return row


def _ess(log_weights: np.ndarray) -> float:
    """Kish's effective share of the responses; nan for none, and where all weights are 0."""
    return float(effective_sample_size(torch.tensor(log_weights))) if len(log_weights) else np.nan


def _ratio(part: float, whole: float) -> float:
    """part / whole, nan where that says nothing."""
    return float(part / whole) if 0 < whole < np.inf else np.nan


def _signs(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Which rows belong to every sign of the advantage, and to all."""
    sign = frame["sign"].to_numpy()
    return {EVERY: np.ones(len(frame), bool), "A > 0": sign > 0, "A < 0": sign < 0}


def _bins(frame: pd.DataFrame, edges: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """Which rows belong to every length bin, to all, and to the truncated ones, which no length bin holds."""
    edges = np.asarray(edges)
    if len(edges) < 2 or np.any(np.diff(edges) <= 0):
        raise ValueError(f"bin edges must rise: {edges.tolist()}")
    length, cut = frame["length"].to_numpy(), frame["truncated"].to_numpy(bool)
    where = np.digitize(length, edges) - 1
    lost = length[~cut & ((where < 0) | (where > len(edges) - 2))]
    if len(lost):
        raise ValueError(f"bin edges {edges.tolist()} do not cover lengths {lost.min()} to {lost.max()}")
    pairs = zip(edges[:-1], edges[1:] - 1, strict=True)
    labels = [f"{low}" if low == high else f"{low}–{high}" for low, high in pairs]
    parts = {label: ~cut & (where == i) for i, label in enumerate(labels)}
    return {EVERY: np.ones(len(frame), bool), **parts, TRUNCATED: cut}


# --- between methods ------------------------------------------------------------------------------


def clip_overlap(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Jaccard index of the sets of responses that every two methods clip: a symmetric table, methods x methods.

        J(a, b) = |A and B| / |A or B|,     A = the responses that method a clips

    A response counts as clipped when its sequence weight is; for a token ratio when at least one of its tokens is.
    Responses with A = 0 have no gradient to clip and are in no set. The diagonal is 1. nan where neither of two
    methods clips anything (on the diagonal too), and so everywhere if there is no response at all.

    `frames` are `replay`'s or `response_gradients`' of one log, row by row the same responses: ValueError otherwise.
    No frame gives an empty table. Source: Jaccard 1901; the sets are ours.
    """
    names = list(frames)
    return pd.DataFrame(_jaccard(_clipped_sets(frames)), index=names, columns=names)


def clip_overlap_by_length(frames: Mapping[str, pd.DataFrame], edges: Sequence[int] | np.ndarray) -> pd.DataFrame:
    """`clip_overlap` within every sign and length bin of `weight_summary`, one row per bin and pair of methods.

    Columns: sign, bin, truncated, method, other, responses (of the bin), clipped_by_either (of them), jaccard. Every
    pair once, in the order of `frames`, no method with itself; no row for an empty bin. Source: ours.
    """
    sets, names = _clipped_sets(frames), list(frames)
    columns = ["sign", "bin", "truncated", "method", "other", "responses", "clipped_by_either", "jaccard"]
    if len(names) < 2:
        return pd.DataFrame(columns=columns)
    first = next(iter(frames.values()))
    bins, rows = _bins(first, edges), []
    for sign, of_sign in _signs(first).items():
        for label, in_bin in bins.items():
            here = sets[:, of_sign & in_bin]
            if not here.shape[1]:
                continue
            index = _jaccard(here)
            for i, j in zip(*np.triu_indices(len(names), 1), strict=True):
                pair = (names[i], names[j], here.shape[1], int((here[i] | here[j]).sum()), index[i, j])
                rows.append((sign, label, label == TRUNCATED, *pair))
    return pd.DataFrame(rows, columns=columns)


def _clipped_sets(frames: Mapping[str, pd.DataFrame]) -> np.ndarray:
    """Which responses every method clips, bool [methods, responses]. ValueError for frames of different responses."""
    if not frames:
        return np.zeros((0, 0), bool)
    first, *others = frames.items()
    for name, frame in others:
        if not all(np.array_equal(frame[column], first[1][column]) for column in IDENTITY):
            raise ValueError(f"{name} and {first[0]} do not hold the same responses in the same order")
    return np.stack([(frame["clipped"].to_numpy() > 0) & (frame["sign"].to_numpy() != 0) for frame in frames.values()])


def _jaccard(sets: np.ndarray) -> np.ndarray:
    """Jaccard index of every two rows of a bool matrix; nan where both are empty."""
    counts = sets.astype(float)
    both, sizes = counts @ counts.T, counts.sum(axis=1)
    either = sizes[:, None] + sizes[None, :] - both
    with np.errstate(invalid="ignore"):
        return both / either
