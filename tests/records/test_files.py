"""A folder that a process works in: refused to others, and free again as soon as the process is gone."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from suite.config import CompareConfig
from suite.experiments.recipes import recipe
from suite.records import comparison_folder, files
from suite.records.bank import Bank
from suite.records.comparison_folder import CONFIG_FILE, additions, claim_folder, recorded_config, recorded_growth
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


def grid(methods: tuple[str, ...], seeds: tuple[int, ...], *options: str) -> CompareConfig:
    return replace(recipe("smoke"), methods=methods, seeds=seeds, options=options)


def test_a_comparison_grows_behind_what_it_has_and_says_how(tmp_path: Path) -> None:
    out, path = tmp_path / "out", tmp_path / "out" / CONFIG_FILE
    small, more = grid(("rloo", "gspo"), (3, 1), "rloo.clip_low=0.1"), ("ppo.clip_low=0.1", "rloo.clip_low=0.1")
    assert claim_folder(small, out, ["first"], {"rloo": "r", "gspo": "g"}) == {}
    begun = json.loads(path.read_text())
    grown = grid(("rloo", "gspo", "ppo"), (3, 1, 0), *more)
    assert additions(grown, out) == {"methods": ["ppo"], "seeds": [0]}
    added = claim_folder(grown, out, ["second", "--seeds"], {"rloo": "r", "gspo": "g", "ppo": "p"}, {"file": "f"})
    assert added == {"methods": ["ppo"], "seeds": [0]}
    assert recorded_config(out) == grown
    (facts,) = recorded_growth(out)
    assert facts.pop("versions")["commit"] == begun["versions"]["commit"]
    assert facts == {"methods": ["ppo"], "seeds": [0], "command": "second --seeds", "ranges": {"file": "f"}}
    now = json.loads(path.read_text())
    assert now["code"] == {"rloo": "r", "gspo": "g", "ppo": "p"}
    assert [now[name] for name in ("command", "versions")] == [begun[name] for name in ("command", "versions")]
    assert claim_folder(grown, out, ["third"], {}) == {}
    assert json.loads(path.read_text()) == now, "nothing was added"
    claim_folder(replace(grown, seeds=(3, 1, 0, 2)), out, ["fourth"], {})
    assert [facts["command"] for facts in recorded_growth(out)] == ["second --seeds", "fourth"]


@pytest.mark.parametrize(
    ("wanted", "complaint"),
    [
        (grid(("rloo", "gspo"), (3,)), r"seeds = \[3, 1\], not \[3\]; keep these and add others behind them"),
        (grid(("rloo", "gspo"), (1, 3, 4)), r"seeds = \[3, 1\], not \[1, 3, 4\]"),
        (grid(("rloo", "ppo"), (3, 1, 0)), r"methods = \['rloo', 'gspo'\], not \['rloo', 'ppo'\]; keep these"),
        (
            grid(("rloo", "gspo"), (3, 1, 0), "gspo.clip_low=0.1"),
            r"options = \[\], not \['gspo.clip_low=0.1'\]; choose",
        ),
        (replace(grid(("rloo", "gspo"), (3, 1, 0)), bootstrap=100), r"bootstrap = \d+, not 100; choose another --out"),
    ],
)
def test_a_comparison_grows_in_no_other_way(wanted: CompareConfig, complaint: str, tmp_path: Path) -> None:
    claim_folder(grid(("rloo", "gspo"), (3, 1)), tmp_path, ["first"], {})
    before = (tmp_path / CONFIG_FILE).read_bytes()
    with pytest.raises(UserError, match=complaint):
        claim_folder(wanted, tmp_path, ["second"], {})
    assert (tmp_path / CONFIG_FILE).read_bytes() == before


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
