"""Outputs that cannot take what is printed: full, closed, or without the letters. One line where one can be shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from faults.outcomes import Ended, forked
from suite.commands import compare, main, methods, recipes

IMPORTED = (compare, methods, recipes)
"""Here, and not in every forked process anew."""
COMMANDS = {
    "help": (["--help"], 0),
    "version": (["--version"], 0),
    "a list": (["recipes"], 0),
    "a card": (["method", "card", "fspo"], 0),
    "a refusal": (["compare", "dmeo"], 2),
    "an unknown command": (["nothing"], 2),
}


def to(place: str, descriptor: int) -> Callable[[], None]:
    """In the forked process: from now on what is printed there goes to this place."""

    return lambda: os.dup2(os.open(place, os.O_WRONLY), descriptor) and None


def none_at_all() -> None:
    sys.stdout = None  # pyright: ignore[reportAttributeAccessIssue]


def in_ascii() -> None:
    for name in ("stdout", "stderr"):
        getattr(sys, name).reconfigure(encoding="ascii", errors="strict")


def said(words: list[str], before: Callable[[], None], folder: Path) -> Ended:
    def run() -> None:
        before()
        sys.argv = ["fspo", *words]
        main.main()

    return forked(run, folder)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_output_is_one_line(command: str, tmp_path: Path) -> None:
    words, code = COMMANDS[command]
    ended = said(words, to("/dev/full", 1), tmp_path)
    assert ended.code == 2
    assert len(ended.said.splitlines()) == 1
    assert ("No space left on device" in ended.said) == (code == 0)


@pytest.mark.parametrize("command", ["a refusal", "an unknown command"])
def test_a_full_place_for_complaints_changes_no_exit_code(command: str, tmp_path: Path) -> None:
    assert said(COMMANDS[command][0], to("/dev/full", 2), tmp_path).code == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_no_output_at_all_is_no_fault(command: str, tmp_path: Path) -> None:
    words, code = COMMANDS[command]
    ended = said(words, none_at_all, tmp_path)
    assert ended.code == code
    assert "Traceback" not in ended.said


@pytest.mark.parametrize("command", COMMANDS)
def test_a_terminal_of_ascii_shows_question_marks(command: str, tmp_path: Path) -> None:
    words, code = COMMANDS[command]
    ended = said(words, in_ascii, tmp_path)
    assert ended.code == code
    assert "Traceback" not in ended.said
    assert ended.said.isascii()
