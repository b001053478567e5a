"""`fspo doctor`: everything that pyproject.toml names is looked at; what is broken is named, what is missing is not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from suite.commands.doctor import COLUMNS, LABEL, doctor
from suite.records.installation import NEEDED_FOR, Package, machine_facts, packages, slower_products, torch_facts
from tasks import REAL_SETS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
EXTRAS = {name: lines for name, lines in PROJECT["optional-dependencies"].items() if name != "dev"}


def planted(folder: Path, package: str, number: str, source: str) -> None:
    """A package of that name and version in a folder, with its metadata."""
    about = folder / f"{package}-{number}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {number}\n")
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(source)


def found(name: str) -> Package:
    return next(package for package in packages() if package.name == name)


def said(capsys: pytest.CaptureFixture[str], data_dir: Path | None = None) -> tuple[int, str]:
    """Exit code and output of the doctor in this process."""
    try:
        doctor(data_dir)
        code = 0
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    return code, capsys.readouterr().out


def test_every_extra_is_for_something() -> None:
    assert set(NEEDED_FOR) == set(EXTRAS)


def test_what_pyproject_names_is_looked_at_with_the_version_that_is_here() -> None:
    here = {package.name: package for package in packages()}
    extras = {Requirement(line).name for lines in EXTRAS.values() for line in lines}
    assert CORE - set(here) <= {"packaging"}, "an installation from before it was named there"
    assert set(here) - CORE == extras
    assert {name: package.version for name, package in here.items() if not package.extra} == {
        name: version(name) for name in here if name in CORE
    }
    assert {package.extra for package in here.values()} == {"", *EXTRAS}


def test_a_sound_installation_says_what_is_missing_for_what(capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys)
    assert code == 0, text
    assert text.endswith("nothing that is here is broken\n")
    missing = [package for package in packages() if package.version is None and "vllm" not in package.name]
    for package in missing:
        assert f"{package.name:<{LABEL}}missing; needed for" in text
        assert package.install in text
    for label, fact in (*machine_facts(), *torch_facts()):
        assert f"\n{label:<{LABEL}}" in text
        assert label == "GiB free" or set(fact.split()) <= set(text.split())  # what is free moves
    wide = [line for line in text.splitlines() if len(line) > COLUMNS]
    assert all("install" in line or len(line.split()) <= 2 for line in wide), wide


def test_an_amd_processor_with_avx512_alone_is_told_where_its_faster_products_are() -> None:
    intel = "vendor_id\t: GenuineIntel\nflags\t: fma avx2 avx512f avx512dq\n"
    amd = intel.replace("GenuineIntel", "AuthenticAMD")
    ((label, said),) = slower_products(amd)
    assert label == "MKL"
    page, heading = re.findall(r"(docs/\S+\.md), ([^,]+),", said)[0]
    assert f"\n## {heading}\n" in (ROOT / page).read_text(encoding="utf-8")
    assert not list(slower_products(intel))
    assert not list(slower_products(amd.replace(" avx512f", "")))


def test_a_package_of_another_version_and_one_that_does_not_import_are_broken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planted(tmp_path, "wandb", "0.30.0", "raise RuntimeError('built for\\nanother \\x1b[31mPython')")
    planted(tmp_path, "ray", "1.0", "")
    monkeypatch.syspath_prepend(tmp_path)
    code, text = said(capsys)
    broken = [line for line in text.splitlines() if line.startswith("broken: ")]
    assert code == 1
    assert len(broken) == 2
    assert broken[0].startswith("broken: ray 1.0: the suite needs ray<3,>=2.60; pip install ")
    assert broken[1].startswith(
        r"broken: wandb 0.30.0 fails at import: RuntimeError: built for another \x1b[31mPython; pip install --force-re"
    )


def test_a_core_package_that_is_not_there_is_broken() -> None:
    assert Package("scipy", None, "scipy>=1.14", False, "").trouble() == (
        "scipy: not installed; pip install 'scipy>=1.14'"
    )
    assert Package("ray", None, "ray>=2.60,<3", False, "ray").trouble() is None


@pytest.mark.slow
def test_a_torch_that_does_not_load_is_one_line_of_the_doctors(tmp_path: Path) -> None:
    planted(tmp_path, "torch", version("torch").partition("+")[0], "raise OSError('libcudart.so.13: not found')")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-m", "suite.commands.main", "method", "list"]
    elsewhere = tmp_path / "elsewhere"  # a file beside one's own is never taken for a package
    elsewhere.mkdir()
    done = subprocess.run(command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "fspo: error: this installation is broken: OSError: libcudart.so.13: not found\n"
    broken = [line for line in done.stdout.splitlines() if line.startswith("broken: torch ")]
    assert len(broken) == 1
    assert "fails at import: OSError: libcudart.so.13: not found; pip install --force-reinstall" in broken[0]


# --- the data folder --------------------------------------------------------------------------------


def test_a_set_with_other_rows_is_broken_and_one_without_a_file_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "aime24").mkdir()
    row = '{"id": "a", "problem": "1 + 1", "answer": "2", "source": "x"}\n'
    (tmp_path / "aime24/test.jsonl").write_text(row)
    code, text = said(capsys, tmp_path)
    broken = [line for line in text.splitlines() if line.startswith("broken: ")]
    assert (code, len(broken)) == (1, 1)
    assert "aime24/test.jsonl: 1 rows, expected 30 of aime24" in broken[0]
    missing = sum(len(module.SHEET.files) for module in REAL_SETS) - 1
    assert text.count(": missing,") == missing


@pytest.mark.external
def test_the_sets_of_a_data_folder_are_counted(shared: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = said(capsys, shared / "data")
    assert code == 0, text
    for line in ("gsm8k, train: 7,473 problems", "svamp, eval: 300 problems", "aime24, eval: 30 problems"):
        assert line in text
