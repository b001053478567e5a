"""A folder that a process works in: refused to others, and free again as soon as the process is gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from suite.records import files
from suite.records.files import locked
from suite.types import UserError

HOLD = (
    "import pathlib, sys, time\n"
    "from suite.records.files import locked\n"
    "with locked(pathlib.Path(sys.argv[1])):\n"
    "    print('held', flush=True)\n"
    "    time.sleep(600)\n"
)


def test_a_held_folder_is_refused_and_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.2)
    with (
        locked(tmp_path / "cell"),
        pytest.raises(UserError, match="cell: another process works here"),
        locked(tmp_path / "cell"),
    ):
        pass
    with locked(tmp_path / "cell"):
        pass


def test_a_killed_process_leaves_no_lock_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "LOCK_SECONDS", 0.2)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            with pytest.raises(UserError, match="another process works here"), locked(tmp_path):
                pass
        finally:
            process.kill()
    with locked(tmp_path):
        pass
