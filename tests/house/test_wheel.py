"""The wheel alone, without the checkout: installed into a fresh environment and run from an empty folder.

The fresh environment sees the packages of this one as a plain folder, so that nothing is downloaded; what an editable
install adds to a start of Python it does not see.
"""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

import numpy as np
import pytest

from suite.records.bank import Bank, PendingFile
from suite.records.update_log import UpdateLog
from suite.replay.simulation import Simulation

ROOT = Path(__file__).resolve().parents[2]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
ROOMS = ("suite", "baselines", "fspo", "tasks")
SMALL = "train.problems_per_step=4 train.samples_per_problem=4 train.tasks=gcd evaluation.tasks=gcd evaluation.limit=2"
SIMULATION = Simulation(0.02, 0.0, ((16, 200), (64, 200)), problems=20, updates=2, start=True)
FACTS = {"driver": {"method": "no_clip", "card": "c"}, "digests": {"model": "m"}, "environment": {}}
PROGRAM = """
import sys
from suite.commands.main import main

for words in {commands!r}:
    sys.argv = ["fspo", *words]
    try:
        main()
    except SystemExit as stopped:
        if stopped.code:
            raise
import fspo, fspo.plugins.trl, tasks
print("found", fspo.__file__, fspo.plugins.trl.FSPOTrainer.__name__)
print(*sorted(path.name for path in tasks.LM_EVAL_TASKS.glob("*.yaml")))
"""
NAMES = {found.name for found in distributions()}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.external,
    # By metadata: whoever looks for the module pip makes setuptools fail at import in this process.
    pytest.mark.skipif(not {"pip", "setuptools"} <= NAMES, reason="no pip or setuptools here"),
    pytest.mark.skipif("trl" not in NAMES, reason="trl is not installed"),
]


@dataclass(frozen=True)
class Installed:
    """The wheel's file, the folder of the fresh environment and its folder of packages."""

    wheel: Path
    environment: Path
    packages: Path


def run(*command: str | Path, place: Path) -> str:
    """What a command prints in a folder, without any hint of where the checkout is."""
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), cwd=place, env=surroundings, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel, built from a copy of the sources and installed where the checkout cannot be seen."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, source, place=folder)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "environment"
    venv.create(environment, with_pip=False)
    (packages,) = environment.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    python = environment / "bin/python"
    run(*pip, "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel, place=folder)
    return Installed(wheel, environment, packages)


def test_every_file_of_the_rooms_is_in_it(installed: Installed) -> None:
    there = set(zipfile.ZipFile(installed.wheel).namelist())
    rooms = {
        path.relative_to(ROOT).as_posix()
        for room in ROOMS
        for path in (ROOT / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert rooms <= there
    assert {name.partition("/")[0] for name in there - rooms} == {f"fspo_suite-{VERSION}.dist-info"}


def test_its_page_has_no_link_that_leads_nowhere(installed: Installed) -> None:
    archive = zipfile.ZipFile(installed.wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
    metadata = email.message_from_string(archive.read(name).decode("utf-8"))
    text = str(metadata.get_payload())
    assert "Reading a report: tables, verdicts, glossary" in text
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    assert targets
    assert all(target.startswith("https://") for target in targets), targets
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_all("Project-URL")


def test_it_compares_replays_and_serves_other_trainers_from_an_empty_folder(
    installed: Installed, tmp_path: Path
) -> None:
    log = UpdateLog(**SIMULATION.columns(np.random.default_rng(1)))
    log.save(tmp_path / "log")
    file = PendingFile("updates", (tmp_path / "log").read_bytes(), 0, 0, len(log), "policy")
    bank = Bank.open_or_new(tmp_path / "bank").append("none-seed0", FACTS, [file]).folder
    place = tmp_path / "empty"
    place.mkdir()
    compare = f"compare smoke --methods fspo --seeds 1 --steps 1 --workers 1 --out runs --set {SMALL}"
    commands = [compare.split(), ["bank", "lab", str(bank), "--no-model", "--out", "lab"], ["doctor"]]
    said = run(installed.environment / "bin/python", "-c", PROGRAM.format(commands=commands), place=place)
    assert (place / "runs/report.html").is_file()
    assert (place / "lab/lab.md").is_file()
    assert "nothing that is here is broken" in said
    *_, found, files = said.splitlines()
    assert found == f"found {installed.packages / 'fspo/__init__.py'} FSPOTrainer"
    assert files.split() == sorted(path.name for path in (ROOT / "tasks/lm_eval").glob("*.yaml"))


def test_its_command_is_there_and_knows_no_commit(installed: Installed, tmp_path: Path) -> None:
    fspo = installed.environment / "bin/fspo"
    assert run(fspo, "--version", place=tmp_path) == f"fspo {VERSION}\n"
    assert run(fspo, "--help", place=tmp_path).startswith("usage: fspo ")
