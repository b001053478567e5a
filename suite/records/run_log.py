"""The training log: one JSON line a step, and the same numbers for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

from suite.records.files import write_atomically


class RunLog:
    """Appends steps to metrics.jsonl and TensorBoard. A resumed run first forgets the steps after its checkpoint."""

    def __init__(self, folder: Path, next_step: int) -> None:
        self.path = folder / "metrics.jsonl"
        kept = [row for row in read_log(folder) if row["step"] < next_step]
        write_atomically(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        from torch.utils.tensorboard.writer import SummaryWriter  # slow to import, and only a run needs it

        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=next_step)

    def append(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log one step; every number is a plain float."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **numbers}) + "\n")
        values = [Summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
        assert self.board.file_writer is not None
        self.board.file_writer.add_summary(Summary(value=values), step)  # one event: forty cost a small model's update
        self.board.flush()

    def close(self) -> None:
        self.board.close()


def read_log(folder: Path) -> list[dict[str, float]]:
    """The logged steps of a run, oldest first; empty before the first. A last line cut by a crash is left out."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]
