"""What gets installed: `make install` exactly what the tables ran with, `make test-oldest` exactly the floors."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]]


def pins(name: str) -> dict[str, Version]:
    """The version of each package that a file of constraints names; every line names one version."""
    lines = [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    return {canonicalize_name(package): Version(version) for package, version in pairs}


def floor(requirement: Requirement) -> Version:
    """The oldest version that a requirement admits."""
    bounds = [s.version.removesuffix(".*") for s in requirement.specifier if s.operator in (">=", "==")]
    assert len(bounds) == 1, f"{requirement}: one lower bound, or one version"
    return Version(bounds[0])


def planned(*goals: str) -> list[str]:
    """Every call of uv or pip that would install the suite for these goals of `make`, of which none is run."""
    outer = {
        "MAKEFLAGS",
        "MAKEOVERRIDES",
        "MFLAGS",
        "CONSTRAINTS",
        "VENV",
        "OLDEST",
        "NEWEST",
    }  # make may run the tests
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    command = ["make", "--dry-run", "--no-print-directory", "--directory", str(ROOT), *goals]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
    return [call for line in done.stdout.splitlines() for call in line.split("||") if "--editable" in call]


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_both_files_of_versions_follow_the_ranges(requirement: Requirement):
    name = canonicalize_name(requirement.name)
    assert pins("constraints-oldest.txt")[name] == floor(requirement)
    assert pins("constraints-cpu.txt")[name] in requirement.specifier


def test_make_install_takes_the_exact_versions_with_uv_and_with_pip(tmp_path: Path):
    lines = planned("install-dev", f"VENV={tmp_path / 'none'}")
    assert len(lines) == 4  # the suite, then its tools; uv, or else pip
    assert all("--constraint constraints-cpu.txt" in line for line in lines)
    assert pins("constraints-cpu.txt")["torch"] == Version("2.13.0")


def test_the_ends_of_the_ranges_are_installed_apart(tmp_path: Path):
    oldest = planned("test-oldest", f"OLDEST={tmp_path / 'oldest'}")
    assert len(oldest) == 4
    assert all("--constraint constraints-oldest.txt" in line for line in oldest)
    newest = planned("test-newest", f"NEWEST={tmp_path / 'newest'}")
    assert len(newest) == 4
    assert not any("--constraint" in line for line in newest)
