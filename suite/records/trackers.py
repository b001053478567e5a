"""Where the numbers of metrics.jsonl also go while a run trains: TensorBoard's files, and Weights & Biases.

A tracker is told every step of the log once, also after a run was resumed. One that fails is given up with a line of
warning: no tracker can end a run, and nothing that one is told or does is part of a result.
"""

from __future__ import annotations

import secrets
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from suite.records.files import write_atomically
from suite.records.installation import pip_install
from suite.records.texts import one_line, printable
from suite.types import UserError

WANDB = "wandb"
PATIENCE = 60.0
"""Seconds that the end of a run waits for its last numbers to reach Weights & Biases."""
Rows = Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Tracked:
    """What trackers are told of a run: the comparison that it belongs to, its name there, its settings and digests."""

    group: str
    name: str
    settings: Mapping[str, Any]


class Tracker(Protocol):
    """Opened with the folder of a run, what it is, and the steps that its log holds already."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None: ...
    def conclude(self, facts: Mapping[str, Any]) -> None: ...
    def keep(self, page: Path) -> None: ...
    def close(self, failed: bool) -> None: ...


class TensorBoard:
    """Event files in the run's folder. It has no place for facts and pages."""

    def __init__(self, folder: Path, run: Tracked, logged: Rows) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter  # slow to import, and only a run needs it

        place = folder / "tensorboard"
        missed = [] if place.exists() else logged
        self.board = SummaryWriter(str(place), purge_step=len(logged))
        for row in missed:
            self.log(int(row["step"]), without_step(row))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary  # pyright: ignore[reportAttributeAccessIssue]

        values = [Summary.Value(tag=name, simple_value=number) for name, number in numbers.items()]
        assert self.board.file_writer is not None
        self.board.file_writer.add_summary(Summary(value=values), step)  # one event: forty cost a small model's update
        self.board.flush()

    def conclude(self, facts: Mapping[str, Any]) -> None:
        pass

    def keep(self, page: Path) -> None:
        pass

    def close(self, failed: bool) -> None:
        self.board.close()


class WeightsAndBiases:
    """A run of Weights & Biases, as the user's own settings of it (WANDB_MODE, WANDB_PROJECT, ...) say.

    Its id is kept in the folder, so that a resumed run goes on as the same one. An offline record of a run that was
    killed lacks the last seconds; the resumed run's holds all steps and takes its place. Of a run on a server, the
    server says which steps it has.
    """

    def __init__(self, folder: Path, run: Tracked, logged: Rows) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        name = _kept_id(folder / WANDB / "run-id")
        earlier = sorted((folder / WANDB).glob(f"offline-run-*-{name}"))
        settings = {"console": "off", "silent": True, "save_code": False}
        if "finish_timeout" in wandb.Settings.model_fields:  # versions before it wait for a lost network for good
            settings["finish_timeout"] = PATIENCE
        self.run = wandb.init(
            project=wandb.setup().settings.project or "fspo",
            group=run.group,
            name=run.name,
            id=name,
            resume="allow",
            dir=str(folder),
            config=dict(run.settings),
            settings=wandb.Settings(**settings),
        )
        self.next = self.run.step
        for row in logged:
            self.log(int(row["step"]), without_step(row))
        for record in earlier if self.run.offline else ():
            shutil.rmtree(record)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        if step >= self.next:
            self.run.log(dict(numbers), step=step, commit=True)

    def conclude(self, facts: Mapping[str, Any]) -> None:
        self.run.summary.update(dict(facts))

    def keep(self, page: Path) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        artifact = wandb.Artifact(f"{self.run.group}-{page.stem}", type=page.stem)
        artifact.add_file(str(page))
        self.run.log_artifact(artifact)

    def close(self, failed: bool) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        self.run.finish(exit_code=int(failed))
        wandb.teardown()  # waits until the file is written: finish does not


OPENED: Mapping[str, Callable[[Path, Tracked, Rows], Tracker]] = {"tensorboard": TensorBoard, WANDB: WeightsAndBiases}
"""What opens a tracker, by the name that `train.trackers` has for it."""


class Trackers:
    """The named trackers of one run, as a context: they are closed at its end, with whether it failed."""

    def __init__(self, names: Sequence[str], folder: Path, run: Tracked) -> None:
        self.names, self.folder, self.run = names, folder, run
        self.opened: dict[str, Tracker] = {}

    def begin(self, logged: Rows) -> None:
        """Open them; `logged` are the steps that the log holds already."""
        for name in self.names:
            self._try(name, lambda name=name: self.opened.update({name: OPENED[name](self.folder, self.run, logged)}))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Tell all of a step that the log has now."""
        self._all(lambda tracker: tracker.log(step, numbers))

    def conclude(self, facts: Mapping[str, Any]) -> None:
        """Tell all what came out."""
        self._all(lambda tracker: tracker.conclude(facts))

    def keep(self, page: Path) -> None:
        """Hand a page to all that keep pages."""
        self._all(lambda tracker: tracker.keep(page))

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._all(lambda tracker: tracker.close(kind is not None))

    def _all(self, do: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self.opened.items()):
            self._try(name, lambda tracker=tracker: do(tracker))

    def _try(self, name: str, do: Callable[[], None]) -> None:
        """Do it; a tracker in which it fails, whatever the reason, is not asked again."""
        try:
            do()
        except Exception as error:
            self.opened.pop(name, None)
            said = printable(one_line(error))[:300]
            print(f"{self.run.name}: no more {name}, training goes on: {said}", file=sys.stderr, flush=True)


def require_trackers(names: Sequence[str]) -> None:
    """UserError where a named tracker is not installed."""
    if WANDB in names and find_spec(WANDB) is None:
        raise UserError(f"train.trackers: wandb is not installed; run `{pip_install('trackers')}`, or leave wandb out")


def keep_page(names: Sequence[str], folder: Path, run: Tracked, page: Path) -> None:
    """The page of a comparison as an artifact of a run of its own, for the trackers that keep pages."""
    with Trackers([name for name in names if name == WANDB], folder, run) as trackers:
        trackers.begin(())
        trackers.keep(page)


def without_step(row: Mapping[str, float]) -> dict[str, float]:
    """A row of the log without the step that it is about."""
    return {name: number for name, number in row.items() if name != "step"}


def _kept_id(path: Path) -> str:
    """The id in the file; a new one where there is none. It is no seeded draw: training must not notice."""
    if not path.exists():
        write_atomically(path, secrets.token_hex(4))
    return path.read_text(encoding="utf-8")
