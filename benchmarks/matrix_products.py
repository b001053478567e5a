"""How fast torch's float32 products are on one thread, as they come and with MKL told that the processor is Intel's.

    python -m benchmarks.matrix_products [--rounds 5] [--quick] [--out FILE]

The products are those of SmolLM2-135M's layers over 400 tokens. One process computes them; then another does so with
the preloaded library of docs/speed.md, which gcc builds here; and so on. On an Intel processor the ratio is about 1.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks.ratios import Ratio, line, write
from suite.commands.console import complaints
from suite.types import UserError

TOKENS, SHAPES = 400, ((576, 576), (576, 192), (576, 1536), (1536, 576))
"""Rows of every product, and the layers' (inputs, outputs): attention's two kinds and the gated unit's."""
TELLING = "int mkl_serv_intel_cpu_true(void) { return 1; }\n"
AS_IT_COMES, TOLD = "as it comes", "told"


def speed(seconds: float) -> float:
    """GFLOP/s of this process on one thread: all SHAPES in turn for about so many seconds, after one turn unseen."""
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    pairs = [(torch.randn(TOKENS, m, generator=rng), torch.randn(n, m, generator=rng)) for m, n in SHAPES]
    operations, turns, spent = 2 * TOKENS * sum(m * n for m, n in SHAPES), 0, 0.0
    for x, weight in pairs:
        torch.nn.functional.linear(x, weight)
    start = time.perf_counter()
    while spent < seconds:
        for x, weight in pairs:
            torch.nn.functional.linear(x, weight)
        turns, spent = turns + 1, time.perf_counter() - start
    return operations * turns / spent / 1e9


def telling_library(folder: Path) -> Path:
    """The library that tells MKL, built in the folder. UserError without gcc."""
    if shutil.which("gcc") is None:
        raise UserError("gcc is not here, which builds the library of one line; install it")
    source, library = folder / "mkl_avx512.c", folder / "mkl_avx512.so"
    source.write_text(TELLING)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    return library


def measured(rounds: int, seconds: float) -> dict[str, list[float]]:
    """GFLOP/s of both kinds of process, round by round, each round in a process of its own."""
    found: dict[str, list[float]] = {AS_IT_COMES: [], TOLD: []}
    with tempfile.TemporaryDirectory() as folder:
        library = str(telling_library(Path(folder)))
        for _ in range(rounds):
            for name, preloaded in ((AS_IT_COMES, ""), (TOLD, library)):
                environment = {**os.environ, "LD_PRELOAD": preloaded, "OMP_NUM_THREADS": "1"}
                program = f"from benchmarks.matrix_products import speed; print(speed({seconds}))"
                done = subprocess.run(
                    [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True, check=True
                )
                found[name].append(float(done.stdout))
    return found


def run(rounds: int = 5, quick: bool = False, out: Path | None = None) -> None:
    """Measure, print both medians and their ratio, and keep all of it.

    Args:
        rounds: Processes of each kind.
        quick: One short round: does the script run?
        out: JSON file for every figure.
    """
    found: dict[str, Any] = measured(1, 0.1) if quick else measured(rounds, 3.0)
    medians = {name: statistics.median(values) for name, values in found.items()}
    what = "float32 GFLOP/s of one thread, MKL told to take AVX-512 / as it comes"
    ratio = Ratio("products", what, medians[TOLD] / medians[AS_IT_COMES], None, "higher")
    for name, value in medians.items():
        print(f"{name}: {value:.0f} GFLOP/s")
    print(line(ratio))
    if out is not None:
        write(out, "matrix_products", quick, [ratio], gflops=found)


if __name__ == "__main__":
    try:
        tyro.cli(run, prog="python -m benchmarks.matrix_products")
    except UserError as error:
        complaints.print(f"benchmarks.matrix_products: error: {error}", markup=False)
        sys.exit(2)
