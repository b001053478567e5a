"""The planted bugs cannot rot: each still applies, changes what runs, and no file of the core is without one."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

import mutants
from methods.checks import stated
from methods.facts import Mutant
from strategies import METHODS
from suite.methods.conformance import CHECKS

TABLE = mutants.load()
OF_METHODS = [(name, mutant) for name in METHODS for mutant in stated(name, "MUTANTS")]
EVERY_MUTANT = [*TABLE, *(mutant for _, mutant in OF_METHODS)]
WORDS_ONLY = {"__init__.py"}
"""Files of a room that hold names, but no arithmetic."""
CORE = {
    "suite/arithmetic.py",
    "suite/advantages.py",
    "suite/training/update.py",
    "suite/seeds.py",
    "suite/replay/fairness.py",
    "suite/replay/matched_ranges.py",
    "fspo/band.py",
    "fspo/objective.py",
    "fspo/controls.py",
}


def without_docstrings(source: str) -> str:
    """What runs of a module, so that a change of comments or docstrings is no change."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            node.body[0] = ast.Pass()
    return ast.dump(tree)


@pytest.mark.parametrize(
    "mutant",
    [*(pytest.param(m, id=m.name) for m in TABLE), *(pytest.param(m, id=f"{n}-{m.name}") for n, m in OF_METHODS)],
)
def test_a_mutant_applies_once_and_changes_what_runs(mutant: Mutant) -> None:
    source = (mutants.ROOT / mutant.file).read_text(encoding="utf-8")
    assert without_docstrings(mutant.planted(source)) != without_docstrings(source)
    assert mutant.check in ("", *CHECKS)


@pytest.mark.parametrize("mutant", [pytest.param(m, id=m.name) for m in TABLE])
def test_a_mutant_of_the_table_names_tests_and_methods_that_are_there(mutant: mutants.SuiteMutant) -> None:
    assert mutant.tests
    assert all((mutants.ROOT / name).is_file() for name in mutant.tests)
    assert mutant.method in ("", *METHODS)
    assert "[]" not in mutant.k, "`{method}` in its k, and no method"


def test_the_mutants_cover_every_file_of_the_methods_and_the_core() -> None:
    assert [name for name, n in Counter(m.name for m in TABLE).items() if n > 1] == []
    same = Counter((m.file, m.old, m.new) for m in EVERY_MUTANT)
    assert [change for change, n in same.items() if n > 1] == []
    files = {
        p.relative_to(mutants.ROOT).as_posix()
        for p in (mutants.ROOT / "baselines").glob("*.py")
        if p.name not in WORDS_ONLY
    }
    assert (files | CORE) - {m.file for m in EVERY_MUTANT} == set()


def test_a_bug_that_no_longer_applies_is_named() -> None:
    mutant = Mutant("gone", "suite/seeds.py", "x = 1", "x = 2")
    for source in ("y = 1", "x = 1\nx = 1"):
        with pytest.raises(ValueError, match="gone"):
            mutant.planted(source)


def test_healthy_tests_are_run_once_for_all_mutants() -> None:
    rows = [
        mutants.SuiteMutant(f"a: {i}", "f", "x", "y", tests=tests, k=k)
        for i, (tests, k) in enumerate(
            [
                (("one",), "p"),
                (("two",), "p"),
                (("one",), "q and r"),
                (("one",), "p"),
                (("two",), ""),
            ]
        )
    ]
    assert mutants.selections(rows) == [(("one",), "(p) or (q and r)"), (("two",), "")]


@pytest.mark.slow
def test_the_runner_tells_the_killed_from_survivors_and_from_typos(capsys: pytest.CaptureFixture[str]) -> None:
    """Planted into a copy: the working tree stays as it is."""
    place, tests = "suite/seeds.py", ("tests/policy/test_seeds.py",)
    path = Path(mutants.ROOT / place)
    before = path.read_text(encoding="utf-8")
    old = "for label in (run_seed, *labels):"
    rows = [
        mutants.SuiteMutant("seeds: a bug", place, old, "for label in labels:", tests=tests, k="labels"),
        mutants.SuiteMutant(
            "seeds: the same", place, old, "for label in [run_seed, *labels]:", tests=tests, k="labels"
        ),
        mutants.SuiteMutant("seeds: a typo", place, "import hashlib", "import hashlibb", tests=tests, k="labels"),
    ]
    assert mutants.run(rows, 1) == 1
    lines = capsys.readouterr().out.splitlines()
    assert "killed   seeds: a bug   (by tests/policy/test_seeds.py::test_labels_cannot_be_confused)" in lines
    assert [line.split()[0] for line in lines if "the same" in line] == ["SURVIVED"]
    assert [line.split()[0] for line in lines if "a typo" in line] == ["BROKEN"]
    assert lines[-1].startswith("3 mutants: 1 killed, 1 survived, 1 broken")
    assert mutants.run(rows[:1], 1) == 0
    assert path.read_text(encoding="utf-8") == before
