"""The batches that both sides judge: plain numbers, the same in every environment. Standard library only."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from random import Random

ROWS, TOKENS = 6, 7
MAX_NEW_TOKENS = 11
"""The "constant" divisor's length; not the padded width, so that the two cannot be mistaken for each other."""

Matrix = list[list[float]]


@dataclass(frozen=True)
class Batch:
    """Six ragged responses, padded on the right with finite garbage; decimals, so that JSON keeps them exactly."""

    log_probs: Matrix
    old_log_probs: Matrix
    mask: list[list[int]]
    advantages: list[float]
    token_advantages: Matrix
    values: Matrix
    old_values: Matrix
    returns: Matrix
    rewards: list[float]
    groups: list[int]


def _matrix(draw: Random, scale: float) -> Matrix:
    return [[round(draw.gauss(0, scale), 6) for _ in range(TOKENS)] for _ in range(ROWS)]


def _batch(seed: int, scales: tuple[float, ...], depth: float, binary: bool) -> Batch:
    """Token log ratios of the given spread (one a row, cycled) on old log-probs of the given depth, all below 0."""
    draw = Random(seed)
    lengths = [7, 5, 3, 1, 6, 4]
    draw.shuffle(lengths)
    mask = [[int(t < length) for t in range(TOKENS)] for length in lengths]
    old = [[round(-0.01 - abs(draw.gauss(0, depth)), 6) for _ in range(TOKENS)] for _ in range(ROWS)]
    steps = [[draw.gauss(0, scales[i % len(scales)]) for _ in range(TOKENS)] for i in range(ROWS)]
    new = [[round(min(q + x, -0.001), 6) for q, x in zip(*row, strict=True)] for row in zip(old, steps, strict=True)]
    advantages = [round((1 if i % 2 else -1) * draw.uniform(0.2, 2), 3) for i in range(ROWS)]
    advantages[seed % ROWS] = 0.0
    token_advantages = _matrix(draw, 1.0)
    token_advantages[1][0] = 0.0
    return Batch(
        log_probs=new,
        old_log_probs=old,
        mask=mask,
        advantages=advantages,
        token_advantages=token_advantages,
        values=_matrix(draw, 1.0),
        old_values=_matrix(draw, 1.0),
        returns=_matrix(draw, 1.0),
        rewards=[float(draw.randint(0, 1)) if binary else round(draw.gauss(0, 2), 3) for _ in range(ROWS)],
        groups=[5, 9, 5, 9, 9, 5],
    )


REGULAR: dict[str, Batch] = {
    "still": _batch(1, (4e-4,), 0.7, binary=True),
    "narrow": _batch(2, (4e-3,), 0.7, binary=False),
    "middle": _batch(3, (0.05,), 0.7, binary=True),
    "wide": _batch(4, (0.4,), 0.7, binary=False),
    "wild": _batch(131, (2.5,), 5.0, binary=False),
    "mixed": _batch(6, (3e-4, 4e-3, 0.03, 0.3, 1.0, 2.0), 2.0, binary=True),
}
"""One spread after the other: between them they reach both sides of every band (a test says so)."""


def _with_log_ratios(batch: Batch, rows: dict[int, tuple[float, float, float]]) -> Batch:
    """The batch with some rows' advantage, old and new log-prob of every token replaced."""
    new, old, advantages = [list(r) for r in batch.log_probs], [list(r) for r in batch.old_log_probs], batch.advantages
    for row, (_, q, p) in rows.items():
        new[row], old[row] = [p] * TOKENS, [q] * TOKENS
    advantages = [rows[i][0] if i in rows else a for i, a in enumerate(advantages)]
    return dataclasses.replace(batch, log_probs=new, old_log_probs=old, advantages=advantages)


def _single_token(batch: Batch, row: int, advantage: float, old: float, new: float) -> Batch:
    """The batch with one row's advantage and its first token's log-probs replaced."""
    changed = _with_log_ratios(batch, {row: (advantage, old, new)})
    keep = [list(r) for r in batch.log_probs], [list(r) for r in batch.old_log_probs]
    keep[0][row][0], keep[1][row][0] = new, old
    return dataclasses.replace(changed, log_probs=keep[0], old_log_probs=keep[1])


MIDDLE = REGULAR["middle"]
SPECIAL: dict[str, Batch] = {
    # Token log ratios of +25 and -25, and a response whose mean log ratio is 12: beyond every clamp of the peers.
    "far": _with_log_ratios(
        _single_token(MIDDLE, 4, -0.7, -26.0, -1.0), {1: (0.5, -1.0, -26.0), 2: (-0.4, -13.0, -1.0)}
    ),
    # Every S below log(1e-8) = -18.42.
    "sunk": _with_log_ratios(MIDDLE, {i: (0.5 - 0.3 * i, -1.0, -20.0 - i / 8) for i in range(ROWS)}),
    # A token that becomes certain up to 1e-12, with a binary KL of .0625.
    "certain": _single_token(MIDDLE, 4, 0.7, -0.003, -1e-12),
    # A response without counted tokens.
    "empty": dataclasses.replace(MIDDLE, mask=[[0] * TOKENS if i == 2 else row for i, row in enumerate(MIDDLE.mask)]),
    # A group of one.
    "single": dataclasses.replace(REGULAR["narrow"], groups=[5, 9, 5, 9, 7, 5]),
}
"""One batch for each departure that no ordinary batch reaches."""

BATCHES: dict[str, Batch] = {**REGULAR, **SPECIAL}
