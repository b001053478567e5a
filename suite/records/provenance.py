"""Where a number was made: versions, commit, machine. Never part of a digest that two machines should share."""

from __future__ import annotations

import functools
import json
import os
import platform
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from suite.records.files import write_atomically
from suite.records.installation import commit

PACKAGES = ("fspo-suite", "torch", "transformers", "tokenizers", "math-verify", "numpy")


@functools.cache
def versions() -> dict[str, str]:
    """Versions of this suite and of the libraries that can move a number, and the commit of a source checkout."""
    found = {"python": platform.python_version(), "commit": commit()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def machine() -> dict[str, str]:
    """Processor, torch's kernels for it, system and accelerator of this process.

    `preloaded`, only where there are any: names of the libraries of LD_PRELOAD, which may change how torch computes.
    """
    import torch  # here, so that readers of a folder need none

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    preloaded = [Path(name).name for name in re.split("[: ]+", os.environ.get("LD_PRELOAD", "")) if name]
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "processor_name": processor_name(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "accelerator": device,
        **({"preloaded": " ".join(preloaded)} if preloaded else {}),
    }


@functools.cache
def processor_name() -> str:
    """The processor as it calls itself, such as `AMD EPYC 9654`; the machine's kind where it has no name."""
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()


@contextmanager
def environment_variables(values: Mapping[str, str | None]) -> Iterator[None]:
    """These variables, None for unset, for the block and the processes it starts; afterwards the earlier ones again."""

    def put(chosen: Mapping[str, str | None]) -> None:
        for name, value in chosen.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    before = {name: os.environ.get(name) for name in values}
    put(values)
    try:
        yield
    finally:
        put(before)


def write_provenance(folder: Path, command: Sequence[str], **facts: Any) -> None:
    """Write made.json beside results that are no run: the command, what it was made from, versions and machine."""
    content = {"command": shlex.join(command), **facts, "versions": versions(), "machine": machine()}
    write_atomically(folder / "made.json", json.dumps(content, indent=1, default=str) + "\n")
