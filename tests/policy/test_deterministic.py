"""train.deterministic: torch's deterministic algorithms are on while a cell computes, and training passes them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from small_world import small_config, small_trainer
from suite.experiments.names import METHODS
from suite.experiments.start import load
from suite.policy.deterministic import compute_deterministically


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    yield
    torch.use_deterministic_algorithms(False)
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
    if before is not None:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = before


@pytest.mark.parametrize("wanted", [True, False])
def test_a_cell_computes_as_it_is_told(wanted: bool) -> None:
    load(dataclasses.replace(small_config(), model="embedded", deterministic=wanted))
    assert torch.are_deterministic_algorithms_enabled() == wanted
    assert ("CUBLAS_WORKSPACE_CONFIG" in os.environ) == wanted


def test_a_workspace_of_the_users_stays() -> None:
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":16:8"
    compute_deterministically(True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


@pytest.mark.parametrize("name", ["fspo", "ppo"])
def test_training_knows_no_operation_without_a_deterministic_form(name: str, tmp_path: Path) -> None:
    """And on a CPU, where the algorithms are deterministic anyway, no number moves."""
    logs = []
    for wanted in (False, True):
        compute_deterministically(wanted)
        config = small_config(steps=1, kl_coefficient=0.01)
        log = small_trainer(METHODS[name], tmp_path / str(wanted), config).run()
        logs.append([{k: v for k, v in row.items() if not k.startswith(("seconds/", "peak_gib/"))} for row in log])
    assert logs[0] == logs[1]
