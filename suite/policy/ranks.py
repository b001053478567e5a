"""The processes that share one run under torchrun, and what they tell each other; a process alone tells itself.

Every process holds the whole step's rollouts and a share of its responses: those at places rank, rank + count, ... of
the step's order by length, so that shares differ by less than one longest response. What is gathered from shares comes
back in that order, the order of a single process.
"""

from __future__ import annotations

import functools
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from suite.types import UserError

T = TypeVar("T")
POLL_SECONDS = 0.5
PATIENCE = timedelta(days=2)
"""How long a process waits for another that still works; torchrun ends all as soon as one dies."""


@dataclass(frozen=True)
class Ranks:
    """One of `count` processes. `sharded`: they were started by torchrun, and models are cut among them.

    `local`: its number among those of its node, which come one behind the other.
    """

    rank: int = 0
    count: int = 1
    sharded: bool = False
    local: int = 0

    @property
    def is_leader(self) -> bool:
        """Whether this process writes files, prints, grades and evaluates."""
        return self.rank == 0

    @property
    def is_node_leader(self) -> bool:
        """Whether this process writes what all processes of its node read."""
        return self.local == 0

    def share(self, rows: Sequence[T]) -> Sequence[T]:
        """What this process takes of rows in order; UserError where there is not one for each process."""
        if len(rows) < self.count:
            raise UserError(
                f"{len(rows)} responses in an optimizer step for {self.count} processes: lower train.mini_batches, "
                "or start fewer"
            )
        return rows[self.rank :: self.count]

    def passes(self, items: Sequence[T]) -> Iterator[tuple[T, bool]]:
        """Each item with True; then the first one with False, until every process had as many passes as any other.

        A sharded model's passes are joint work: a process without items of its own still has to take part.
        """
        most = self.most(len(items))  # asked first: afterwards passes are under way
        yield from ((item, True) for item in items)
        yield from ((items[0], False) for _ in range(most - len(items)))

    def sum(self, number: float) -> float:
        """The sum over all processes, the same bits in each."""
        if self.count == 1:
            return number
        return float(sum(x.item() for x in self._gathered(torch.tensor([number], dtype=torch.float64))))

    def gather_rows(self, x: Tensor) -> Tensor:
        """The whole step's rows, in order, from shares [n] or [n, T]; narrower ones are filled up with zeros."""
        if self.count == 1:
            return x
        parts = self._gathered(x)
        if x.dim() == 2:
            width = max(part.shape[1] for part in parts)
            parts = [pad(part, (0, width - part.shape[1])) for part in parts]
        starts = torch.tensor([0, *(len(part) for part in parts)]).cumsum(0).tolist()
        longest = max(map(len, parts))
        order = [starts[r] + k for k in range(longest) for r, part in enumerate(parts) if k < len(part)]
        return torch.cat(parts)[torch.tensor(order, device=x.device)]

    def gather(self, x: Tensor) -> Tensor:
        """Every process's [n, ...] tensor, one behind the other."""
        return x if self.count == 1 else torch.cat(self._gathered(x))

    def broadcast(self, data: bytes | None) -> bytes:
        """The bytes that the leading process gives."""
        if self.count == 1:
            assert data is not None
            return data
        from torch import distributed

        size = torch.tensor([len(data or b"")])
        distributed.broadcast(size, 0)
        content = torch.empty(int(size), dtype=torch.uint8)
        if self.is_leader and data:
            content.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        distributed.broadcast(content, 0)
        return content.numpy().tobytes()

    def texts(self, text: str) -> list[str]:
        """What every process says, by rank."""
        if self.count == 1:
            return [text]
        letters = torch.tensor([0, *text.encode()], dtype=torch.uint8)  # the first, since nothing cannot be sent
        return [bytes(found.tolist()[1:]).decode() for found in self._gathered(letters)]

    def most(self, number: int) -> int:
        """The largest of what every process says."""
        return int(self.gather(torch.tensor([number])).max())

    def agreed(self, answer: bool) -> bool:
        """The leading process's answer to a question about files, which may change while the others ask."""
        return self.broadcast(b"1" if answer else b"0") == b"1"

    def apply(self, function: Callable[..., T], model: Any, *arguments: Any) -> T:
        """function(model, *arguments); for a sharded model as one joint pass, in which it has its weights."""
        return model.through(function, *arguments) if self.sharded else function(model, *arguments)

    def _gathered(self, x: Tensor) -> list[Tensor]:
        """Every process's tensor, of any sizes, by rank. They travel through host memory."""
        from torch import distributed

        def all_of(y: Tensor) -> list[Tensor]:
            found = [torch.empty_like(y) for _ in range(self.count)]
            distributed.all_gather(found, y)
            return found

        shapes = [tuple(shape.tolist()) for shape in all_of(torch.tensor(x.shape))]
        sizes = [torch.Size(shape).numel() for shape in shapes]
        flat = x.detach().cpu().flatten()
        flat = flat.to(torch.uint8) if x.dtype == torch.bool else flat
        found = all_of(pad(flat, (0, max(sizes) - len(flat))))
        kept = (part[:size].reshape(shape) for part, size, shape in zip(found, sizes, shapes, strict=True))
        return [part.to(x.device, x.dtype) for part in kept]


