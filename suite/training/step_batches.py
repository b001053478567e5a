"""From the rollouts of a step to what its optimizer steps take: micro-batches, old log-probs, advantages."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

from suite.config import TrainConfig
from suite.policy.prefix_tree import by_common_starts, saves_enough
from suite.policy.ranks import ALONE, Ranks
from suite.policy.scoring import MicroBatch, micro_batches, score, score_and_entropy
from suite.seeds import generator
from suite.training.update import Learner
from suite.training.whole_batch import ScoredBatch, stack, whole, whole_order
from suite.types import CreditInput, Method, Policy, PolicyBatch, Rollout

Parts = list[list[ScoredBatch]]
"""Mini-batches (one optimizer step each) of micro-batches."""


def mini_batches(
    rollouts: Sequence[Rollout],
    config: TrainConfig,
    seed: int,
    step: int,
    device: torch.device | str,
    ranks: Ranks = ALONE,
) -> list[list[MicroBatch]]:
    """The rollouts dealt at random to the optimizer steps of an epoch, each cut into micro-batches.

    Of several processes each takes every so-manyth of a step's responses, by length or, where their micro-batches are
    trees, by common starts: together they have the rows of a single one, in its order.
    """
    shuffled = torch.randperm(len(rollouts), generator=generator(seed, "mini-batches", step)).numpy()
    budget = config.tokens_per_micro_batch
    minis = [m.tolist() for m in np.array_split(shuffled, config.mini_batches)]
    size = [len(r.prompt_ids) + len(r.response_ids) for r in rollouts]

    def own(rows: list[int], as_tree: bool) -> Sequence[int]:
        if ranks.count == 1:
            return rows
        return ranks.share(by_common_starts(rollouts, rows) if as_tree else sorted(rows, key=lambda i: (size[i], i)))

    trees = [saves_enough(rollouts, rows) for rows in minis]
    return [
        micro_batches(rollouts, own(rows, as_tree), budget, device, as_tree)
        for rows, as_tree in zip(minis, trees, strict=True)
    ]


@torch.no_grad()
def scored(
    learner: Learner, micro: MicroBatch, rollouts: Sequence[Rollout], start_model: Policy | None = None
) -> ScoredBatch:
    """Old log-probs (and those of the start model, where there is one) in the very micro-batch that updates will use.

    Advantages are 0 until `credited` fills them in.
    """
    old, entropy = learner.through(score_and_entropy, learner.model, micro)
    drawn = [x for i in micro.rows for x in rollouts[i].sampler_log_probs]
    sampled = torch.tensor(drawn, dtype=old.dtype, device=old.device)
    reference = None if start_model is None else learner.through(score, start_model, micro)
    batch = PolicyBatch(
        log_probs=old,
        old_log_probs=old,
        advantages=torch.zeros(len(micro.rows), 1, device=old.device),
        response_mask=micro.response_mask,
        lengths=micro.lengths,
        sampler_log_probs=micro.padded(sampled),
        ref_log_probs=reference,
        old_values=learner.values(micro),
    )
    return ScoredBatch(micro, batch, entropy)


def scored_step(
    learner: Learner,
    minis: Sequence[Sequence[MicroBatch]],
    rollouts: Sequence[Rollout],
    start_model: Policy | None = None,
) -> Parts:
    """All micro-batches of a rollout step, scored."""
    rounds = learner.ranks.passes
    return [[scored(learner, micro, rollouts, start_model) for micro, _ in rounds(mini)][: len(mini)] for mini in minis]


def credited(method: Method, minis: Parts, rollouts: Sequence[Rollout], ranks: Ranks = ALONE) -> Parts:
    """The same parts with the method's advantages (and returns), computed over the whole rollout step at once."""
    rewards, groups = rewards_and_groups(rollouts)
    order = torch.cat([whole_order(mini, ranks) for mini in minis])
    device = minis[0][0].batch.log_probs.device

    def of_step(column: Callable[[ScoredBatch], torch.Tensor]) -> torch.Tensor:
        return stack([whole(mini, column, ranks) for mini in minis])

    values = of_step(_old_values) if "values" in method.needs else None
    mask = of_step(lambda part: part.batch.response_mask)
    seen = CreditInput(rewards[order].to(device), groups[order].to(device), mask, values)
    credit = method.credit(seen, method.hyper)
    place = {row: i for i, row in enumerate(order.tolist())}

    def filled(part: ScoredBatch) -> ScoredBatch:
        width, own = part.batch.log_probs.shape[1], [place[row] for row in part.micro.rows]
        returns = None if credit.returns is None else credit.returns[own, :width]
        batch = dataclasses.replace(part.batch, advantages=credit.advantages[own, :width], returns=returns)
        return dataclasses.replace(part, batch=batch)

    return [[filled(part) for part in mini] for mini in minis]


def _old_values(part: ScoredBatch) -> torch.Tensor:
    assert part.batch.old_values is not None
    return part.batch.old_values


def rewards_and_groups(rollouts: Sequence[Rollout]) -> tuple[torch.Tensor, torch.Tensor]:
    """rewards [N] float32 and group ids [N]: rollouts of one problem are one group."""
    groups = {problem: i for i, problem in enumerate(dict.fromkeys(r.problem_id for r in rollouts))}
    rewards = torch.tensor([r.reward for r in rollouts], dtype=torch.float32)
    return rewards, torch.tensor([groups[r.problem_id] for r in rollouts])
