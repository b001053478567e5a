"""From verdicts to counts: what one model answered on one set, over its seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import comb

from suite.types import EvalResult, UserError, Verdict


@dataclass(frozen=True)
class Scores:
    """Verdicts of one model on one set: `hits` [seeds, problems, samples], counts of other kinds [seeds, problems].

    Only correct answers count in the mean; the shares of missing and undecided ones are reported beside it, as are
    the share of responses that were cut at the token limit and the mean length of all, in tokens (nan: not recorded).
    """

    task: str
    seeds: tuple[int, ...]
    problem_ids: tuple[str, ...]
    data_digest: str
    samples: int
    hits: np.ndarray
    no_answer: np.ndarray
    undecided: np.ndarray
    truncated_share: float
    mean_length: float = float("nan")

    @property
    def correct(self) -> np.ndarray:
        """Correct answers out of `samples`, [seeds, problems]."""
        return self.hits.sum(axis=2)

    @property
    def means(self) -> np.ndarray:
        """avg@k of every seed and problem, [seeds, problems]."""
        return self.correct / self.samples


def scores(by_seed: Mapping[int, EvalResult], model: str) -> Scores:
    """Counts of one model on one set over its seeds. `model` names it in errors.

    Raises UserError when the seeds were not evaluated on the same problems with the same number of samples.
    """
    seeds = tuple(sorted(by_seed))
    first = by_seed[seeds[0]]
    samples = len(first.verdicts[0]) if first.verdicts else 0
    for seed, result in sorted(by_seed.items()):
        if _questions(result) != _questions(first) or {len(row) for row in result.verdicts} != {samples}:
            raise UserError(
                f"{model}, seed {seed}, set {result.task}: other problems or samples than seed {seeds[0]}; "
                "evaluate again"
            )

    def found(verdict: Verdict) -> np.ndarray:
        rows = [[[each == verdict for each in row] for row in by_seed[seed].verdicts] for seed in seeds]
        return np.array(rows, bool).reshape(len(seeds), len(first.verdicts), samples)

    lengths = [length for result in by_seed.values() for row in result.lengths for length in row]
    length = float(np.mean(lengths)) if lengths else float("nan")
    truncated = float(np.mean([result.truncated_share for result in by_seed.values()]))
    no_answer, undecided = (found(kind).sum(axis=2) for kind in (Verdict.NO_ANSWER, Verdict.UNDECIDED))
    ids, digest = first.problem_ids, first.data_digest
    hits = found(Verdict.CORRECT)
    return Scores(first.task, seeds, ids, digest, samples, hits, no_answer, undecided, truncated, length)


def _questions(result: EvalResult) -> tuple:
    return result.task, result.task_version, result.data_digest, result.problem_ids, len(result.verdicts)


def pass_at_k(correct: np.ndarray, samples: int, k: int) -> np.ndarray:
    """Unbiased chance that at least one of k samples is correct, from `correct` out of `samples`.

        1 - C(n - c, k) / C(n, k)

    Raises ValueError unless 1 <= k <= samples.

    >>> pass_at_k(np.array([0, 1, 4]), 4, 2).tolist()
    [0.0, 0.5, 1.0]

    Source: arXiv 2107.03374 eq. 1.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"pass@{k} needs 1 <= k <= {samples} samples")
    return 1 - np.asarray(comb(samples - np.asarray(correct), k)) / comb(samples, k)
