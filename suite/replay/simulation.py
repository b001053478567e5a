"""Simulated responses with known truth: banks with Gaussian S, and the Gaussian twin of a recorded log."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
from scipy import signal, stats

from suite.records.update_log import UpdateLog
from suite.replay.growth import Band, constant_band, expected_outside_share, linear_band, sqrt_band
from suite.types import UserError, require

TOKENS = ("drawn", "spread", "last")
RULES: Mapping[str, Callable[[np.ndarray], Band]] = {
    "constant": partial(constant_band, eps_low=0.2, eps_high=0.2),
    "linear": partial(linear_band, eps_low=3e-4, eps_high=4e-4),
    "sqrt": partial(sqrt_band, c_low=0.03, c_high=0.03),
}
"""How a band on S may grow with length, at the ranges of RLOO, GSPO and FSPO (mu = 0)."""

FLOAT32_STEPS = 100  # a token's spread in float32 steps; rounding then adds less than 1e-5 of its variance

COPIES = 4
"""Twins behind one prediction: their noise is then half of that of the responses themselves."""


def _count(value: object) -> bool:
    return isinstance(value, int | np.integer) and bool(value >= 1)


def _pairs(value: object) -> bool:
    """Whether this is ((length, responses), ...), with something in it."""
    return (
        isinstance(value, tuple)
        and len(value) > 0
        and all(isinstance(pair, tuple) and len(pair) == 2 and all(map(_count, pair)) for pair in value)
    )


# --- lengths --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LogNormal:
    """Length law L = min(ceil(X), limit) with ln X ~ N(ln median, spread^2), in tokens; X > limit is truncated.

    `responses` is their number in every optimizer step. Source: ours.
    """

    median: float
    spread: float
    limit: int
    responses: int

    def __post_init__(self) -> None:
        require(0 < self.median < math.inf, self, "median", "positive (tokens)")
        require(0 < self.spread <= 10, self, "spread", "above 0 and at most 10 (standard deviation of ln L)")
        require(_count(self.limit), self, "limit", "a whole number of tokens, at least 1")
        require(_count(self.responses), self, "responses", "a whole number, at least 1")

    @property
    def truncated_share(self) -> float:
        """Chance that a response is cut: 1 - Phi(ln(limit / median) / spread)."""
        return float(stats.norm.sf((math.log(self.limit) - math.log(self.median)) / self.spread))

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Lengths and truncation flags of one optimizer step's responses, [responses] each."""
        log_length = rng.normal(math.log(self.median), self.spread, self.responses)
        truncated = log_length > math.log(self.limit)
        lengths = np.ceil(np.exp(np.minimum(log_length, math.log(self.limit))))
        return np.clip(lengths, 1, self.limit).astype(np.int64), truncated


