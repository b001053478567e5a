"""A problem set as a data sheet: its copies, what each of them must hold, what is wrong with it, how it is asked.

A set comes from a data folder or from the hub. A copy that does not have the expected number of rows, or whose content
digest (`tasks.text.content_digest`) is another one, is refused: a comparison on other problems is another comparison.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from suite.types import Problem, Task, UserError
from tasks.grading import GRADER, PROBLEM_PANEL, answer_to, grade_problems
from tasks.hub import hub_rows
from tasks.jsonl import read_problems
from tasks.prompts import BOXED_STOP, boxed_few_shot, boxed_question
from tasks.text import content_digest

ONLY = {"train": "training", "eval": "evaluation"}


@dataclass(frozen=True)
class Copy:
    """What one split must hold in one place: `where` are its files below the data folder, or its splits on the hub.

    `rows` counts what is stored there. With a digest of None only a pinned revision of the hub holds its text.
    """

    where: tuple[str, ...]
    rows: int
    digest: str | None


@dataclass(frozen=True)
class Hub:
    """The set on the Hugging Face hub. `problem(row, place)` makes a problem of a row; place is `split/number`.

    `keep` picks the problems of the set from all rows, where the hub stores more than them.
    """

    dataset: str
    revision: str
    splits: Mapping[str, Copy]
    columns: tuple[str, ...]
    problem: Callable[[Mapping[str, Any], str], Problem]
    config: str | None = None
    keep: Callable[[Iterable[Problem]], Iterable[Problem]] = iter


@dataclass(frozen=True)
class Sheet:
    """One set. `usable(split, problems)` leaves out what cannot be trained or scored on, and makes splits of ours."""

    name: str
    version: str
    source: str
    licence: str
    flaws: str
    files: Mapping[str, Copy]
    hub: Hub
    usable: Callable[[str, list[Problem]], list[Problem]] = lambda split, problems: problems

    def load(self, split: str, data_dir: Path | None) -> list[Problem]:
        """The problems of "train" or "eval", from a data folder or, with None, from the hub."""
        if split not in ONLY:
            raise UserError(f"task {self.name}: unknown split {split!r}; choose train or eval")
        if split not in self.files:
            kept = ONLY[next(iter(self.files))]
            raise UserError(f"task {self.name}: it is for {kept} only; choose another one for {ONLY[split]}")
        problems = self._from_folder(split, data_dir) if data_dir is not None else self._from_hub(split)
        return self.usable(split, problems)

    def missing(self, split: str, data_dir: Path) -> list[str]:
        """The files of a split that a data folder lacks."""
        return [file for file in self.files[split].where if not (data_dir / file).is_file()]

    def task(
        self,
        render: Callable[[Problem], str],
        question: Callable[[Problem], str],
        stop: tuple[str, ...],
        max_new_tokens: int,
    ) -> Task:
        """The set as a task of the suite, graded by the one grader."""
        return Task(
            name=self.name,
            version=self.version,
            source=f"{self.hub.dataset}@{self.hub.revision[:7]} ({self.licence}), {self.source}",
            load=self.load,
            render=render,
            question=question,
            grade=grade_problems,
            stop=stop,
            max_new_tokens=max_new_tokens,
            trainable="train" in self.files,
            answer=answer_to,
            panel=PROBLEM_PANEL,
            grader=GRADER,
        )

    def boxed_task(self, max_new_tokens: int) -> Task:
        """The set as a task whose answers stand in a box: competition problems and the like."""
        return self.task(
            render=lambda problem: boxed_few_shot(problem.prompt),
            question=lambda problem: boxed_question(problem.prompt),
            stop=BOXED_STOP,
            max_new_tokens=max_new_tokens,
        )

    def _from_folder(self, split: str, data_dir: Path) -> list[Problem]:
        copy = self.files[split]
        paths = [data_dir / file for file in copy.where]
        problems = [p for path in paths for p in read_problems(path, self.name, self.version)]
        place = ", ".join(map(str, paths))
        self._check(copy, len(problems), problems, place, "get the whole set as it was published")
        return problems

    def _from_hub(self, split: str) -> list[Problem]:
        copy, stored = self.hub.splits[split], 0
        files = " and ".join(dict.fromkeys(file for part in self.files.values() for file in part.where))

        def rows() -> Iterator[Problem]:
            nonlocal stored
            for part in copy.where:
                table = hub_rows(self.hub.dataset, self.hub.config, part, self.hub.revision, self.hub.columns, files)
                for number, row in enumerate(table):
                    stored += 1
                    yield self._converted(row, f"{part}/{number}", files)

        problems = list(self.hub.keep(rows()))
        self._check(copy, stored, problems, self.hub.dataset, f"give --data-dir a folder with {files}")
        return problems

    def _converted(self, row: Mapping[str, Any], place: str, files: str) -> Problem:
        try:
            return self.hub.problem(row, place)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise UserError(
                f"{self.hub.dataset}, row {place}: not in the known form ({type(error).__name__}: {error}); "
                f"give --data-dir a folder with {files}"
            ) from None

    def _check(self, copy: Copy, stored: int, problems: list[Problem], place: str, remedy: str) -> None:
        if stored != copy.rows:
            raise UserError(f"{place}: {stored} rows, expected {copy.rows} of {self.name}; {remedy}")
        if copy.digest is not None and (found := content_digest(problems)) != copy.digest:
            raise UserError(
                f"{place}: content digest {found[:12]}, expected {copy.digest[:12]}: a row of {self.name} "
                f"has another problem or answer; {remedy}"
            )
