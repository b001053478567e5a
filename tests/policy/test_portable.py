"""Portable arithmetic: who gets the variables, who notices that they are missing, and that a restart happens once."""

from __future__ import annotations

import io
import math
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from rich.console import Console

from suite.arithmetic import exact_root
from suite.config import restored
from suite.experiments.layouts import Layout, layout_for
from suite.experiments.local_jobs import run_jobs
from suite.experiments.recipes import recipe
from suite.policy import portable
from suite.policy.portable import BEGUN_AGAIN, VARIABLES, compute_portably, kind_of_arithmetic, variables
from suite.records.provenance import machine
from suite.types import UserError

here = pytest.mark.skipif(portable.without_effect() is not None, reason=f"{portable.without_effect()}")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment in which nobody has asked for portable arithmetic."""
    for name in (*VARIABLES, BEGUN_AGAIN):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("plain")
def test_it_has_no_effect_on_a_gpu_another_processor_or_an_old_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for target, name, value, reason in (
        (torch.cuda, "is_available", lambda: True, "a GPU computes"),
        (platform, "machine", lambda: "aarch64", "not an x86-64 processor but aarch64"),
        (torch.cpu, "_is_avx2_supported", lambda: False, "the processor has no AVX2"),
        (torch.backends.mkl, "is_available", lambda: False, "torch computes without MKL"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, value)
            assert portable.without_effect() == reason
            assert not variables(True)
            compute_portably(True)
            assert kind_of_arithmetic(True) == f"native ({reason})"
            assert kind_of_arithmetic(False) == "native"


@here
@pytest.mark.usefixtures("plain")
def test_a_process_without_the_variables_says_how_to_start_it() -> None:
    compute_portably(False)
    with pytest.raises(UserError, match=r"start it with ATEN_CPU_CAPABILITY=avx2 .*MKL_CBWR=COMPATIBLE, or take --set"):
        compute_portably(True)
    assert kind_of_arithmetic(True) == "native"


def test_it_is_a_setting_of_the_embedded_recipes_alone_and_old_folders_are_without() -> None:
    from suite.config import plain_data
    from suite.experiments.recipe_book import RECIPES

    portables = {name for name in RECIPES if recipe(name).train.portable}
    assert portables == {"demo", "demo-large", "smoke"} == {n for n in RECIPES if recipe(n).train.model == "embedded"}
    content = dict(plain_data(recipe("demo")))
    content["train"] = {key: value for key, value in content["train"].items() if key != "portable"}
    assert restored(content).train.portable is False


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_roots_are_the_correctly_rounded_ones(dtype: torch.dtype) -> None:
    """The root lies between its neighbours' midpoints: ((y + y-) / 2)^2 < x < ((y + y+) / 2)^2, in whole fractions."""
    x = torch.cat([torch.arange(0.0, 300), torch.rand(700, generator=torch.Generator().manual_seed(0))]).to(dtype)
    y = exact_root(x)
    assert (y.dtype, exact_root(x[3]).shape) == (dtype, ())
    low, high = (torch.nextafter(y, torch.full_like(y, end)) for end in (-math.inf, math.inf))
    for square, root, below, above in zip(x.tolist(), y.tolist(), low.tolist(), high.tolist(), strict=True):
        left, right = ((Fraction(root) + Fraction(other)) / 2 for other in (below, above))
        assert left < 0 or left**2 < Fraction(square)
        assert Fraction(square) < right**2


@here
@pytest.mark.usefixtures("plain")
def test_a_portable_layout_has_one_thread_a_process() -> None:
    assert layout_for(recipe("smoke").train, 1) == Layout(1, 1, portable=True)


@dataclass(frozen=True)
class Tells:
    """A job that leaves what its process computes with."""

    folder: Path
    name = "tells"
    total = 1

    def done(self) -> bool:
        return (self.folder / "told").exists()

    def finished_units(self) -> int:
        return 0

    def run(self) -> str:
        compute_portably(True)
        (self.folder / "told").write_text(f"{machine()['kernels']} {kind_of_arithmetic(True)}")
        return "fine"


@here
@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_workers_are_started_with_the_variables_and_the_parent_stays_as_it_was(tmp_path: Path) -> None:
    job = Tells(tmp_path)
    with pytest.raises(UserError, match=r"^tells: train\.portable: this process computes with kernels for"):
        run_jobs([[job]], Layout(1, 1), Console(file=io.StringIO()))
    run_jobs([[job]], Layout(1, 1, portable=True), Console(file=io.StringIO()))
    assert (tmp_path / "told").read_text() == "AVX2 portable"
    assert not VARIABLES.keys() & os.environ.keys()


PROGRAM = """
import sys
from suite.policy.portable import begin_again_portably, kind_of_arithmetic
print("begun", *sys.argv[1:], flush=True)
begin_again_portably(sys.argv[1] == "portable")
print(kind_of_arithmetic(True))
"""


@here
@pytest.mark.slow
@pytest.mark.usefixtures("plain")
def test_a_program_starts_itself_anew_once(tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)

    def call(*words: str, **more: str) -> list[str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **more}
        return subprocess.run(
            [sys.executable, str(path), *words], env=environment, capture_output=True, text=True, check=True
        ).stdout.splitlines()

    assert call("portable", "x y") == ["begun portable x y", "begun portable x y", "portable"]
    assert call("native") == ["begun native", "native"]
    assert call("portable", **VARIABLES) == ["begun portable", "portable"]
    assert call("portable", **{BEGUN_AGAIN: "1"}) == ["begun portable", "native"], "no second time"
