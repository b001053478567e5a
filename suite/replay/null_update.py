"""The null update: with unchanged weights every ratio is 1. What arithmetic makes of that, and who would clip it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pandas as pd
import torch

from suite.advantages import group_centred
from suite.config import TrainConfig
from suite.policy.prefix_tree import saves_enough
from suite.policy.scoring import MicroBatch, pack, pack_tree, score
from suite.records.update_log import UpdateLog
from suite.replay.one_method import replay
from suite.statistics.frames import numbers_of, select
from suite.training.step_batches import mini_batches, rewards_and_groups
from suite.types import FinishReason, Method, Policy, Rollout

MOST_TOKENS = 4096
"""Prompt and response tokens that are scored, at most: enough to measure noise, cheap on a large model."""
AUTOCAST, AUTOCAST_HEAD, HEAD = "bfloat16 autocast", "bfloat16 autocast, float32 head", "bfloat16 body, float32 head"
PRECISIONS = ("float32", AUTOCAST, AUTOCAST_HEAD, HEAD, "bfloat16")
"""Of body and head; log-softmax and sums are float32 in all. The weights are float32 under autocast."""
CAST, SAMPLER = "than float32", "than the sampler"
AT_ONCE = "all at once"
LAYOUTS = ("again", "one by one", AT_ONCE)


def null_update(
    model: Policy,
    rollouts: Sequence[Rollout],
    config: TrainConfig,
    seed: int,
    precisions: Sequence[str],
    on_progress: Callable[[str], None] = lambda name: None,
) -> UpdateLog:
    """Log-probs of the same weights twice over: a log of update 1 whose every log ratio is noise.

    Every cell is "PRECISION: CHANGE". In each precision: the trainer's own micro-batches scored `again`, responses
    scored `one by one`, and `all at once` the other way round, all against the trainer's own micro-batches (behind
    few-shot prompts trees in which common starts are computed once, as `all at once` is); then
    these against float32 (`than float32`) and, in the precision that the config trains in, against the log-probs
    that were recorded when the responses were drawn (`than the sampler`). Up to MOST_TOKENS tokens, lengths mixed as
    they are in the rollouts.
    """
    chosen = representative(rollouts)
    own = [micro for mini in mini_batches(chosen, config, seed, 0, model.device) for micro in mini]
    layouts = {
        "again": own,
        "one by one": [pack(chosen, [row], model.device) for row in range(len(chosen))],
        AT_ONCE: [_together(chosen, model)],
    }
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    plain = None
    for precision in precisions:
        on_progress(precision)
        reference = _log_probs(model, own, precision)
        found |= {f"{precision}: {n}": (_log_probs(model, m, precision), reference) for n, m in layouts.items()}
        if precision == "float32":
            plain = reference
        elif plain is not None:
            found[f"{precision}: {CAST}"] = reference, plain
        if precision == trained_in(config):
            sampled = np.array([x for r in chosen for x in r.sampler_log_probs], np.float32)
            found[f"{precision}: {SAMPLER}"] = reference, sampled
    return UpdateLog.concat([_as_update(chosen, seed, cell, *pair) for cell, pair in found.items()])


def trained_in(config: TrainConfig) -> str:
    """Which of PRECISIONS a run trains in."""
    if config.precision == "float32":
        return "float32"
    return AUTOCAST_HEAD if config.float32_head else AUTOCAST


def representative(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """Rollouts of MOST_TOKENS tokens in all: every k-th by length, k as small as that allows, in their own order."""
    by_length = sorted(range(len(rollouts)), key=lambda i: (len(rollouts[i].response_ids), i))
    for step in range(1, len(rollouts) + 1):
        kept = sorted(by_length[step // 2 :: step])
        if sum(len(rollouts[i].prompt_ids) + len(rollouts[i].response_ids) for i in kept) <= MOST_TOKENS:
            return [rollouts[i] for i in kept]
    return [rollouts[by_length[0]]]


def _together(rollouts: Sequence[Rollout], model: Policy) -> MicroBatch:
    """All of them as one micro-batch, the last one first; as a tree where that saves enough, in a tree's own order."""
    rows = list(reversed(range(len(rollouts))))
    packed = pack_tree if saves_enough(rollouts, rows) else pack
    return packed(rollouts, rows, model.device)


