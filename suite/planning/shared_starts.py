"""What trees of common starts leave to compute of a batch of rollouts, before there are any.

All prompts begin with the same `common` tokens, each problem has `own` tokens after them, and its responses follow. Cut
into micro-batches by their token budget, each of these computes the common start, and one problem's prompt, anew.
Source: ours, counted from `suite.policy.prefix_tree`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from suite.policy.prefix_tree import SAVING, SHORTEST


@dataclass(frozen=True)
class Batch:
    """Rollouts of a batch in tokens, on average or at most: `responses` of `response` tokens each to `problems`
    problems, whose prompts of `prompt` tokens have their first `common` in common.
    """

    common: float
    prompt: float
    response: float
    problems: float
    responses: float

    @property
    def plain(self) -> float:
        """Tokens sequence by sequence."""
        return self.responses * (self.prompt + self.response)

    @property
    def tree(self) -> float:
        """Tokens as one tree: common start once, each problem's own prompt once, every response."""
        shared = self.common if self.common >= SHORTEST else 0.0
        own = (self.prompt - shared) * min(self.problems, self.responses)
        return shared + own + self.responses * self.response

    @property
    def is_tree(self) -> bool:
        """Whether a tree saves enough to be used."""
        return self.tree <= (1 - SAVING) * self.plain

    def computed(self, budget: float) -> float:
        """Tokens that a forward pass over the batch computes, in micro-batches of at most `budget` tokens."""
        if not self.is_tree:
            return self.plain
        room = max(1.0, budget - self.prompt)
        more = max(0, math.ceil((self.tree - self.prompt) / room) - 1)
        return min(self.plain, self.tree + more * self.prompt)


def expected_problems(problems: int, samples: int, drawn: float) -> float:
    """Distinct problems that `drawn` responses are of, on average, when they are drawn from `samples` of each problem.

        P (1 - C(R - s, m) / C(R, m)), R = P s

    >>> expected_problems(8, 8, 64), round(expected_problems(8, 8, 1), 9), round(expected_problems(2, 2, 2), 3)
    (8.0, 1.0, 1.667)
    """
    whole, most = problems * samples, round(drawn)
    if most > whole - samples:
        return float(problems)
    missed = math.comb(whole - samples, most) / math.comb(whole, most)
    return problems * (1 - missed)
