"""A rollout set is a file: what goes in comes out, the same content is the same bytes, damage is refused by name."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from small_world import small_config, small_source
from suite.config import PROTOCOL
from suite.records.rollout_set import RolloutSet
from suite.types import FinishReason, Rollout, UserError, Verdict

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def recorded() -> RolloutSet:
    return small_source(small_config()).record(2)


def test_what_is_written_is_read(recorded: RolloutSet, tmp_path: Path) -> None:
    path = recorded.write(tmp_path)
    again = RolloutSet.read(path)
    assert path.stem == recorded.digest == again.digest
    assert again.rollouts == tuple(
        dataclasses.replace(r, sampler_log_probs=tuple(r.sampler_log_probs)) for r in recorded.rollouts
    )
    assert again.header["step"] == 2
    for key in ("run_seed", "tasks", "digests", "sampling", "versions", "schema"):
        assert key in again.header


def test_odd_rollouts_survive(tmp_path: Path) -> None:
    rows = (
        Rollout("p/ü|1", 0, -(2**63), (1,), (2,), (-0.5,), FinishReason.LENGTH),
        Rollout("p/2", 3, 2**63 - 1, (1, 2, 3), (4, 5), (-1.25, -0.0), FinishReason.STOP, Verdict.UNDECIDED, 0.0),
    )
    assert RolloutSet.read(RolloutSet({}, rows).write(tmp_path)).rollouts == rows


def test_the_same_content_is_the_same_bytes(recorded: RolloutSet) -> None:
    again = small_source(small_config()).record(2)
    assert again.to_bytes() == recorded.to_bytes()
    shorter = dataclasses.replace(recorded, rollouts=recorded.rollouts[:-1])
    assert shorter.digest != recorded.digest


@pytest.mark.parametrize("damage", ["cut", "flip", "foreign"])
def test_a_damaged_file_is_refused_by_name(recorded: RolloutSet, tmp_path: Path, damage: str) -> None:
    path = recorded.write(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(data[:-7])
    elif damage == "flip":
        data[-3] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes(b"not a rollout set")
    with pytest.raises(UserError, match=f"{path.name}: altered or truncated"):
        RolloutSet.read(path)


def test_the_protocol_is_written_down_once_more_beside_the_results() -> None:
    assert (ROOT / "results" / "PROTOCOL").read_text().strip() == str(PROTOCOL)