# --- the bank -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Simulation:
    """A bank of simulated responses: how S is distributed at every length, how long responses are, how many there are.

        x_t = drift + u_t,   u_1 = tau e_1,   u_t = rho u_{t-1} + tau sqrt(1 - rho^2) e_t,   e_t ~ N(0, 1) iid
        tau^2 = sigma^2 (1 - rho) / (1 + rho)
        S = sum_t x_t ~ N(L drift, L spread(L)^2)

    S is exactly Gaussian. Var(S) = L sigma^2 holds exactly for rho = 0 and asymptotically in L otherwise: see `spread`.

    sigma: spread of S in nats per square root of a token. drift: mean log ratio in nats per token. correlation: rho.
    lengths: ((length, responses), ...) or a LogNormal law, per optimizer step. updates: optimizer steps 1, 2, ..., each
    with responses of its own and the same law. start: also rows of update 0, with log ratio exactly 0. problems:
    groups that the responses of a step are dealt to, two or more each. old_log_prob: of every token.

    tokens: how S lies on the tokens. "drawn": as above. "spread": S is drawn as one number and spread evenly (what
    float32 loses of it goes to the last token). "last": it all lies on the last token, so that other tokens have ratio
    1; its new log-prob may then exceed 0. The law of S is the same in all three; a token's is as above in "drawn" only.

    float32: an update log stores log-probs, not ratios, so a ratio is rounded to the step of float32 near old_log_prob
    (1.2e-7 at -1). In "drawn" the errors are independent, about 3e-6 nats in S at L = 8192, a hundred-thousandth of
    sigma sqrt(L) for sigma = .003; in the other two at most one step at S. An old_log_prob whose step exceeds tau / 100
    is refused. Memory: 8 bytes a token here, about 20 while a replay sums them.

    Source: ours (arXiv 2509.09177 for the Gaussian limit).
    """

    sigma: float
    drift: float
    lengths: tuple[tuple[int, int], ...] | LogNormal
    correlation: float = 0.0
    tokens: str = "drawn"
    updates: int = 1
    start: bool = False
    problems: int = 1
    old_log_prob: float = -1.0

    def __post_init__(self) -> None:
        require(0 < self.sigma < math.inf, self, "sigma", "positive (nats per square root of a token)")
        require(math.isfinite(self.drift), self, "drift", "finite (nats per token)")
        require(-1 < self.correlation < 1, self, "correlation", "above -1 and below 1")
        require(self.tokens in TOKENS, self, "tokens", ", ".join(TOKENS[:-1]) + f" or {TOKENS[-1]}")
        require(_count(self.updates), self, "updates", "a whole number, at least 1")
        law = isinstance(self.lengths, LogNormal) or _pairs(self.lengths)
        require(law, self, "lengths", "(length, responses) pairs of whole numbers, at least 1, or a LogNormal")
        enough = f"a whole number from 1 to {self.responses // 2}, so that each has 2 of {self.responses} responses"
        require(_count(self.problems) and 2 * self.problems <= self.responses, self, "problems", enough)
        old = self.old_log_prob
        require(-math.inf < old <= 0, self, "old_log_prob", "at most 0 and finite")
        fine = FLOAT32_STEPS * float(np.spacing(np.float32(-old))) <= self.token_spread
        require(fine, self, "old_log_prob", f"nearer to 0: float32 would lose a token's spread {self.token_spread:g}")

    @property
    def responses(self) -> int:
        """Responses of one optimizer step."""
        return self.lengths.responses if isinstance(self.lengths, LogNormal) else sum(n for _, n in self.lengths)

    @property
    def token_spread(self) -> float:
        """tau, the standard deviation of a token's log ratio in nats: sigma sqrt((1 - rho) / (1 + rho))."""
        return self.sigma * math.sqrt((1 - self.correlation) / (1 + self.correlation))

    def spread(self, length: np.ndarray) -> np.ndarray:
        """std(S) / sqrt(L) in nats per square root of a token, exact at every length; sigma where rho = 0.

            sigma sqrt(1 - 2 rho (1 - rho^L) / (L (1 - rho^2)))

        Short responses spread less than sigma for rho > 0, more for rho < 0.

        >>> Simulation(0.02, 0.0, ((8, 2),), correlation=0.5).spread(np.array([1, 8, 8192])).round(4).tolist()
        [0.0115, 0.0183, 0.02]

        Source: ours, the variance of the sum of a stationary AR(1) series.
        """
        length, rho = np.asarray(length, float), self.correlation
        return self.sigma * np.sqrt(1 - 2 * rho * (1 - rho**length) / (length * (1 - rho**2)))

    def columns(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """One bank as the columns of an update log: `UpdateLog(**simulation.columns(rng))`.

        The responses of a step are dealt to the problems in turn, lengths in random order. Rewards alternate between 0
        and 1 within a group, whatever S is, so that every group has both signs; advantage = reward - group mean.
        """
        updates = np.arange(0 if self.start else 1, self.updates + 1)
        drawn = [self._draw_lengths(rng) for _ in updates]
        lengths, truncated = (np.concatenate(parts) for parts in zip(*drawn, strict=True))
        update = np.repeat(updates, self.responses)
        problem = np.arange(self.responses) % self.problems
        reward = (np.arange(self.responses) // self.problems % 2).astype(float)
        advantage = reward - (np.bincount(problem, reward) / np.bincount(problem))[problem]
        make = self._drawn if self.tokens == "drawn" else self._placed
        return {
            "problem_ids": np.tile(np.char.add("simulated/", problem.astype(str)), len(updates)),
            "seed": np.zeros_like(update),
            "step": np.zeros_like(update),
            "update": update,
            "reward": np.tile(reward, len(updates)),
            "advantage": np.tile(advantage, len(updates)),
            "truncated": truncated,
            "lengths": lengths,
            "log_probs": make(lengths, update > 0, rng),
            "old_log_probs": np.full(int(lengths.sum()), self.old_log_prob, np.float32),
        }

    def _draw_lengths(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if isinstance(self.lengths, LogNormal):
            return self.lengths.draw(rng)
        length, count = np.array(self.lengths, np.int64).T
        return rng.permutation(np.repeat(length, count)), np.zeros(self.responses, bool)

    def _drawn(self, lengths: np.ndarray, moving: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """New log-probs token by token, one response at a time: float64 noise, float32 only when stored."""
        rho, old = self.correlation, float(np.float32(self.old_log_prob))
        log_probs, end = np.full(int(lengths.sum()), old, np.float32), np.cumsum(lengths)
        for i in np.flatnonzero(moving):
            noise = self.token_spread * rng.standard_normal(lengths[i])
            noise[1:] *= math.sqrt(1 - rho**2)
            log_ratio = self.drift + np.asarray(signal.lfilter([1.0], [1.0, -rho], noise))
            log_probs[end[i] - lengths[i] : end[i]] = old + log_ratio
        return log_probs

    def _placed(self, lengths: np.ndarray, moving: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """New log-probs from S alone: evenly or none on all tokens but the last, which carries what is left of S."""
        old = float(np.float32(self.old_log_prob))
        scale = self.spread(lengths) * np.sqrt(lengths)
        s = moving * (lengths * self.drift + scale * rng.standard_normal(len(lengths)))
        even = (old + (s / lengths if self.tokens == "spread" else np.zeros_like(s))).astype(np.float32)
        log_probs = np.repeat(even, lengths)
        log_probs[np.cumsum(lengths) - 1] = old + s - (lengths - 1) * (even.astype(np.float64) - old)
        return log_probs


def expected_share(simulation: Simulation, band: str | Band, length: np.ndarray) -> np.ndarray:
    """Share of a simulation's responses of this length whose S leaves the band: the normal tail, exact for its bank.

    band: a name in RULES, or the two edges on S at each length in nats (`sqrt_band(length, 0.03, 0.03, drift)`).
    Raises UserError for another name.

    >>> expected_share(Simulation(0.02, -0.0002, ((128, 2),)), "sqrt", np.array([128, 2048, 8192])).round(3).tolist()
    [0.136, 0.173, 0.284]

    Source: ours, through `suite.replay.growth.expected_outside_share`.
    """
    if isinstance(band, str):
        if band not in RULES:
            raise UserError(f"band {band!r} is not known: use one of {', '.join(RULES)}, or give the two edges")
        band = RULES[band](length)
    share = np.vectorize(expected_outside_share, otypes=[float])
    return share(simulation.spread(length), length, *band, simulation.drift)


def gaussian_twin(log: UpdateLog, moments: pd.DataFrame, rng: np.random.Generator) -> UpdateLog:
    """The log with S drawn from N(L drift_u, L sigma_u^2), independent of everything else, update by update.

    `moments` has update, drift (nats per token) and sigma (nats per square root of a token), as
    `suite.replay.growth.growth_by_update` measures them. S is spread evenly over the tokens: what a method of sequence
    ratios clips of a twin is what the normal tail predicts for the log, with the method's own centre and widths. Rows
    of update 0 keep their ratio of 1; updates without moments are left out. Rounding to float32 moves S by less than
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
