"""From stored samples to numbers, for any k up to the samples of a problem, without a model."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import comb

from suite.evaluation.sample_store import REWARD
from suite.statistics.verdict_counts import pass_at_k
from suite.types import FinishReason, UserError, Verdict

SUBSETS = 5000
"""Most subsets of k samples that a majority is taken in; where there are more, as many are drawn with a fixed seed."""


def pass_hat_k(correct: np.ndarray, samples: int, k: int) -> np.ndarray:
    """Unbiased chance that all of k samples are correct, from `correct` out of `samples`.

        pass^k = C(c, k) / C(n, k)

    Raises ValueError unless 1 <= k <= samples.

    >>> pass_hat_k(np.array([0, 2, 4]), 4, 2).round(3).tolist()
    [0.0, 0.167, 1.0]

    Source: arXiv 2406.12045 sec. 3.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass^{k} needs 1 <= k <= {samples} samples")
    return np.asarray(comb(np.asarray(correct), k)) / comb(samples, k)


def subsets(samples: int, k: int) -> np.ndarray:
    """Subsets of k of the samples, [M, k], ascending in each row: all of them, or SUBSETS drawn with seed 0.

    Raises ValueError unless 1 <= k <= samples.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"maj@{k} needs 1 <= k <= {samples} samples")
    if math.comb(samples, k) <= SUBSETS:
        return np.array(list(itertools.combinations(range(samples), k)))
    rng = np.random.default_rng(0)
    return np.sort(np.argsort(rng.random((SUBSETS, samples)), axis=1)[:, :k], axis=1)


def majority_at_k(answers: Sequence[str | None], correct: Sequence[bool], chosen: np.ndarray) -> float:
    """Chance that the most frequent answer of k samples is correct, for one problem: the mean over the subsets.

    `answers` and `correct` in the order of the samples, `chosen` from `subsets`. Samples without an answer have no
    vote; a subset without votes is not correct. Equally frequent answers share the subset: m of them count 1 / m each,
    as if one of them were drawn. So neither the order of the samples nor a random number decides.

    >>> majority_at_k(["7", "8", "7", None], [True, False, True, False], subsets(4, 3))
    0.75
    >>> majority_at_k(["8", "7", None], [False, True, False], subsets(3, 2))
    0.5

    Source: ours; voting as in arXiv 2203.11171.
    """
    names = {answer: i for i, answer in enumerate(dict.fromkeys(a for a in answers if a is not None))}
    votes = np.array([-1 if answer is None else names[answer] for answer in answers])[chosen]
    counts = (votes[:, :, None] == votes[:, None, :]).sum(axis=2) * (votes >= 0)
    # Each of the most frequent answers fills equally many places, so a mean over places is one over answers.
    won = (counts == counts.max(axis=1, keepdims=True)) & (counts > 0)
    right = (won & np.asarray(correct)[chosen]).sum(axis=1)
    return float((right / np.maximum(won.sum(axis=1), 1)).mean())


def sample_metrics(frame: pd.DataFrame, ks: Sequence[int], rule: str = REWARD) -> pd.DataFrame:
    """One row a task and k: avg@k, pass@k, pass^k, maj@k and the shares that do not depend on k.

    `frame` as `sample_store.read_frame` returns it; `rule` is the verdict column to count. avg@k is the mean over all
    subsets of k samples, so it is c / n for every k. Shares are of all samples: undecided, no answer, truncated (cut at
    the token limit); `mean_length` in tokens.

    UserError: samples missing or without verdict, problems with unequal numbers of samples, k beyond them.
    """
    rows = []
    for task, part in frame.groupby("task", sort=False):
        counts = Counter(part["problem"])
        fewest, n = min(counts, key=lambda problem: counts[problem]), max(counts.values())
        if counts[fewest] != n:
            raise UserError(f"{task}: {fewest} has {counts[fewest]} samples, others {n}; finish the evaluation")
        if rule not in part or np.any(pd.isna(part[rule])):
            raise UserError(f"{task}: samples without a verdict ({rule}); finish the evaluation, or choose another")
        if bad := [k for k in ks if not 1 <= k <= n]:
            raise UserError(f"--k {bad[0]}: {task} has {n} samples a problem; choose 1 to {n}")
        rows += [_row(str(task), part, n, k, rule) for k in ks]
    return pd.DataFrame(rows)


def _row(task: str, part: pd.DataFrame, n: int, k: int, rule: str) -> dict[str, Any]:
    verdicts, finish = np.asarray(part[rule]), np.asarray(part["finish"])
    right = (verdicts == Verdict.CORRECT.value).reshape(-1, n)
    answers = [[a if isinstance(a, str) else None for a in row] for row in np.asarray(part["answer"]).reshape(-1, n)]
    correct, chosen = right.sum(axis=1), subsets(n, k)
    majorities = [majority_at_k(a, r, chosen) if r.any() else 0.0 for a, r in zip(answers, right, strict=True)]
    return {
        "task": task,
        "problems": len(right),
        "samples": n,
        "k": k,
        "avg_at_k": float(right.mean()),
        "pass_at_k": float(pass_at_k(correct, n, k).mean()),
        "pass_hat_k": float(pass_hat_k(correct, n, k).mean()),
        "maj_at_k": float(np.mean(majorities)),
        "undecided_share": float(np.mean(verdicts == Verdict.UNDECIDED.value)),
        "no_answer_share": float(np.mean(verdicts == Verdict.NO_ANSWER.value)),
        "truncated_share": float(np.mean(finish == FinishReason.LENGTH.value)),
        "mean_length": float(np.mean(np.asarray(part["length"]))),
    }
