"""Problems that a training set and an evaluation set share, found before anything is trained.

**Exact**: equal by `tasks.text.plain`, that is without markup, case, spacing and a request for another form of the
answer, whatever the answers are: a reworded request changes the answer, not what is learnt. **Near**: the same answer,
and a text similarity of at least `SIMILAR`: the larger of the share of both texts that matches and the share of the
shorter text that stands in the longer one in pieces of at least `PIECE` characters (one of the two asks for something
more).

Source: ours. Only pairs that share `SHARED` of their runs of `RUN` characters are compared: one substitution in ten
characters, or pieces that cover nine tenths of a text, leave more than that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from suite.types import Problem
from tasks.text import plain

SIMILAR = 0.9
PIECE = 8
RUN = 5
SHARED = 0.3
_ANSWER_MARKUP = re.compile(r"\\(?:left|right)(?![A-Za-z])|\\text\{([^}]*)\}|\\[!,; ]|\^\{?\\circ\}?|[\s$]|\.\Z")


@dataclass(frozen=True)
class Overlap:
    """One pair of problems; `kind` is "exact" or "near", `similarity` is 1 for exact ones."""

    train: Problem
    evaluation: Problem
    kind: str
    similarity: float


def overlaps(train: Sequence[Problem], evaluation: Sequence[Problem]) -> list[Overlap]:
    """Every pair that overlaps, in the order of the training problems."""
    if not train or not evaluation:
        return []
    asked, known = [plain(p.prompt) for p in train], [plain(p.prompt) for p in evaluation]
    found = []
    for i, j in _candidates(asked, known):
        if asked[i] == known[j]:
            found.append(Overlap(train[i], evaluation[j], "exact", 1.0))
        elif same_answer(train[i].gold, evaluation[j].gold):
            likeness = similarity(asked[i], known[j])
            if likeness >= SIMILAR:
                found.append(Overlap(train[i], evaluation[j], "near", likeness))
    return found


def counts(found: Sequence[Overlap]) -> dict[str, dict[str, int]]:
    """How many training problems of a pair of sets overlap: `"set / evaluation set"` to exact and near only."""
    kinds: dict[tuple[str, str], dict[str, str]] = {}
    for pair in found:
        problems = kinds.setdefault((pair.train.task, pair.evaluation.task), {})
        if problems.get(pair.train.id) != "exact":
            problems[pair.train.id] = pair.kind
    tally = {key: Counter(problems.values()) for key, problems in kinds.items()}
    return {f"{a} / {b}": {kind: count[kind] for kind in ("exact", "near")} for (a, b), count in tally.items()}


def similarity(one: str, other: str) -> float:
    """How alike two plain texts are, from 0 to 1: max(2 M / (n + m), P / min(n, m)).

    M is the number of characters in matching blocks, P of those in blocks of at least PIECE characters.
    """
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    pieces = sum(block.size for block in matcher.get_matching_blocks() if block.size >= PIECE)
    return max(matcher.ratio(), pieces / max(1, min(len(one), len(other))))


def same_answer(one: str, other: str) -> bool:
    """Whether two gold answers read the same without markup and spacing: text, never computer algebra."""
    return _bare_answer(one) == _bare_answer(other)


def _bare_answer(text: str) -> str:
    text = _ANSWER_MARKUP.sub(lambda found: found[1] or "", text.strip())
    return re.sub(r"\\[dt]frac", r"\\frac", text).lower()


def _candidates(asked: Sequence[str], known: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of rows that share at least SHARED of the distinct runs of the one that has fewer."""
    from scipy.sparse import csr_array

    mine, theirs = [_runs(text) for text in asked], [_runs(text) for text in known]
    vocabulary = np.unique(np.concatenate(theirs))

    def incidence(rows: list[np.ndarray]) -> Any:
        flat = np.concatenate(rows)
        owner = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
        column = np.minimum(np.searchsorted(vocabulary, flat), len(vocabulary) - 1)
        hit = vocabulary[column] == flat
        ones = np.ones(int(hit.sum()), dtype=np.int32)
        return csr_array((ones, (owner[hit], column[hit])), shape=(len(rows), len(vocabulary)))

    shared = (incidence(mine) @ incidence(theirs).T).tocoo()
    sizes = [np.array([len(row) for row in rows]) for rows in (mine, theirs)]
    rows, columns = shared.coords
    enough = shared.data >= SHARED * np.minimum(sizes[0][rows], sizes[1][columns])
    pairs = sorted(zip(rows[enough].tolist(), columns[enough].tolist(), strict=True))
    return iter(pairs)


def _runs(text: str) -> np.ndarray:
    """The distinct runs of RUN characters, each packed into 64 bits; a shorter text is one run."""
    codes = np.frombuffer(text.encode("ascii").ljust(RUN, b"\0"), dtype=np.uint8).astype(np.uint64)
    count = len(codes) - RUN + 1
    packed = np.zeros(count, dtype=np.uint64)
    for offset in range(RUN):
        packed = packed << np.uint64(8) | codes[offset : offset + count]
    return np.unique(packed)
