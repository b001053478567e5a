"""Recorded rollouts of known lengths, for benchmarks that feed the same ones to two trainers."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from suite.types import FinishReason, Rollout, Verdict

TAIL = 0.8
"""Standard deviation of the log length in the heavy tail: the longest of 64 has about five times the mean."""


def _equal(count: int, mean: int) -> list[int]:
    return [mean] * count


def _spread(count: int, mean: int) -> list[int]:
    """Evenly from the shortest to five times that."""
    return [round(mean * (1 + 4 * i / (count - 1)) / 3) for i in range(count)]


def _tail(count: int, mean: int) -> list[int]:
    """Quantiles of a log-normal distribution with that mean."""
    quantiles = (NormalDist().inv_cdf((i + 0.5) / count) for i in range(count))
    return [max(1, round(mean * np.exp(TAIL * z - TAIL**2 / 2))) for z in quantiles]


FEW_SHOT: Mapping[str, tuple[int, int]] = {"fewshot": (235, 42), "fewshot-long": (455, 61)}
"""Tokens of a prompt that all problems have in common, and of the problem's own, on average: as the recipes ask svamp
and gsm8k of SmolLM2, four worked examples and the question."""
MIXES: Mapping[str, Callable[[int, int], list[int]]] = {
    "equal": _equal,
    "spread": _spread,
    "tail": _tail,
    **dict.fromkeys(FEW_SHOT, _spread),
}
"""Lengths of `count` responses of about `mean` tokens: all equal, spread over a factor of 5, with a heavy tail; spread
behind few-shot prompts."""


@dataclass(frozen=True)
class Material:
    """What both sides get: rows of prompt, response and reward, samples of one prompt side by side."""

    prompts: list[list[int]]
    responses: list[list[int]]
    rewards: list[float]
    samples: int

    @property
    def tokens(self) -> int:
        """Tokens that are no padding."""
        return sum(map(len, self.prompts)) + sum(map(len, self.responses))

    @property
    def digest(self) -> str:
        """sha256 over all of it."""
        return hashlib.sha256(json.dumps(self.__dict__, sort_keys=True).encode()).hexdigest()

    def rollouts(self) -> tuple[Rollout, ...]:
        """The rows as the suite records them."""
        return tuple(
            Rollout(
                problem_id=str(i // self.samples),
                sample_index=i % self.samples,
                seed=i,
                prompt_ids=tuple(prompt),
                response_ids=tuple(response),
                sampler_log_probs=(0.0,) * len(response),
                finish_reason=FinishReason.STOP,
                verdict=Verdict.CORRECT if reward else Verdict.WRONG,
                reward=reward,
            )
            for i, (prompt, response, reward) in enumerate(zip(self.prompts, self.responses, self.rewards, strict=True))
        )


def material(mix: str, vocabulary: Sequence[int], prompts: int, samples: int, prompt: int, mean: int) -> Material:
    """Random tokens of a mix's lengths, the same for the same arguments; prompts of `prompt` tokens, some half as long,
    or few-shot prompts of their own lengths.

    About half of each group is rewarded, never all and never none.
    """
    draw = random.Random(f"{mix} {prompts} {samples} {prompt} {mean}")
    lengths = MIXES[mix](prompts * samples, mean)
    draw.shuffle(lengths)
    common, own = FEW_SHOT.get(mix, (0, prompt))
    start = draw.choices(vocabulary, k=common)
    longest = own if mix not in FEW_SHOT else own * 4 // 3
    asked = [
        start + draw.choices(vocabulary, k=own if mix == "equal" else draw.randint(longest // 2, longest))
        for _ in range(prompts)
    ]
    rewards: list[float] = []
    for _ in range(prompts):
        group = [1.0, 0.0] + [float(draw.random() < 0.5) for _ in range(samples - 2)]
        draw.shuffle(group)
        rewards += group
    return Material(
        prompts=[list(asked[i // samples]) for i in range(prompts * samples)],
        responses=[draw.choices(vocabulary, k=length) for length in lengths],
        rewards=rewards,
        samples=samples,
    )


def deal(rows: int, updates: int, seed: int, step: int) -> list[int]:
    """The order in which the suite deals a step's rows to its updates."""
    import torch

    from suite.seeds import generator

    return torch.randperm(rows, generator=generator(seed, "mini-batches", step)).tolist()


def as_json(found: Material) -> dict[str, Any]:
    """The fields, for a task file."""
    return dict(found.__dict__)
