"""The command that says what is installed here. Its own top loads nothing, so it speaks where torch does not import."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from suite.records.installation import (
    NEEDED_FOR,
    SUITE,
    Package,
    machine_facts,
    packages,
    suite_version,
    torch_facts,
)

COLUMNS, LABEL = 80, 15


def doctor(data_dir: Path | None = None) -> None:
    """Say what is installed here, what is missing for what and which command brings it, and what is broken.

    Missing extras, sets and models are no fault. Exit code 1 where something is there that cannot be used: a package
    that does not import or is of a version that the suite does not admit, a set with other rows than it must have.

    Args:
        data_dir: Data folder whose sets are read and counted.
    """
    _tell(SUITE, suite_version())
    for what, said in machine_facts():
        _tell(what, said)
    found = packages()
    core = [package for package in found if not package.extra]
    _tell("packages", ", ".join(f"{package.name} {package.version or '(missing)'}" for package in core))
    wrong = {package.name: trouble for package in core if (trouble := package.trouble())}
    if "torch" not in wrong:
        for what, said in torch_facts():
            _tell(what, said)
    for package in _of_this_machine([package for package in found if package.extra], on_gpu="torch" not in wrong):
        if trouble := package.trouble():
            wrong[package.name] = trouble
        _tell_extra(package)
    if not wrong:  # the suite's own modules import the packages
        _tell_models()
        wrong |= _tell_sets(data_dir)
    for trouble in wrong.values():
        print(f"broken: {trouble}", flush=True)
    _tell("in short", f"{len(wrong)} broken, see above" if wrong else "nothing that is here is broken")
    if wrong:
        sys.exit(1)


def _tell(label: str, said: str) -> None:
    """A line with its label, broken at 80 columns."""
    lines = textwrap.wrap(said, COLUMNS - LABEL, break_long_words=False, break_on_hyphens=False)
    print(f"{label:<{LABEL}}" + f"\n{'':<{LABEL}}".join(lines), flush=True)


def _of_this_machine(extras: list[Package], on_gpu: bool) -> Iterator[Package]:
    """The extras, of vLLM's two builds the installed one, else the one for this machine."""
    if on_gpu:
        import torch

        on_gpu = torch.cuda.is_available()
    engines = [package for package in extras if package.extra.startswith("vllm")]
    fitting = [package for package in engines if package.version] or [
        package for package in engines if (package.extra == "vllm") == on_gpu
    ]
    yield from (package for package in extras if package not in engines or package in fitting)


def _tell_extra(package: Package) -> None:
    """What an extra is for, and the command that brings it where it is not there."""
    if package.version:
        _tell(package.name, f"{package.version}: {NEEDED_FOR[package.extra]}")
    else:
        _tell(package.name, f"missing; needed for {NEEDED_FOR[package.extra]}:")
        print(f"{'':<{LABEL}}{package.install}", flush=True)


def _tell_models() -> None:
    """The models that are on this machine by a name of the suite's."""
    from suite.experiments.models import SMOLLM2, model_folder

    _tell("models", f"embedded, {model_folder('embedded')}")
    folder = model_folder(SMOLLM2)
    _tell("", f"{SMOLLM2}, {folder}" if folder else f"{SMOLLM2} is missing: fspo model fetch {SMOLLM2}")


def _tell_sets(data_dir: Path | None) -> dict[str, str]:
    """Print the sets of a data folder with their problems; those that are there but are refused, with the reason."""
    from suite.types import UserError
    from tasks import GENERATED_TASKS, REAL_SETS

    _tell("sets", f"generated here: {', '.join(GENERATED_TASKS)}")
    if data_dir is None:
        _tell("", "others come from the hub, or from a folder: fspo doctor --data-dir DATA")
        return {}
    if not data_dir.is_dir():
        raise UserError(f"--data-dir {data_dir}: no such folder")
    wrong: dict[str, str] = {}
    for sheet in (module.SHEET for module in REAL_SETS):
        for split in sheet.files:
            if missing := sheet.missing(split, data_dir):
                _tell("", f"{sheet.name}, {split}: missing, {data_dir / missing[0]}")
                continue
            try:
                _tell("", f"{sheet.name}, {split}: {len(sheet.load(split, data_dir)):,} problems")
            except UserError as error:
                wrong[f"{sheet.name} {split}"] = str(error)
                _tell("", f"{sheet.name}, {split}: broken")
    return wrong