@torch.no_grad()
def _log_probs(model: Policy, micros: Sequence[MicroBatch], precision: str) -> np.ndarray:
    """Log-probs of all response tokens, response after response in the order of their rows."""
    whole: Any = model
    cast = copy.deepcopy(whole).to(torch.bfloat16) if precision in (HEAD, "bfloat16") else model
    rows: dict[int, np.ndarray] = {}
    for micro in micros:
        with _autocast(model, precision):
            scored = score(cast, micro, float32_head=precision in (HEAD, AUTOCAST_HEAD))
        for row, line, mask in zip(micro.rows, scored, micro.response_mask, strict=True):
            rows[row] = line[mask].cpu().numpy()
    return np.concatenate([rows[i] for i in range(len(rows))])


def _autocast(model: Policy, precision: str) -> AbstractContextManager[Any]:
    autocast = precision in (AUTOCAST, AUTOCAST_HEAD)
    return torch.autocast(model.device.type, torch.bfloat16) if autocast else nullcontext()


def _as_update(rollouts: Sequence[Rollout], seed: int, cell: str, new: np.ndarray, old: np.ndarray) -> UpdateLog:
    return UpdateLog(
        problem_ids=np.array([r.problem_id for r in rollouts]),
        seed=np.array(seed),
        step=np.array(0),
        update=np.array(1),
        reward=np.array([r.reward for r in rollouts]),
        advantage=group_centred(*rewards_and_groups(rollouts)).numpy(),
        truncated=np.array([r.finish_reason == FinishReason.LENGTH for r in rollouts]),
        lengths=np.array([len(r.response_ids) for r in rollouts]),
        log_probs=new,
        old_log_probs=old,
        cells=cell,
    )


# --- what it says ---------------------------------------------------------------------------------


def _cells(log: UpdateLog) -> Iterator[tuple[str, str, UpdateLog]]:
    """(precision, change, rows) in the order of recording."""
    for cell in dict.fromkeys(np.asarray(log.cells).tolist()):
        precision, _, change = cell.partition(": ")
        yield precision, change, log.rows(log.cells == cell)


def noise_by_change(log: UpdateLog) -> pd.DataFrame:
    """Noise by precision and change, in nats: of a token (mean |x|, root mean square, largest) and of a response.

    sequence_rms and sequence_max are of S, the sum over a response; per_root_token = sqrt(mean S^2 / L) is what noise
    adds to sigma if it is independent from token to token.
    """
    rows = []
    for precision, change, part in _cells(log):
        x, s = part.log_ratios.astype(np.float64), part.sums()
        rows.append(
            {
                "precision": precision,
                "change": change,
                "responses": len(part),
                "tokens": len(x),
                "token_mean": np.abs(x).mean(),
                "token_rms": np.sqrt((x**2).mean()),
                "token_max": np.abs(x).max(),
                "sequence_rms": np.sqrt((s**2).mean()),
                "sequence_max": np.abs(s).max(),
                "per_root_token": np.sqrt((s**2 / part.lengths).mean()),
            }
        )
    return pd.DataFrame(rows)


def noise_clips(methods: Mapping[str, Method], log: UpdateLog) -> pd.DataFrame:
    """What noise alone would clip: method, precision, change, outside_band (all responses), clipped (with A not 0)."""
    rows = []
    for precision, change, part in _cells(log):
        for name, method in methods.items():
            frame = replay(method, part, {})
            teaches = numbers_of(frame, "sign") != 0
            rows.append(
                {
                    "method": name,
                    "precision": precision,
                    "change": change,
                    "outside_band": numbers_of(frame, "outside_band").mean(),
                    "clipped": numbers_of(frame, "clipped")[teaches].mean() if teaches.any() else np.nan,
                }
            )
    return pd.DataFrame(rows)


def null_outside(methods: Mapping[str, Method], log: UpdateLog) -> dict[str, float]:
    """The largest share of responses outside each method's band under the changes of layout and padding in a log.

    The number that a comparison shows of every method: what its clip does before anything was learned.
    """
    found = noise_clips(methods, log)
    layouts = found.take(np.flatnonzero(found["change"].isin(LAYOUTS)))
    return {name: numbers_of(select(layouts, method=name), "outside_band").max() for name in methods}
