"""Packed comparisons read back as they were, whatever the runs hold, and an altered file is refused by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from suite.config import PROTOCOL
from suite.records.packed import CURVES, RUNS, UPDATES, VERDICTS, is_finished, pack_results, read_result, read_updates
from suite.records.result import FILE, write_result
from suite.records.update_log import UpdateLog
from suite.types import EvalResult, RunResult, UserError, Verdict


def evaluated(task: str, seed: int) -> EvalResult:
    rng = np.random.default_rng(seed)
    problems, samples = int(rng.integers(1, 6)), int(rng.integers(1, 4))
    verdicts = tuple(tuple(rng.choice(list(Verdict), samples)) for _ in range(problems))
    lengths = tuple(tuple(int(n) for n in rng.integers(0, 99, samples)) for _ in range(problems))
    ids = tuple(f"{task}/{i}" for i in rng.permutation(problems))
    return EvalResult(task, "1", f"digest {seed}", ids, tuple(tuple(map(Verdict, v)) for v in verdicts), lengths, 0.25)


def comparison(folder: Path) -> dict[str, RunResult]:
    """A base, and two cells whose curves have gaps and different numbers of steps."""
    found = {}
    for i, name in enumerate(("base", "cells/one-seed0", "cells/two-seed3")):
        curves = {"reward": [0.5, None, 1e-17 * i], "loss": [float(i)] * i} if i else {}
        evals = tuple(evaluated(task, 10 * i + k) for k, task in enumerate(("sums", "long sums")))
        result = RunResult(
            PROTOCOL, name, i, {"steps": 3}, evals, curves, {"model": "ab"}, {"seconds/x": 1.5}, {"os": "x"}
        )
        write_result(result, folder / name)
        found[name] = result
    return found


def updates(step: int) -> UpdateLog:
    rng = np.random.default_rng(step)
    lengths = rng.integers(1, 7, 5)
    tokens = int(lengths.sum())
    return UpdateLog(
        problem_ids=np.array([f"p{i % 2}" for i in range(5)]),
        seed=np.array(3),
        step=np.array(step),
        update=np.arange(5) // 2,
        reward=rng.random(5),
        advantage=rng.normal(size=5),
        truncated=rng.random(5) < 0.5,
        lengths=lengths,
        log_probs=-rng.random(tokens),
        old_log_probs=-rng.random(tokens),
    )


def test_results_read_back_as_they_were(tmp_path: Path) -> None:
    results = comparison(tmp_path)
    pack_results(tmp_path)
    assert not list(tmp_path.rglob(FILE))
    for name, result in results.items():
        assert read_result(tmp_path / name) == result
        assert is_finished(tmp_path / name)
    assert not is_finished(tmp_path / "cells/three-seed0")


def test_the_same_runs_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        comparison(tmp_path / name)
        pack_results(tmp_path / name)
    for file in (RUNS, VERDICTS, CURVES):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_runs_that_were_added_are_packed_beside_the_others(tmp_path: Path) -> None:
    """In two goes the same bytes as in one; what was noted of a log before stays, so that its change is noticed."""
    results = {name: comparison(tmp_path / name) for name in ("once", "twice")}["twice"]
    pack_results(tmp_path / "once")
    later = tmp_path / "twice" / "cells" / "one-seed0"
    later.rename(tmp_path / "later")
    cell = tmp_path / "twice" / "cells" / "two-seed3"
    (cell / "updates").mkdir()
    for step in range(3):
        updates(step).save(cell / "updates" / f"step-{step:05d}.safetensors")
    pack_results(tmp_path / "twice")
    noted = json.loads((tmp_path / "twice" / RUNS).read_text())["updates"]
    assert list(noted) == ["cells/two-seed3"]
    (cell / UPDATES).write_bytes((cell / UPDATES).read_bytes()[:-1] + b"x")
    (tmp_path / "later").rename(later)
    pack_results(tmp_path / "twice")
    for file in (VERDICTS, CURVES):
        assert (tmp_path / "once" / file).read_bytes() == (tmp_path / "twice" / file).read_bytes()
    once, twice = (json.loads((tmp_path / name / RUNS).read_text()) for name in ("once", "twice"))
    assert (twice["runs"], twice["updates"]) == (once["runs"], noted)
    assert {name: read_result(tmp_path / "twice" / name) for name in results} == results
    with pytest.raises(UserError, match="altered, or not listed"):
        read_updates(cell)


def test_update_logs_become_one_file_bit_for_bit(tmp_path: Path) -> None:
    comparison(tmp_path)
    cell = tmp_path / "cells" / "one-seed0"
    logs = [updates(step) for step in range(3)]
    (cell / "updates").mkdir()
    for step, log in enumerate(logs):
        log.save(cell / "updates" / f"step-{step:05d}.safetensors")
    assert cell / UPDATES in pack_results(tmp_path)
    found, whole = read_updates(cell), UpdateLog.concat(logs)
    for name in (
        "problem_ids",
        "seed",
        "step",
        "update",
        "reward",
        "truncated",
        "lengths",
        "log_probs",
        "old_log_probs",
    ):
        assert np.array_equal(getattr(found, name), getattr(whole, name)), name
    assert not (cell / "updates").exists()


def test_an_altered_verdict_or_curve_is_refused(tmp_path: Path) -> None:
    comparison(tmp_path)
    pack_results(tmp_path)
    for file, column, other in ((VERDICTS, "length", 1000), (CURVES, "value", 0.75)):
        path = tmp_path / file
        kept, table = path.read_bytes(), pq.read_table(path)
        numbers = [other, *table.column(column).to_pylist()[1:]]
        changed = table.set_column(table.column_names.index(column), column, [numbers])
        pq.write_table(changed, path)
        (tmp_path / RUNS).touch()  # what was read before is read again
        with pytest.raises(UserError, match="altered after it was written"):
            [read_result(tmp_path / name) for name in ("base", "cells/one-seed0")]
        path.write_bytes(kept)


def test_what_is_no_packed_comparison_is_refused_by_name(tmp_path: Path) -> None:
    comparison(tmp_path)
    pack_results(tmp_path)
    content = json.loads((tmp_path / RUNS).read_text())
    (tmp_path / RUNS).write_text(json.dumps({**content, "schema": "another"}))
    with pytest.raises(UserError, match=r"runs\.json: no packed runs of this suite"):
        read_result(tmp_path / "base")
    with pytest.raises(UserError, match=r"no result\.json to pack"):
        pack_results(tmp_path / "cells")
