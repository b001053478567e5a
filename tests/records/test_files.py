"""A folder that a process works in: refused to others, and free again as soon as the process is gone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from suite.experiments.recipes import recipe
from suite.records import comparison_folder, files
from suite.records.bank import Bank
from suite.records.comparison_folder import CONFIG_FILE, claim_folder
from suite.records.files import listed, locked
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


def test_what_a_kill_left_half_written_is_no_content(tmp_path: Path) -> None:
    """A claim that was killed between its lock and its file does not close the folder to the same command."""
    out = tmp_path / "out"
    out.mkdir()
    for name in (".lock", ".comparison.json.999999.tmp", ".manifest.json.999999.tmp"):
        (out / name).write_text("half")
    assert listed(out) == set()
    claim_folder(recipe("smoke"), out, ["x"], {})
    assert listed(out) == {CONFIG_FILE}
    assert not (out / ".comparison.json.999999.tmp").exists()
    with pytest.raises(UserError, match="not empty and no bank"):
        Bank.open_or_new(out)


def test_a_folder_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim that another process finishes right after the look is found, not taken for somebody else's file."""
    out, config = tmp_path / "out", recipe("smoke")
    look = comparison_folder.listed

    def finished_meanwhile(folder: Path) -> set[str]:
        seen = look(folder)
        monkeypatch.setattr(comparison_folder, "listed", look)
        claim_folder(config, out, ["the other"], {})
        return seen

    monkeypatch.setattr(comparison_folder, "listed", finished_meanwhile)
    claim_folder(config, out, ["x"], {})
    assert "the other" in (out / CONFIG_FILE).read_text()
