"""Nested binomial worlds whose truth is known, to hold intervals, power and false alarms against.

    logit chance[s, p] = hard[p] + gain + gain[p] + seed[s] + cell[s, p],     hits[s, p, k] ~ Bernoulli(chance[s, p])

hard is what both sides share; a method has gain[p], seed[s] and cell[s, p] of its own; a base model has none of these
and is sampled once. With common random numbers the k-th sample of a problem compares one uniform number with every
model's chance, as our evaluations do: what was trained does not enter the noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit

HARD = 1.5


@dataclass(frozen=True)
class World:
    """Standard deviations in log-odds, the design of the experiment, and what is compared.

    kind: "base" (a method against a base model), "methods" (against another method), "accuracy" (one method alone).
    """

    kind: str
    seed_sd: float
    problem_sd: float = 0.3
    cell_sd: float = 0.3
    gain: float = 0.0
    common_noise: bool = False
    seeds: int = 5
    problems: int = 100
    samples: int = 4

    def hits(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
        """`count` experiments: hits of method and reference, [count, seeds, problems, samples]; base has one seed."""
        hard = rng.normal(0, HARD, (count, 1, self.problems, 1))
        chances = [self._chance(rng, hard, self.gain), self._reference(rng, hard)]
        shared = rng.random((count, 1, self.problems, self.samples))
        sides = []
        for chance in chances:
            noise = shared if self.common_noise else rng.random((*chance.shape[:3], self.samples))
            sides.append(noise < chance)
        return sides[0], sides[1]

    def differences(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """What is estimated, method minus reference (or the method alone), [count, seeds, problems, samples]."""
        method, reference = self.hits(rng, count)
        return method.astype(float) if self.kind == "accuracy" else method.astype(float) - reference

    def truth(self, rng: np.random.Generator, problems: int = 300_000) -> float:
        """Expected difference of chances: 0 where both sides are alike, else from a draw of all parts per problem."""
        if self.kind == "methods" and self.gain == 0:
            return 0.0
        one = replace(self, seeds=1)
        hard = rng.normal(0, HARD, (problems, 1, 1, 1))
        method = one._chance(rng, hard, self.gain).mean()
        return float(method if self.kind == "accuracy" else method - one._reference(rng, hard).mean())

    def _chance(self, rng: np.random.Generator, hard: np.ndarray, gain: float) -> np.ndarray:
        count, _, problems, _ = hard.shape
        own = rng.normal(0, self.problem_sd, (count, 1, problems, 1))
        seed = rng.normal(0, self.seed_sd, (count, self.seeds, 1, 1))
        return expit(hard + gain + own + seed + rng.normal(0, self.cell_sd, (count, self.seeds, problems, 1)))

    def _reference(self, rng: np.random.Generator, hard: np.ndarray) -> np.ndarray:
        return self._chance(rng, hard, 0.0) if self.kind == "methods" else expit(hard)


@dataclass(frozen=True)
class FamilyWorld:
    """Methods of one expected accuracy whose seeds differ by `seed_sds`, one standard deviation in log-odds a method.

    `shared_sd` is what a seed does to all methods alike, as a common first rollout does. Token noise is common, and 0
    is in the middle of the problems' difficulties, so that no method gains by varying more.
    """

    seed_sds: tuple[float, ...]
    shared_sd: float = 0.1
    problem_sd: float = 0.3
    cell_sd: float = 0.3
    seeds: int = 5
    problems: int = 100
    samples: int = 4

    def cells(self, rng: np.random.Generator) -> np.ndarray:
        """Accuracies of one experiment, [methods, seeds, problems]."""
        methods = len(self.seed_sds)
        logits = (
            rng.normal(0, HARD, (1, 1, self.problems))
            + rng.normal(0, self.problem_sd, (methods, 1, self.problems))
            + rng.normal(0, self.shared_sd, (1, self.seeds, 1))
            + rng.normal(0, 1, (methods, self.seeds, 1)) * np.array(self.seed_sds)[:, None, None]
            + rng.normal(0, self.cell_sd, (methods, self.seeds, self.problems))
        )
        noise = rng.random((1, 1, self.problems, self.samples))
        return (noise < expit(logits)[..., None]).mean(axis=3)
