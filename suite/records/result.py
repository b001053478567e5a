"""A finished cell on disk: result.json, with a digest over everything that must not change from run to run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from suite.config import PROTOCOL
from suite.records.costs import COSTS
from suite.records.files import digest_of, write_atomically
from suite.types import EvalResult, RunResult, UserError, Verdict

OUTSIDE_DIGEST = ("costs", "environment")
FILE = "result.json"
REST = "digest_of_costs_and_environment"

BASE = "base"


def curves_of(log: Sequence[Mapping[str, float]]) -> dict[str, list[float | None]]:
    """One list a logged number, one entry a step; None where a step does not have it. Costs are left out."""
    names = dict.fromkeys(name for row in log for name in row if name != "step" and not name.startswith(COSTS))
    return {name: [None if (x := row.get(name)) is None or x != x else x for row in log] for name in names}


def end_steps(steps: int) -> int:
    """How many steps at each end of a run are compared: three, in a short run as many as do not overlap, at least 1."""
    return max(1, min(3, steps // 2))


def ends(values: Sequence[float]) -> tuple[float, float]:
    """The mean of a curve's first `end_steps` values and that of its last; of a single step nan: nothing to compare.

    >>> ends([1, 2, 3, 5]), ends([1])
    ((1.5, 4.0), (nan, nan))
    """
    n = end_steps(len(values))
    return (float(np.mean(values[:n])), float(np.mean(values[-n:]))) if len(values) > 1 else (np.nan, np.nan)


def mean_accuracy(evals: Sequence[EvalResult]) -> float:
    """Mean over the sets of the share of correct responses."""
    shares = []
    for result in evals:
        verdicts = [v for row in result.verdicts for v in row]
        shares.append(sum(v == Verdict.CORRECT for v in verdicts) / len(verdicts))
    return sum(shares) / len(shares)


def digest(result: RunResult) -> str:
    """sha256 over protocol, method, seed, config, evaluations, curves and digests; costs and environment stay out."""
    content = dataclasses.asdict(result)
    return digest_of({key: value for key, value in content.items() if key not in OUTSIDE_DIGEST})


def digest_of_the_rest(result: RunResult) -> str:
    """sha256 over costs and environment, which no two runs have in common, so that a change of them is noticed too."""
    return digest_of({name: getattr(result, name) for name in OUTSIDE_DIGEST})


def digests(result: RunResult) -> dict[str, str]:
    """What a stored result says of itself."""
    return {"digest": digest(result), REST: digest_of_the_rest(result)}


def write_result(result: RunResult, folder: Path) -> None:
    """Write result.json with the result's digests."""
    content = {**dataclasses.asdict(result), **digests(result)}
    write_atomically(folder / FILE, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_file(path: Path, content: dict[str, Any] | None = None) -> RunResult:
    """A result from its file (or its `content`, read already), checked against its digest.

    Another protocol, a broken file or an altered one raises UserError, which names the path.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if content is None else content
        assert content is not None
        expected = content.pop("digest")
        rest = content.pop(REST, None)  # results of older versions have none
        check_protocol(content["protocol"], path)
        content["evals"] = tuple(_eval(e) for e in content["evals"])
        result = RunResult(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a result of this suite ({error}); move it away to make it again") from error
    if digest(result) != expected or rest not in (None, digest_of_the_rest(result)):
        raise UserError(f"{path}: altered after it was written (its digest differs); move it away to make it again")
    return result


def check_protocol(found: Any, path: Path) -> None:
    """Refuse results whose numbers mean something else than this version's."""
    if found != PROTOCOL:
        raise UserError(
            f"{path}: results of protocol {found}, this version writes protocol {PROTOCOL}; choose another --out folder"
        )


def _eval(content: dict[str, Any]) -> EvalResult:
    return EvalResult(
        task=content["task"],
        task_version=content["task_version"],
        data_digest=content["data_digest"],
        problem_ids=tuple(content["problem_ids"]),
        verdicts=tuple(tuple(Verdict(v) for v in row) for row in content["verdicts"]),
        lengths=tuple(tuple(row) for row in content["lengths"]),
        truncated_share=content["truncated_share"],
    )
