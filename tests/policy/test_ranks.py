"""A process alone is its own identity, and shares of several come back in the order of one."""

from __future__ import annotations

import dataclasses
import threading

import pytest
import torch
from torch import Tensor

from small_world import requests, tiny
from suite.policy.ranks import ALONE, Ranks, full_tensor, ranks_here
from suite.policy.sampling import Sampler, SampleRequest, SamplingSettings, TransformersSampler
from suite.training.shared_sampling import leader_only, sampler_of_ranks
from suite.types import Rollout, UserError


def test_a_process_alone_tells_itself() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    assert ranks_here() == ALONE
    assert ALONE.is_leader
    assert ALONE.gather_rows(x) is x
    assert ALONE.gather(x) is x
    assert full_tensor(x) is x
    assert ALONE.sum(1.5) == 1.5
    assert ALONE.broadcast(b"words") == b"words"
    assert [ALONE.agreed(answer) for answer in (True, False)] == [True, False]
    assert list(ALONE.passes(["a", "b"])) == [("a", True), ("b", True)]
    assert list(ALONE.share([4, 2, 9])) == [4, 2, 9]
    assert ALONE.apply(lambda model, more: model + more, 1, 2) == 3


@dataclasses.dataclass(frozen=True)
class Told(Ranks):
    """One of several processes, of whose tensors all are known."""

    all: tuple[Tensor, ...] = ()

    def _gathered(self, x: Tensor) -> list[Tensor]:
        return list(self.all)


@pytest.mark.parametrize(("rows", "count"), [(7, 2), (7, 3), (6, 2), (5, 5)])
def test_shares_come_back_in_the_order_of_one_process(rows: int, count: int) -> None:
    order = list(range(10, 10 + rows))
    shares = [Ranks(rank, count).share(order) for rank in range(count)]
    told = Told(0, count, all=tuple(torch.tensor(share) for share in shares))
    assert told.gather_rows(torch.tensor(shares[0])).tolist() == order
    ragged = Told(
        0, count, all=tuple(torch.ones(len(share), 2 + r, dtype=torch.bool) for r, share in enumerate(shares))
    )
    assert ragged.gather_rows(torch.empty(0, 0)).sum(dim=1).tolist() == [2 + i % count for i in range(rows)]


def test_shares_by_length_differ_by_less_than_the_longest() -> None:
    lengths = sorted((17 * i * i) % 101 for i in range(1, 24))
    sums = [sum(Ranks(rank, 4).share(lengths)) for rank in range(4)]
    assert max(sums) - min(sums) <= max(lengths) - min(lengths)


def test_an_idle_process_takes_part_in_every_pass() -> None:
    told = Told(1, 2, all=(torch.tensor([3]), torch.tensor([1])))
    assert list(told.passes(["only"])) == [("only", True), ("only", False), ("only", False)]


def test_too_few_responses_for_the_processes_are_refused() -> None:
    with pytest.raises(UserError, match=r"2 responses in an optimizer step for 3 processes: lower train.mini_batches"):
        Ranks(0, 3).share([1, 2])


# --- sampling ---------------------------------------------------------------------------------------


class Room:
    """Where the processes of a test, which are threads, meet."""

    def __init__(self, count: int) -> None:
        self.barrier, self.said = threading.Barrier(count, timeout=60), [torch.empty(0)] * count

    def gathered(self, rank: int, x: Tensor) -> list[Tensor]:
        """What everybody said in this round."""
        self.said[rank] = x
        self.barrier.wait()
        found = list(self.said)
        self.barrier.wait()
        return found


@dataclasses.dataclass(frozen=True)
class Threaded(Ranks):
    """A process that is a thread."""

    room: Room = dataclasses.field(default_factory=lambda: Room(1))

    def _gathered(self, x: Tensor) -> list[Tensor]:
        return self.room.gathered(self.rank, x)

    def broadcast(self, data: bytes | None) -> bytes:
        told = self._gathered(torch.tensor(list(data or b""), dtype=torch.uint8))[0]
        return bytes(told.tolist())


WORDS = "its own words"


class Failing(TransformersSampler):
    """A process without memory, or with another problem."""

    error: type[RuntimeError] = torch.OutOfMemoryError

    def sample(self, *arguments: object, **options: object) -> list[Rollout]:
        raise self.error(WORDS)


def served(
    first: Sampler, second: Sampler, asked: list[SampleRequest], settings: SamplingSettings
) -> tuple[list[Rollout] | Exception, Exception | None]:
    """What the leading one of two processes with these samplers gets or raises, and what the other one raises."""
    room = Room(2)
    ended: list[Exception | None] = []

    def follow() -> None:
        try:
            with leader_only(sampler_of_ranks(second, Threaded(1, 2, room=room))) as leads:
                assert not leads
            ended.append(None)
        except RuntimeError as error:
            ended.append(error)

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        sampler = sampler_of_ranks(first, Threaded(0, 2, room=room))
        with leader_only(sampler) as leads:
            assert leads
            assert sampler.sample([], settings) == []
            found: list[Rollout] | Exception = sampler.sample(asked, settings)
    except RuntimeError as error:
        found = error
    thread.join()
    return found, ended[0]


def test_a_shared_sampler_draws_what_one_process_draws() -> None:
    model, tokenizer = tiny()
    inner, settings = TransformersSampler(model, tokenizer), SamplingSettings(12)
    asked = requests(tokenizer, 5, samples=3)
    (drawn, end), expected = served(inner, TransformersSampler(*tiny()), asked, settings), inner.sample(asked, settings)
    assert end is None
    assert isinstance(drawn, list)
    for mine, other in zip(drawn, expected, strict=True):
        assert dataclasses.replace(mine, sampler_log_probs=()) == dataclasses.replace(other, sampler_log_probs=())
        assert mine.sampler_log_probs == pytest.approx(other.sampler_log_probs, abs=1e-5)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize("who", [0, 1])
def test_all_processes_stop_where_one_fails(who: int, error: type[RuntimeError], capfd: pytest.CaptureFixture) -> None:
    model, tokenizer = tiny()
    failing = Failing(model, tokenizer)
    object.__setattr__(failing, "error", error)
    fine = TransformersSampler(model, tokenizer)
    first, second = (fine, failing) if who else (failing, fine)
    found, end = served(first, second, requests(tokenizer, 2), SamplingSettings(4))
    theirs = f"process {who}: {WORDS}"
    assert type(found) is error
    assert str(found) == (WORDS if who == 0 else theirs)
    if error is torch.OutOfMemoryError:
        assert end is None, "it would draw on, if it were asked for less"
    else:
        assert type(end) is error
        assert str(end) == (WORDS if who == 1 else theirs)
    assert f"process 1: {'' if who else 'process 0: '}{WORDS}" in capfd.readouterr().out


def test_a_process_alone_samples_as_ever() -> None:
    inner = TransformersSampler(*tiny())
    assert sampler_of_ranks(inner, ALONE) is inner
    with leader_only(inner) as leads:
        assert leads
