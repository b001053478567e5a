"""Shared by every test: import paths, the hypothesis profile and the optional folder of shared material."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
for folder in (ROOT, TESTS):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

# One thread: sums come out in one order, and two workers on two cores do not wait for each other.
torch.set_num_threads(1)

# Derandomised: a red test is red for everybody. No deadline: the clock of a busy machine decides nothing.
settings.register_profile(
    "fspo", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("fspo")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with the project's shared material: $FSPO_SHARED, else `shared` beside the repository; skips if absent."""
    folder = Path(os.environ.get("FSPO_SHARED") or ROOT.parent / "shared")
    if not folder.is_dir():
        pytest.skip(f"no shared material at {folder} (set FSPO_SHARED to the folder that holds it)")
    return folder


@pytest.fixture(params=["pretended", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where a test of the device computes, "pretended" or "cuda"; to the test's program both are `cuda`."""
    from pretended_cuda import PretendedCuda

    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with PretendedCuda() if request.param == "pretended" else nullcontext():
        yield request.param


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Stop where pytest-xdist was asked for groups and makes none: two workers would then make what a group shares."""
    if getattr(config.option, "loadgroup", False):
        alone = [item.nodeid for item in items if item.get_closest_marker("xdist_group") and "@" not in item.nodeid]
        if alone:
            raise pytest.UsageError(f"pytest {pytest.__version__} and pytest-xdist do not group {alone[0]}")


REPORTED = "reported"
"""The name under which a test records a measured figure (`record_property`) for the end of the run's output."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests measured, whichever process they ran in."""
    passed = terminalreporter.getreports("passed")
    figures = [value for report in passed for name, value in report.user_properties if name == REPORTED]
    if figures:
        terminalreporter.section("measured")
        for line in figures:
            terminalreporter.write_line(str(line))
