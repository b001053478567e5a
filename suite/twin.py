"""The Gaussian twin of a log: the same responses, with log ratios as the theory supposes them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

from suite.replay import UpdateLog

COPIES = 4
"""Twins behind one prediction: their noise is then half of that of the responses themselves."""


def gaussian_twin(log: UpdateLog, moments: pd.DataFrame, rng: np.random.Generator) -> UpdateLog:
    """The log with S drawn from N(L drift_u, L sigma_u^2), independent of everything else, update by update.

    `moments` has update, drift (nats per token) and sigma (nats per square root of a token), as
    `fspo.growth.growth_by_update` measures them. S is spread evenly over the tokens: what a method of sequence ratios
    clips of a twin is what the normal tail predicts for the log, with the method's own centre and widths. Rows of
    update 0 keep their ratio of 1; updates without moments are left out. Rounding to float32 moves S by less than
    1e-7 L nats. Source: ours.
    """
    by_update = moments.set_index("update")
    log = log.rows((log.update == 0) | np.isin(log.update, by_update.index))
    known = np.flatnonzero(log.update > 0)
    s, length = np.zeros(len(log)), log.lengths.astype(float)
    drift, sigma = (by_update.loc[log.update[known], name].to_numpy() for name in ("drift", "sigma"))
    s[known] = length[known] * drift + np.sqrt(length[known]) * sigma * rng.standard_normal(len(known))
    ratios = np.repeat(s / length, log.lengths)
    return dataclasses.replace(log, log_probs=(log.old_log_probs + ratios).astype(np.float32))


def twins(log: UpdateLog, moments: pd.DataFrame, rng: np.random.Generator) -> list[UpdateLog]:
    """COPIES independent twins of a log."""
    return [gaussian_twin(log, moments, rng) for _ in range(COPIES)]
