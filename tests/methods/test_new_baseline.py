"""A baseline is added in four places, and they are enough: shown on a copy of the repository, with the skeleton."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mutants import Copy
from suite.methods.new_method import write_skeleton
from suite.types import UserError

NAME = "soft_clip"
PLACES = ("baselines/__init__.py", "baselines/README.md", f"baselines/{NAME}.py", f"tests/methods/{NAME}.py")
TESTS = (
    *(f"tests/methods/test_{topic}.py" for topic in ("against_oracles", "bands", "conformance", "known_bugs")),
    *(f"tests/methods/test_{topic}.py" for topic in ("mutants_die", "pages", "peers")),
    "tests/house/test_mutants.py",
    "tests/commands/test_export_verl.py",
    "tests/commands/test_method_commands.py",
)
"""The tests that take every method in turn."""


def texts(root: Path) -> dict[str, str]:
    """Every text file below a folder, by its path."""
    files = [p for p in root.rglob("*") if p.suffix in (".py", ".md", ".toml", ".json") and p.is_file()]
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in files}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy of the rooms and the tests, with processes that import from it."""
    made = Copy.make(tmp_path_factory.mktemp("checkout"))
    assert made.imports_itself() is None
    return made


@pytest.fixture(scope="module")
def changes(copy: Copy) -> dict[str, tuple[str, str]]:
    """Path -> text before and after, of what the skeleton of a new method changes in the copy."""
    before = texts(copy.root)
    write_skeleton(NAME, copy.root)
    after = texts(copy.root)
    return {path: (before.get(path, ""), text) for path, text in after.items() if before.get(path, "") != text}


def test_four_places_change_and_text_is_only_added(changes: dict[str, tuple[str, str]]) -> None:
    assert sorted(changes) == sorted(PLACES)
    entries = [line for line in changes[PLACES[0]][1].splitlines() if line not in changes[PLACES[0]][0].splitlines()]
    assert entries == [f"from baselines.{NAME} import {NAME.upper()}", f'    "{NAME}": {NAME.upper()},']
    for before, after in changes.values():
        lines = iter(after.splitlines())
        assert all(line in lines for line in before.splitlines()), "a line of before is gone"


def test_names_without_room_and_folders_without_anchor_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "tests" / "methods").mkdir(parents=True)
    (tmp_path / "baselines").mkdir()
    (tmp_path / "baselines" / "__init__.py").write_text("METHODS = {}\n")
    (tmp_path / "baselines" / "README.md").write_text("# Methods\n")
    before = texts(tmp_path)
    with pytest.raises(UserError, match=r"README.md: no line begins with .* no place for a new method"):
        write_skeleton(NAME, tmp_path)
    for name in ("class", "test_clip", "Soft", "soft-clip", "2nd"):
        with pytest.raises(UserError, match="lower-case"):
            write_skeleton(name, tmp_path)
    assert texts(tmp_path) == before


@pytest.mark.slow
def test_the_skeleton_passes_the_tests_of_methods(copy: Copy, changes: dict[str, tuple[str, str]]) -> None:
    done = copy.pytest(TESTS, f"{NAME} or nothing_has_moved", "--tb=line")
    assert done.returncode == 0, done.stdout
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) > 40


@pytest.mark.slow
@pytest.mark.parametrize("fact", ["MISTAKES", "WITHOUT_PEER"])
def test_a_fact_that_is_missing_is_named_with_its_place(
    copy: Copy, changes: dict[str, tuple[str, str]], fact: str
) -> None:
    oracle = copy.root / "tests" / "methods" / f"{NAME}.py"
    whole = oracle.read_text(encoding="utf-8")
    try:
        oracle.write_text(re.sub(rf"^{fact} = .*\n", "", whole, flags=re.MULTILINE))
        done = copy.pytest(("tests/methods/test_against_oracles.py",), f"{NAME} and states_its_facts", "--tb=short")
    finally:
        oracle.write_text(whole)
    named = fact if fact == "MISTAKES" else "PAIRINGS"
    assert done.returncode == 1
    assert f"AssertionError: tests/methods/{NAME}.py lacks {named}: " in done.stdout


@pytest.mark.slow
def test_an_oracle_that_is_missing_is_named_with_its_place(copy: Copy, changes: dict[str, tuple[str, str]]) -> None:
    oracle = copy.root / "tests" / "methods" / f"{NAME}.py"
    whole = oracle.read_text(encoding="utf-8")
    try:
        oracle.unlink()
        done = copy.pytest(("tests/methods/test_against_oracles.py",), f"{NAME} and states_its_facts", "--tb=short")
    finally:
        oracle.write_text(whole)
    assert done.returncode == 1
    assert f"AssertionError: tests/methods/{NAME}.py is missing: it holds the equation of {NAME}" in done.stdout
