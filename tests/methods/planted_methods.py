"""A method rebuilt in this process from sources in which one text is exchanged: how a planted bug comes to run.

Methods and the arithmetic that they share are pure modules, so no process and no copy of the repository is needed.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.abc import MetaPathFinder, SourceLoader
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import ModuleType

from methods.checks import disagreement
from methods.facts import Mutant
from suite.methods.conformance import CHECKS
from suite.methods.conformance.violation import Violation
from suite.types import Method, UserError

ROOT = Path(__file__).resolve().parents[2]
REBUILT = ("baselines", "fspo", "suite.arithmetic", "suite.advantages")
"""What is imported anew for a mutant: whatever a method's function can reach, save the contract file suite.types."""


@dataclass(frozen=True)
class Verdict:
    """What became of a mutant: "killed", "survives", or "broken" where it never became a method; and why."""

    word: str
    why: str = ""


class PlantedSource(MetaPathFinder, SourceLoader):
    """Finds one module, and loads it from a text in the place of its file."""

    def __init__(self, file: str, source: str) -> None:
        self.path, self.source = ROOT / file, source
        self.module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """This loader for its module, nothing for any other."""
        return spec_from_loader(fullname, self) if fullname == self.module else None

    def get_filename(self, fullname: str) -> str:
        """The file that the text stands in for."""
        return str(self.path)

    def get_data(self, path: str) -> bytes:
        """The text."""
        return self.source.encode()


@contextmanager
def planted_source(file: str, source: str) -> Iterator[None]:
    """Inside, the rebuilt modules are imported anew with `source` for `file`; afterwards all is as it was."""

    def ours() -> list[str]:
        return [
            name for name in sys.modules if name.startswith(tuple(f"{room}." for room in REBUILT)) or name in REBUILT
        ]

    held = {name: sys.modules.pop(name) for name in ours()}
    finder = PlantedSource(file, source)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in ours():
            del sys.modules[name]
        sys.modules.update(held)
        for name, module in held.items():
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)


def rebuilt(name: str, file: str, source: str) -> Method:
    """The method of that name with `source` in the place of `file`."""
    with planted_source(file, source):
        return {**importlib.import_module("baselines").METHODS, **importlib.import_module("fspo").METHODS}[name]


def first_failure(method: Method, check: str) -> str | None:
    """What the comparison with the oracle says against a method, or with `check` that property; None: nothing.

    A method that refuses hyper-parameters which it should take fails, too.
    """
    try:
        if not check:
            return disagreement(method)
        CHECKS[check](method)
    except Violation as violation:
        return violation.reason
    except UserError as refused:
        return str(refused)
    return None


def verdict(name: str, mutant: Mutant) -> Verdict:
    """Plant the bug and put the method to its check. Any other exception kills nothing: the mutant is broken."""
    try:
        source = mutant.planted((ROOT / mutant.file).read_text(encoding="utf-8"))
        failure = first_failure(rebuilt(name, mutant.file, source), mutant.check)
    except Exception as error:
        return Verdict("broken", f"{type(error).__name__}: {error}")
    return Verdict("killed", failure) if failure else Verdict("survives")