ALONE = Ranks()
NO_MEMORY, MENDABLE, OTHER = "out of memory", "user", "other"


@contextmanager
def failing_together(ranks: Ranks) -> Iterator[None]:
    """A block that every process runs: where it fails in one it fails in all, once all are through it.

    A process raises its own error, or one of the same kind (out of memory, UserError, else RuntimeError) with the words
    of the first that failed. Inside the block nobody may wait for another, except all of them.
    """
    if ranks.count == 1:
        yield
        return
    problem = None
    try:
        yield
    except Exception as error:
        problem = error
    kind = ""
    if problem is not None:
        kind = next((k for k, t in _KINDS.items() if isinstance(problem, t)), OTHER)
    told = ranks.texts(f"{kind}\n{problem}" if problem is not None else "")
    if problem is not None:
        raise problem
    for rank, text in enumerate(told):
        if text:
            kind, _, words = text.partition("\n")
            raise _KINDS.get(kind, RuntimeError)(f"process {rank}: {words}")


_KINDS: dict[str, type[Exception]] = {NO_MEMORY: torch.OutOfMemoryError, MENDABLE: UserError}


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return "TORCHELASTIC_RUN_ID" in os.environ


@functools.cache
def ranks_here() -> Ranks:
    """This process among those that torchrun started; ALONE without torchrun.

    On GPUs each process takes the one of its local rank, and NCCL carries the weights; small things go through gloo.
    A process ends with torchrun, however that ended: left behind, it would go on writing.
    """
    if not under_torchrun():
        return ALONE
    from torch import distributed

    end_with(os.getppid())
    backend = "gloo"
    if torch.cuda.is_available():
        rank, devices = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if rank >= devices:
            raise UserError(
                f"--nproc-per-node: a process takes a device, and this machine shows {devices}; start fewer"
            )
        torch.cuda.set_device(rank)
        backend = "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, timeout=PATIENCE)
    local = int(os.environ["LOCAL_RANK"])
    return Ranks(distributed.get_rank(), distributed.get_world_size(), sharded=True, local=local)


def end_with(parent: int, told: Callable[[], bool] = lambda: False) -> None:
    """End this process, at once and whatever it does, when its parent has ended or it is told to."""

    def watch() -> None:
        while os.getppid() == parent and not told():
            time.sleep(POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def leave(ranks: Ranks) -> None:
    """Say good-bye to the other processes at the end of a run."""
    if ranks.sharded:
        from torch import distributed

        distributed.destroy_process_group()


def full_tensor(x: Tensor) -> Tensor:
    """All of a tensor that may be cut among processes, in each of them; one that is not cut is itself."""
    full = getattr(x, "full_tensor", None)
    return x if full is None else full()
