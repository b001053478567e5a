"""Prompts computed once: the tree's scores and gradients are those of the sequences, from the tokens that it says."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from exact_model import with_exact_norms
from suite.experiments.names import EMBEDDED_MODEL
from suite.policy.loading import load_model
from suite.policy.prefix_tree import SHORTEST, grouped_by_tree, saves_enough, tree_of
from suite.policy.scoring import Critic, micro_batches, pack, pack_tree, score, score_and_entropy
from suite.types import FinishReason, Rollout

FEW_SHOT = tuple(i % 13 for i in range(40))


def rollout(prompt: Sequence[int], response: Sequence[int], problem: str = "p", index: int = 0) -> Rollout:
    zeros = (0.0,) * len(response)
    return Rollout(problem, index, index, tuple(prompt), tuple(response), zeros, FinishReason.STOP)


def some(problems: int = 3, samples: int = 4) -> list[Rollout]:
    """Few-shot prompts of several problems, with responses of 1 to 9 tokens."""
    found = []
    for p in range(problems):
        prompt = (*FEW_SHOT, p, *range(p + 2))
        found += [rollout(prompt, [(p + s + i) % 14 for i in range(1 + (3 * p + 2 * s) % 9)]) for s in range(samples)]
    return found


def exact_model():
    """The embedded model in float64 throughout."""
    return with_exact_norms(
        load_model("embedded", dtype=torch.float64, device="cpu", embedded_folder=EMBEDDED_MODEL).model
    )


@pytest.fixture(scope="module")
def model():
    return exact_model()


def both(model, rollouts: list[Rollout], scoring=score) -> list[tuple[torch.Tensor, dict[str, torch.Tensor]]]:
    """Log-probs and the gradient of an uneven sum of them, as sequences and as a tree."""
    found = []
    for packed in (pack, pack_tree):
        batch = packed(rollouts, range(len(rollouts)), "cpu")
        model.zero_grad()
        values = scoring(model, batch)
        weights = torch.arange(1.0, values.numel() + 1, dtype=values.dtype).view(values.shape) / values.numel()
        (weights * values).sum().backward()
        gradient = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append((values.detach(), gradient))
    return found


def assert_same(pair: list[tuple[torch.Tensor, dict[str, torch.Tensor]]]) -> None:
    (one, its), (other, others) = pair
    torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)
    assert its.keys() == others.keys()
    for name, gradient in its.items():
        scale = max(float(gradient.abs().max()), 1e-12)
        torch.testing.assert_close(others[name], gradient, rtol=0, atol=1e-12 * max(scale, 1.0), msg=name)


def test_scores_and_gradients_are_those_of_the_sequences(model) -> None:
    assert_same(both(model, some()))


TOKENS = st.integers(0, 14)


@st.composite
def rollout_sets(draw: st.DrawFn) -> list[Rollout]:
    """Prompts that share starts of any length, or nothing, or are equal; responses of 0 to 6 tokens, equal ones too."""
    starts = draw(st.lists(st.lists(TOKENS, min_size=1, max_size=24), min_size=1, max_size=3))
    found = []
    for _ in range(draw(st.integers(1, 6))):
        prompt = [*draw(st.sampled_from(starts)), *draw(st.lists(TOKENS, max_size=3))]
        found.append(rollout(prompt, draw(st.lists(st.integers(0, 2), max_size=6))))
    return found


@settings(max_examples=40)
@given(rollout_sets())
def test_any_tree_has_the_scores_of_its_sequences(rollouts: list[Rollout]) -> None:
    if not any(r.response_ids for r in rollouts):
        return
    model = exact_model()
    one, other = (score(model, packed(rollouts, range(len(rollouts)), "cpu")) for packed in (pack, pack_tree))
    torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


@settings(max_examples=100)
@given(rollout_sets())
def test_a_tree_has_every_token_once_and_every_path_is_its_rollout(rollouts: list[Rollout]) -> None:
    tree = tree_of(rollouts)
    for one, prompt, response in zip(rollouts, tree.prompts, tree.responses, strict=True):
        text, node = (), response or prompt
        while node is not None:
            assert node.depth == (0 if node.parent is None else node.parent.path)
            assert node in tree.nodes
            text, node = node.tokens + text, node.parent
        assert text == one.prompt_ids + (one.response_ids[:-1] if len(one.response_ids) > 1 else ())
    order = {id(node): place for place, node in enumerate(tree.nodes)}
    assert all(node.parent is None or order[id(node.parent)] < order[id(node)] for node in tree.nodes)
    assert all(node.tokens for node in tree.nodes)


def test_common_starts_stand_once() -> None:
    rollouts = some()
    tree = tree_of(rollouts)
    prompts = {r.prompt_ids for r in rollouts}
    responses = sum(max(len(r.response_ids) - 1, 0) for r in rollouts)
    assert tree.tokens == len(FEW_SHOT) + sum(len(p) - len(FEW_SHOT) for p in prompts) + responses
    alone = [rollout([9], [1, 2]), rollout([8] * SHORTEST, [1]), rollout([*[8] * (SHORTEST - 1), 1], [])]
    assert tree_of(alone).tokens == 1 + SHORTEST + SHORTEST + 1, "fewer than SHORTEST tokens in common are no node"


def test_micro_batches_keep_what_is_shared_and_hold_to_their_budget() -> None:
    rollouts = some(problems=6)
    rows = list(range(len(rollouts)))
    parts = micro_batches(rollouts, rows, 90, "cpu")
    assert sorted(row for part in parts for row in part.rows) == rows
    assert len(parts) > 1
    for part in parts:
        assert part.input_ids.shape[1] == tree_of([rollouts[i] for i in part.rows]).tokens <= 90
    apart = [rollout([i] * 3, [1, 2, 3]) for i in range(5)]
    assert not saves_enough(apart, range(5))
    assert [part.packing.paths for part in micro_batches(apart, range(5), 90, "cpu")] == [None]
    (alone,) = micro_batches(rollouts[:1], [0], 1, "cpu")
    assert alone.rows == (0,)


@settings(max_examples=100)
@given(rollout_sets(), st.integers(1, 60))
def test_no_group_computes_more_than_its_budget(rollouts: list[Rollout], tokens: int) -> None:
    groups = grouped_by_tree(rollouts, range(len(rollouts)), tokens)
    assert sorted(i for group in groups for i in group) == list(range(len(rollouts)))
    for group in groups:
        assert len(group) == 1 or tree_of([rollouts[i] for i in group]).tokens <= tokens


def test_entropy_critic_and_checkpointing_are_the_same(model) -> None:
    rollouts = some()
    batches = [packed(rollouts, range(len(rollouts)), "cpu") for packed in (pack, pack_tree)]
    entropies = [score_and_entropy(model, batch)[1] for batch in batches]
    torch.testing.assert_close(*entropies, rtol=1e-12, atol=1e-12)
    critic = Critic(model)
    torch.nn.init.normal_(critic.head.weight)
    torch.testing.assert_close(*(critic(batch) for batch in batches), rtol=1e-12, atol=1e-12)
    recomputing = copy.deepcopy(model)
    recomputing.gradient_checkpointing_enable()
    assert_same([both(model, rollouts)[0], both(recomputing, rollouts)[1]])


def test_a_path_longer_than_a_window_is_refused() -> None:
    from suite.policy.packed_attention import packed_attention
    from suite.types import UserError

    batch = pack_tree(some(), range(12), "cpu")
    states = [torch.zeros(1, 1, batch.input_ids.shape[1], 4) for _ in range(3)]
    packed_attention(None, *states, None, packing=batch.packing, sliding_window=batch.packing.longest)
    with pytest.raises(UserError, match="attention window"):
        packed_attention(None, *states, None, packing=batch.packing, sliding_window=batch.packing.longest - 1)
