"""Prompts computed once: what the rollouts of a micro-batch begin with, as a tree in which nothing stands twice.

A few-shot start is common to all prompts, a problem's prompt to all of its responses. As a tree of nodes (common
start, rest of a prompt, response), laid one behind the other in a row, every token attends to the nodes on its path
and, causally, to its own: the same hidden states as sequence by sequence, from a fraction of the tokens. Prefix sharing
is known from inference engines and, in training, from Prefix Grouper (arXiv 2506.05433); this layout is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from suite.types import Rollout

SHORTEST = 8
"""Fewest tokens that are worth a node of their own: random words in common would cut prompts into crumbs."""
SAVING = 0.4
"""Share of the tokens that a tree must save to be used: few-shot prompts save more, bare questions less, for which the
layout of sequences is simpler and takes fewer calls."""

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Node:
    """Some tokens, the node whose end they follow (None at a root), and how many tokens are on the path before them."""

    tokens: Tokens
    parent: Node | None
    depth: int

    @property
    def path(self) -> int:
        """Tokens from the root to the end of this node."""
        return self.depth + len(self.tokens)


@dataclass(frozen=True)
class Tree:
    """The nodes of some rollouts in the order in which they are laid out, parents before children.

    prompts: the node in which each rollout's prompt ends; responses: the node of each response without its last token,
    which predicts nothing, or None for a response of one token or of none.
    """

    nodes: tuple[Node, ...]
    prompts: tuple[Node, ...]
    responses: tuple[Node | None, ...]

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return sum(len(node.tokens) for node in self.nodes)


def tree_of(rollouts: Sequence[Rollout]) -> Tree:
    """The tree of these rollouts; nodes of one path length and size are neighbours."""
    ends = _prompt_ends(sorted({rollout.prompt_ids for rollout in rollouts}), 0, None)
    prompts = tuple(ends[rollout.prompt_ids] for rollout in rollouts)
    responses = tuple(
        Node(rollout.response_ids[:-1], end, end.path) if len(rollout.response_ids) > 1 else None
        for rollout, end in zip(rollouts, prompts, strict=True)
    )
    found: dict[int, Node] = {}
    for node in (*prompts, *(node for node in responses if node is not None)):
        here: Node | None = node
        while here is not None and id(here) not in found:
            found[id(here)] = here
            here = here.parent
    return Tree(tuple(sorted(found.values(), key=lambda node: (node.path, len(node.tokens)))), prompts, responses)


def _prompt_ends(prompts: Sequence[Tokens], depth: int, parent: Node | None) -> dict[Tokens, Node]:
    """The node in which each of the sorted, distinct prompts ends; all agree in their first `depth` tokens."""
    common = _agreeing(prompts[0], prompts[-1])
    if len(prompts) > 1 and common - depth >= SHORTEST:
        parent = Node(prompts[0][depth:common], parent, depth)
        depth = common
    ends: dict[Tokens, Node] = {}
    for group in _neighbours(prompts, depth):
        if len(group) > 1:
            ends |= _prompt_ends(group, depth, parent)
        elif len(group[0]) == depth and parent is not None:
            ends[group[0]] = parent
        else:
            ends[group[0]] = Node(group[0][depth:], parent, depth)
    return ends


def _neighbours(prompts: Sequence[Tokens], depth: int) -> list[list[Tokens]]:
    """Sorted prompts in runs that have SHORTEST tokens in common behind the first `depth`."""
    runs = [[prompts[0]]]
    for before, here in pairwise(prompts):
        if _agreeing(before, here) - depth >= SHORTEST:
            runs[-1].append(here)
        else:
            runs.append([here])
    return runs


def _agreeing(one: Tokens, other: Tokens) -> int:
    """How many tokens two prompts begin with in common."""
    count = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        count += 1
    return count


def saves_enough(rollouts: Sequence[Rollout], rows: Sequence[int]) -> bool:
    """Whether the tree of these rows saves enough to be used."""
    plain = sum(len(rollouts[i].prompt_ids) + len(rollouts[i].response_ids) for i in rows)
    return tree_of([rollouts[i] for i in rows]).tokens <= (1 - SAVING) * plain


def by_common_starts(rollouts: Sequence[Rollout], rows: Sequence[int]) -> list[int]:
    """The rows in an order in which those with a common start are neighbours."""
    return sorted(rows, key=lambda i: (rollouts[i].prompt_ids, len(rollouts[i].response_ids), i))


def grouped_by_tree(rollouts: Sequence[Rollout], rows: Sequence[int], tokens: int) -> list[list[int]]:
    """The rows cut into groups whose trees have at most `tokens` tokens, or one row.

    Rows with a common start are neighbours, so that a cut repeats as little of it as it can.
    """
    groups: list[list[int]] = []
    for i in by_common_starts(rollouts, rows):
        if not groups or tree_of([rollouts[j] for j in (*groups[-1], i)]).tokens > tokens:
            groups.append([])
        groups[-1].append(i)
    return groups
