"""What a recorded policy loss of verl leaves in a bank, called as verl calls it, on recorded batches; without verl."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from fspo.plugins import verl_record
from fspo.plugins.verl_record import Asked, RecordedLosses, asked
from peers.batches import BATCHES, Batch
from suite.experiments.names import METHODS
from suite.records.bank import Bank
from suite.replay.one_method import clip_rate
from suite.types import UserError


def clipped_loss(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """A loss with verl's signature, and its share of clipped tokens; of float64 where that is given."""
    ratio = (log_prob - old_log_prob).exp()
    clipped = ((ratio > 1.2) & (advantages > 0) | (ratio < 0.8) & (advantages < 0)) & response_mask
    loss = -(torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages) * response_mask).sum()
    return loss, {"clipped": float(clipped.sum()), "tokens": float(response_mask.sum())}


def config(whole: int | None = 6, parts: int = 1) -> SimpleNamespace:
    """As much of verl's actor config as a loss reads."""
    info = {"global_batch_size": whole, "dp_size": parts, "batch_num_tokens": 26}
    return SimpleNamespace(global_batch_info=info, clip_ratio=0.2, ppo_epochs=2, policy_loss={"loss_mode": "mine"})


def told(loss: Any, batch: Batch, rows: list[int], info: Any, grad: bool = True) -> tuple[Tensor, dict[str, float]]:
    new = torch.tensor(batch.log_probs)[rows].requires_grad_(grad)
    mask = torch.tensor(batch.mask)[rows].bool()
    spread = torch.tensor(batch.advantages)[rows][:, None] * mask
    return loss(
        old_log_prob=torch.tensor(batch.old_log_probs)[rows],
        log_prob=new,
        advantages=spread,
        response_mask=mask,
        loss_agg_mode="token-mean",
        config=info,
        rollout_is_weights=None,
    )


def recorded(folder: Path, **changes: Any) -> tuple[RecordedLosses, Any]:
    losses = RecordedLosses(Asked(folder, **{"updates": 2, "limit": 7, **changes}))
    registry = {"mine": clipped_loss}
    losses.wrap_all(registry)
    return losses, registry["mine"]


def test_micro_batches_of_two_rollouts(tmp_path: Path):
    """Two optimizer steps a rollout, in micro-batches of any size; the log-probs are the loss's, to the last bit."""
    _, loss = recorded(tmp_path / "bank")
    names = ("middle", "wide", "middle", "mixed")
    for name in names:
        for rows in ([0], [1, 2, 3], [4, 5]):
            answer = told(loss, BATCHES[name], rows, config())
            assert answer == told(clipped_loss, BATCHES[name], rows, config())
    bank = Bank.open(tmp_path / "bank")
    log = bank.updates()
    assert log.step.tolist() == [0] * 12 + [1] * 12
    assert log.update.tolist() == ([0] * 6 + [1] * 6) * 2
    masks = [torch.tensor(BATCHES[name].mask).bool() for name in names]
    for field in ("log_probs", "old_log_probs"):
        wanted = [torch.tensor(getattr(BATCHES[n], field))[m] for n, m in zip(names, masks, strict=True)]
        np.testing.assert_array_equal(getattr(log, field), torch.cat(wanted).numpy())
    np.testing.assert_array_equal(log.advantage[:6], np.float32(BATCHES["middle"].advantages))
    np.testing.assert_array_equal(log.truncated, log.lengths == 7)
    assert np.isnan(log.reward).all()
    assert log.problem_ids[:6].tolist() == log.problem_ids[12:18].tolist(), "the same old log-probs, the same response"
    assert len(set(log.problem_ids.tolist())) == 18


def test_replay_counts_what_the_loss_counted(tmp_path: Path):
    _, loss = recorded(tmp_path / "bank")
    found = [told(loss, BATCHES["wide"], list(range(6)), config())[1] for _ in range(2)]
    log = Bank.open(tmp_path / "bank").updates()
    later = log.rows((log.update > 0) & (log.advantage != 0))
    shares = [clip_rate(METHODS["grpo"], later.rows(np.array([i])), {}) for i in range(len(later))]
    assert np.dot(shares, later.lengths) == pytest.approx(found[1]["clipped"], abs=1e-4)
    assert found[1]["clipped"] > 0


def test_what_is_not_training_and_what_was_not_asked_for_is_left_out(tmp_path: Path):
    losses, loss = recorded(tmp_path / "bank", updates=1, every=2)
    for _ in range(3):
        told(loss, BATCHES["wide"], list(range(6)), config(), grad=False)
        told(loss, BATCHES["wide"], list(range(6)), config())
    told(loss, BATCHES["wide"], [0], config())
    bank = Bank.open(tmp_path / "bank")
    assert [entry.step for entry in bank.entries] == [0, 2]
    assert losses.finished == 3
    ((name, facts),) = bank.recordings.items()
    assert (name, facts["loss"], facts["every"], facts["settings"]["clip_ratio"]) == ("verl-mine", "mine", 2, 0.2)
    assert any("temperature" in phrase for phrase in facts["unknown"])


def test_every_process_writes_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for rank in (0, 1):
        monkeypatch.setattr(verl_record, "place", lambda rank=rank: (rank, 2))
        _, loss = recorded(tmp_path / "bank", updates=1)
        told(loss, BATCHES["wide"], [3 * rank + i for i in range(3)], config(6, 2))
    log = Bank.open(tmp_path / "bank").updates()
    assert log.cells.tolist() == ["verl-mine-rank0"] * 3 + ["verl-mine-rank1"] * 3
    np.testing.assert_array_equal(log.advantage, np.float32(BATCHES["wide"].advantages))


@pytest.mark.parametrize(
    ("info", "rows", "complaint"),
    [
        (config(None), 6, "global_batch_size is None over 1 processes"),
        (config(7, 2), 6, "global_batch_size is 7 over 2 processes"),
        (config(6, 2), 3, "1 processes share 2 parts of the data"),
        (config(5), 6, "6 responses in an optimizer step of 5"),
        (SimpleNamespace(), 6, "global_batch_size is None"),
    ],
)
def test_steps_that_cannot_be_told_apart_are_refused(tmp_path: Path, info: Any, rows: int, complaint: str):
    _, loss = recorded(tmp_path / "bank")
    with pytest.raises(UserError, match=complaint):
        told(loss, BATCHES["wide"], list(range(rows)), info)


@pytest.mark.parametrize(
    "text", ["", "bank", "bank updates=4", "bank updates=four limit=8", "bank updates=4 limit=8 all=1", "'' updates=1"]
)
def test_a_wish_that_is_not_understood_is_refused(text: str):
    with pytest.raises(UserError, match=r"write it as 'FOLDER updates=N limit=N'"):
        asked(text)


def test_a_wish():
    assert asked("'my bank' limit=8 updates=4 every=3") == Asked(Path("my bank"), 4, 8, 3)
    with pytest.raises(UserError, match="every = 0: must be at least 1"):
        asked("bank updates=4 limit=8 every=0")
