"""Another trainer's micro-batches as a bank: every number in its place, several processes in one folder."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from suite.records.bank import Bank
from suite.records.other_runs import OwnRun, SeenRows, facts_of, log_of, numbered, trainer_of
from suite.types import UserError

FACTS = facts_of(("lib", "1.0", "Trainer"), "grpo", {"epsilon": 0.2}, ["the weather"], every=1)


def rows(update: int = 0, **changes: Any) -> SeenRows:
    """Three responses of 2, 0 and 3 tokens; the second one's and a gap in the third are masked. Padding is garbage."""
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 1, 1]])
    new = torch.arange(12.0).reshape(3, 4).masked_fill(mask == 0, torch.nan)
    given = {
        "update": update,
        "log_probs": new,
        "old_log_probs": new - 0.5,
        "mask": mask,
        "advantages": torch.tensor([1.0, 2.0, -3.0]),
        "rewards": torch.tensor([0.1, 0.2, 0.3]),
        "truncated": torch.tensor([False, False, True]),
        "prompts": torch.tensor([7, 7, 2**63 - 1]),
    }
    return SeenRows(**{**given, **changes})


def test_every_number_stands_with_its_response():
    log = log_of([rows(0), rows(1)], seed=4, step=9)
    assert log.lengths.tolist() == [2, 3, 2, 3]
    assert log.log_probs.tolist() == [0, 1, 8, 10, 11] * 2
    assert log.log_ratios.tolist() == [0.5] * 10
    assert log.advantage.tolist() == [1, -3, 1, -3]
    assert log.reward.tolist() == pytest.approx([0.1, 0.3] * 2)
    assert log.truncated.tolist() == [False, True] * 2
    assert (log.update.tolist(), set(log.seed), set(log.step)) == ([0, 0, 1, 1], {4}, {9})
    assert log.problem_ids.tolist() == ["0000000000000007", "7fffffffffffffff"] * 2


def test_advantages_of_tokens_are_taken_where_they_are_a_responses():
    spread = torch.tensor([[5.0, 5, 0, 0], [0, 0, 0, 0], [-1, 9, -1, -1]])
    assert log_of([rows(advantages=spread)], 0, 0).advantage.tolist() == [5, -1]
    assert log_of([rows(advantages=torch.tensor([[1.0], [2.0], [3.0]]))], 0, 0).advantage.tolist() == [1, 3]
    spread[2, 3] = -2
    with pytest.raises(UserError, match="advantages differ within a response"):
        log_of([rows(advantages=spread)], 0, 0)


def test_half_precision_is_widened_and_nothing_to_count_is_refused():
    half = rows(log_probs=torch.full((3, 4), -0.3, dtype=torch.bfloat16))
    assert log_of([half], 0, 0).log_probs.dtype == np.float32
    with pytest.raises(UserError, match="step 3: no response has a token that counts"):
        log_of([rows(mask=torch.zeros(3, 4))], 0, 3)


def test_a_number_depends_on_what_counts_alone():
    tokens = torch.tensor([[1, 2, 3], [9, 2, 3], [1, 2, 4]])
    mask = torch.tensor([[0, 1, 1]] * 3)
    first, second, third = numbered(tokens, mask).tolist()
    assert first == second != third
    assert min(first, third) >= 0


def record(folder: Path, rank: int, steps: int) -> None:
    run = OwnRun(folder, f"run-rank{rank}", rank, {**FACTS, "process": rank})
    for step in range(steps):
        run.step = step
        run.rows.append(rows(0))
        run.rows.append(rows(1))
        run.write()
        run.write()  # nothing is kept any more


def test_processes_write_their_own_parts_of_one_bank(tmp_path: Path):
    fork = multiprocessing.get_context("fork")
    running = [fork.Process(target=record, args=(tmp_path / "bank", rank, 8)) for rank in (0, 1)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0, 0]
    bank = Bank.open(tmp_path / "bank")
    bank.check()
    log = bank.updates()
    for rank in (0, 1):
        mine = log.rows(log.cells == f"run-rank{rank}")
        assert mine.step.tolist() == [step for step in range(8) for _ in range(4)]
        assert bank.recordings[f"run-rank{rank}"]["process"] == rank
    assert trainer_of(bank.recordings["run-rank0"]) == "lib 1.0 Trainer"
    assert trainer_of({"driver": {}}) is None


def test_a_recording_goes_on_but_is_never_mixed_or_replaced(tmp_path: Path):
    run = OwnRun(tmp_path, "run", 0, FACTS)
    run.rows.append(rows())
    run.write()
    run.rows.append(rows())
    before = (tmp_path / "manifest.json").read_bytes()
    with pytest.raises(UserError, match="another recording run already"):
        run.write()  # the same step once more
    run.step, run.facts = 1, {**FACTS, "loss": "dapo"}
    with pytest.raises(UserError, match="another recording run already"):
        run.write()
    assert (tmp_path / "manifest.json").read_bytes() == before
    with pytest.raises(UserError, match="holds the recording run already"):
        OwnRun(tmp_path, "run", 0, FACTS)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(UserError, match="not empty and no bank"):
        OwnRun(tmp_path / "other", "run", 0, FACTS)
